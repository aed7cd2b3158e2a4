"""What a trusted history says about honest clients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from detector.baseline import Baseline
from detector.monitor import Batch, Monitor
from detector.rates import BenignRates, fit_rates
from detector.subjects import LEVELS

__all__ = ["rates_of"]


def rates_of(baseline: Baseline, history: Iterable[Batch]) -> BenignRates:
    """Fit the benign rates on a trusted history that goes through the same duplicate rule as the log.

    Args:
        baseline: fitted on images that are not in the history.
        history: the trusted clients' queries in the log's order.
    """
    monitor = Monitor(baseline, groups=())
    trials: dict[str, int] = defaultdict(int)
    hits: dict[str, npt.NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(LEVELS), np.int64))
    for batch in history:
        alone = Batch(
            batch.ids, batch.times, batch.clients, [()] * len(batch), batch.embeddings, batch.fingerprints
        )
        observed = monitor.observe(alone)
        monitor.saved()
        for client, hit in zip(batch.clients, observed.hits, strict=True):
            trials[client] += 1
            hits[client] += hit
    clients = sorted(trials)
    return fit_rates(
        np.array([trials[client] for client in clients], np.int64),
        np.array([hits[client] for client in clients], np.int64).reshape(len(clients), len(LEVELS)),
    )
