"""What a trusted history says about honest clients."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from detector.baseline import Baseline
from detector.monitor import Batch, Monitor
from detector.rates import (
    CONFIDENCE,
    DEFAULT_MARGIN,
    DEFAULT_RATES,
    MINIMUM_CLIENTS,
    SHARE,
    BenignRates,
    fit_rate,
    outliers,
)
from detector.signals import CHANNELS, Signal

__all__ = ["rates_of"]

_COVERAGE, _BOUNDARY = (
    next(place for place, channel in enumerate(CHANNELS) if channel.signal is signal)
    for signal in (Signal.COVERAGE, Signal.BOUNDARY)
)
_UNSURE = 0.05
"""Share of honest answers that the boundary's threshold lets through."""


@dataclass(slots=True)
class _Client:
    """What one trusted client did: trials and hits by channel, shape (channels,), and answers' margins."""

    queries: int = 0
    trials: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(CHANNELS)))
    hits: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(CHANNELS), np.int64))
    margins: array[float] = field(default_factory=lambda: array("f"))  # infinite for repeats, which never hit


def rates_of(baseline: Baseline, history: Iterable[Batch]) -> BenignRates:
    """Fit the benign rates on a trusted history that goes through the same rules as the log.

    1. The history is judged, and each client's trials and hits are counted. A trial of the coverage channel
       is the mass that the client had not visited.
    2. The boundary's threshold is a quantile of every other client's margins; the rest of the clients say
       how often honest ones stay below it.
    3. Clients that do not belong with the others are left out and named (`detector.rates.outliers`).
    4. Each channel's rate is fitted on those that are left.

    Args:
        baseline: fitted on images that are not in the history.
        history: the trusted clients' queries in the log's order.
    """
    # With a factor of 1 the bound that the monitor reports for coverage is the unvisited mass itself.
    plain = list(DEFAULT_RATES.channels)
    plain[_COVERAGE] = replace(plain[_COVERAGE], bound=1.0, mean=1.0)
    # With an endless margin every scored query hits the boundary, unless it repeats an earlier one.
    counting = replace(DEFAULT_RATES, channels=tuple(plain), margin=np.inf)
    monitor = Monitor(baseline.with_rates(counting), groups=())
    clients: defaultdict[str, _Client] = defaultdict(_Client)
    for batch in history:
        outcomes = monitor.observe(replace(batch, groups=[()] * len(batch))).outcomes
        monitor.saved()
        trials = (outcomes.bounds < 1.0).astype(np.float64)
        trials[:, _COVERAGE] *= outcomes.bounds[:, _COVERAGE]
        hits = outcomes.observed
        for i, name in enumerate(batch.clients):
            client = clients[name]
            client.queries += 1
            client.trials += trials[i]
            client.hits += hits[i]
            if not np.isnan(batch.margins[i]):
                client.margins.append(float(batch.margins[i]) if hits[i, _BOUNDARY] else np.inf)
    return _fit(sorted(clients), clients)


def _fit(names: list[str], clients: dict[str, _Client]) -> BenignRates:
    margin = _count_boundary([clients[name] for name in names])
    trials = np.array([clients[name].trials for name in names]).reshape(len(names), len(CHANNELS))
    hits = np.array([clients[name].hits for name in names], np.int64).reshape(trials.shape)
    queries = np.array([clients[name].queries for name in names], np.int64)
    strange = np.zeros(len(names), np.bool_)
    for place, channel in enumerate(CHANNELS):
        if channel.signal is not Signal.BOUNDARY:
            strange |= outliers(channel, trials[:, place], hits[:, place])
    kept = ~strange
    channels = tuple(
        fit_rate(channel, trials[kept, place], hits[kept, place], int(queries[kept].sum()))
        for place, channel in enumerate(CHANNELS)
    )
    fitted = int(kept.sum()) >= MINIMUM_CLIENTS
    worst = np.argsort(-(hits[:, 0] / np.maximum(queries, 1)), kind="stable")
    return BenignRates(
        channels,
        margin,
        SHARE if fitted else 0.0,
        CONFIDENCE if fitted else 0.0,
        outliers=tuple(names[i] for i in worst.tolist() if strange[i]),
    )


def _count_boundary(clients: list[_Client]) -> float:
    """Set the boundary channel's trials and hits by a threshold from other clients, and return it."""
    for client in clients:
        client.trials[_BOUNDARY] = client.hits[_BOUNDARY] = 0
    answered = [client for client in clients if np.isfinite(client.margins).any()]
    if len(answered) < 2:
        return DEFAULT_MARGIN
    margins = np.concatenate([np.asarray(client.margins, np.float64) for client in answered[::2]])
    threshold = float(np.quantile(margins[np.isfinite(margins)], _UNSURE))
    for client in answered[1::2]:
        client.trials[_BOUNDARY] = len(client.margins)
        client.hits[_BOUNDARY] = sum(margin <= threshold for margin in client.margins)
    return threshold
