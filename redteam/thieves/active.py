"""ActiveThief: each round asks what a substitute, trained on the answers so far, would learn most from."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.stats import entropy
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from redteam.pictures import Pictures
from redteam.thieves.thief import Rows, held, pool_of, register
from redteam.world import World

__all__ = ["InDomainEntropy", "InDomainKCentre", "PoolEntropy", "PoolKCentre"]

_ROUNDS = 10

_Scores = npt.NDArray[np.float64]


class _Active(ABC):
    """Rounds of asking and fitting (Pal et al. 2020, "ActiveThief", AAAI 34(1), the framework of figure 2).

    A tenth of the budget is drawn blindly; each of nine further rounds fits the substitute to every answer so
    far and selects as many from what is left. The substitute is a logistic regression on foundation features
    and learns from hard labels: a strong thief, and a fast one.
    """

    seeds: ClassVar[int] = 0
    makes: ClassVar[bool] = False

    @abstractmethod
    def _holdings(self, world: World) -> Pictures:
        """The pool."""

    @abstractmethod
    def _select(self, scores: _Scores, asked: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        """Rows to ask next, of those not yet asked, given the substitute's scores of the whole pool."""

    def ask(
        self, world: World, budget: int, rng: np.random.Generator, *, slice_: Rows = slice(None)
    ) -> Pictures:
        """Rounds until the budget or the pool is spent."""
        pool = held(self._holdings(world), slice_, rng)
        budget = min(budget, len(pool))
        features = pool.embeddings.astype(np.float32)
        answers = pool.answers.argmax(axis=1)
        asked = np.arange(max(1, budget // _ROUNDS))
        while len(asked) < budget:
            count = min(-(-budget // _ROUNDS), budget - len(asked))
            scores = _substitute(features[asked], answers[asked], features)
            asked = np.concatenate([asked, self._select(scores, asked, count)])
        return pool[asked]


class _Entropy(_Active):
    """What the substitute is least sure of ("uncertainty" among their strategies)."""

    def _select(self, scores: _Scores, asked: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        uncertainty = entropy(scores, axis=1)
        uncertainty[asked] = -1.0
        return np.argsort(-uncertainty, kind="stable")[:count]


class _KCentre(_Active):
    """What lies farthest, in the substitute's scores, from everything asked ("k-centre" among theirs).

    Greedy: each choice becomes a centre for the next (Sener and Savarese 2018, algorithm 1).
    """

    def _select(self, scores: _Scores, asked: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        squares = (scores**2).sum(axis=1)

        def from_centre(centre: int) -> _Scores:
            distances: _Scores = squares + squares[centre] - 2 * scores @ scores[centre]
            return distances

        nearest = np.min([from_centre(centre) for centre in asked], axis=0)
        nearest[asked] = -1.0
        chosen = []
        for _ in range(count):
            centre = int(nearest.argmax())
            chosen.append(centre)
            nearest = np.minimum(nearest, from_centre(centre))
            nearest[centre] = -1.0
        return np.array(chosen, np.int64)


@dataclass(frozen=True, slots=True)
class _OfPool:
    """Draws on a foreign pool."""

    pool: str
    foreign: ClassVar[bool] = True
    in_domain: ClassVar[bool] = False

    def _holdings(self, world: World) -> Pictures:
        return pool_of(world, self.pool)


class _OfDomain:
    """Draws on the thief's own pictures of the domain: it maps the domain, as coverage expects."""

    foreign: ClassVar[bool] = False
    in_domain: ClassVar[bool] = True

    def _holdings(self, world: World) -> Pictures:
        return world.thief


@register("activethief-entropy")
class PoolEntropy(_OfPool, _Entropy):
    """Uncertainty, from a foreign pool."""

    @property
    def name(self) -> str:
        """``activethief-entropy-POOL``."""
        return f"activethief-entropy-{self.pool}"


@register("activethief-kcentre")
class PoolKCentre(_OfPool, _KCentre):
    """Greedy k-centre, from a foreign pool."""

    @property
    def name(self) -> str:
        """``activethief-kcentre-POOL``."""
        return f"activethief-kcentre-{self.pool}"


@register("activethief-entropy-in-domain")
class InDomainEntropy(_OfDomain, _Entropy):
    """Uncertainty, from pictures of the domain."""

    @property
    def name(self) -> str:
        """``activethief-entropy-in-domain``."""
        return "activethief-entropy-in-domain"


@register("activethief-kcentre-in-domain")
class InDomainKCentre(_OfDomain, _KCentre):
    """Greedy k-centre, from pictures of the domain."""

    @property
    def name(self) -> str:
        """``activethief-kcentre-in-domain``."""
        return "activethief-kcentre-in-domain"


def _substitute(
    features: npt.NDArray[np.float32], answers: npt.NDArray[np.int64], pool: npt.NDArray[np.float32]
) -> _Scores:
    """Scores of a logistic regression for every picture of the pool, shape (n, answers seen)."""
    if len(np.unique(answers)) < 2:  # nothing to tell apart yet: every picture is as good as another
        return np.ones((len(pool), 1))
    # Two threads that wait for each other cost more than these small products gain.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # thirty steps rank a pool well enough
        model = LogisticRegression(C=10.0, max_iter=30).fit(features, answers)
        return np.asarray(model.predict_proba(pool), np.float64)
