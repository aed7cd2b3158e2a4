"""Links by content: which accounts ask as one, judged by the odd-numbered half of their foreign queries.

Accounts that share no attribute of the log may still share what they ask: nearly the same pictures, pictures
from one source, or parts of one plan. Nothing here is evidence of theft. It only says which accounts belong
together; the other half of their queries, which nothing here has seen, judges them (docs/campaigns.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from detector.domain import product
from detector.perturbation import FINGERPRINT_BITS

__all__ = ["Content", "Link", "LinkKind", "Pool", "complementary_slices", "shared_duplicates"]

_Floats = npt.NDArray[np.float32]

SHARED = 2
"""Pictures that two accounts must share: one may be the sample picture of somebody's tutorial."""

OFF_CENTRE = 0.25
"""How far an account's mean may lie from the pool's beyond noise, as a share of the pool's own squared
distance from other clients' foreign queries: a large account's mean is so exact that any habit shows."""

NOISE = 3.0
"""Standard deviations of an account's mean that are noise."""

_BLOCK = 256


class LinkKind(StrEnum):
    """What holds an account in its campaign."""

    DUPLICATES = "near duplicates"
    POOL = "same pool"
    SLICES = "complementary slices"


@dataclass(frozen=True, slots=True)
class Link:
    """Why an account belongs to a campaign.

    Attributes:
        kind: what it shares with the others.
        strength: near duplicates: pictures shared; same pool: where the account's mean lies on the way from
            other clients' foreign queries (0) to the campaign's (1); slices: of the pairs of its queries with
            the others' that would meet in one place if all asked alike, the share that does not.
    """

    kind: LinkKind
    strength: float


@dataclass(frozen=True, slots=True)
class Content:
    """Foreign linking-half queries of several accounts.

    Attributes:
        embeddings: L2-normalised float32, shape (k, d).
        fingerprints: perceptual hashes, uint64, shape (k,); 0 where there was no picture.
        places: where in the domain each falls: the class that it was answered with, or its nearest cell;
            int64, shape (k,).
        owners: index of the account that each belongs to, int64, shape (k,).
    """

    embeddings: _Floats
    fingerprints: npt.NDArray[np.uint64]
    places: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.owners)

    def __getitem__(self, which: npt.NDArray[Any]) -> Content:
        return Content(
            self.embeddings[which], self.fingerprints[which], self.places[which], self.owners[which]
        )

    def of(self, accounts: npt.NDArray[np.intp]) -> Content:
        """The queries of some accounts."""
        return self[np.isin(self.owners, accounts)]


def shared_duplicates(mine: Content, theirs: Content, near: float) -> dict[tuple[int, int], int]:
    """How many pictures of each account another one has asked too, or nearly.

    Args:
        mine: queries of the accounts to link.
        theirs: queries to look among; an account is not compared with itself.
        near: cosine similarity from which two queries may be near duplicates; two pictures must also have
            fingerprints that differ in at most `FINGERPRINT_BITS` bits.

    Returns:
        By (account, other account), the number of the first one's pictures that both have, where it is at
        least :data:`SHARED`.
    """
    found: dict[tuple[int, int], int] = {}
    for start in range(0, len(mine), _BLOCK):
        block = slice(start, start + _BLOCK)
        prints = mine.fingerprints[block, None]
        unlike = np.bitwise_count(prints ^ theirs.fingerprints) > FINGERPRINT_BITS
        unlike &= (prints != 0) & (theirs.fingerprints != 0)
        alike = ~unlike & (product(mine.embeddings[block], theirs.embeddings.T) >= near)
        rows, others = np.nonzero(alike & (mine.owners[block, None] != theirs.owners))
        pairs = {
            (start + row, owner)
            for row, owner in zip(rows.tolist(), theirs.owners[others].tolist(), strict=True)
        }
        for row, owner in pairs:
            key = int(mine.owners[row]), owner
            found[key] = found.get(key, 0) + 1
    return {pair: count for pair, count in found.items() if count >= SHARED}


@dataclass(frozen=True, slots=True)
class Fit:
    """How accounts compare with a pool, arrays of shape (accounts,).

    Attributes:
        along: where the account's mean lies on the line from other clients' foreign queries (0) to the
            pool (1).
        near: it is not significantly off the pool; nobody is near one that cannot be told from other clients.
        fits: near, and at least half way.
    """

    along: npt.NDArray[np.float64]
    near: npt.NDArray[np.bool_]
    fits: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pool:
    """Where some accounts' foreign queries come from, against other clients' foreign queries.

    An account fits when its mean lies at least half way from the others to the pool, along the line between
    them (the rule of linear discriminant analysis with equal covariances), and not significantly off the
    pool: ``|mean − centre|² − tr Σ/n`` has expectation 0 for n draws from the pool, and a standard deviation
    of ``√(2·tr Σ²)/n`` (Bai and Saranadasa 1996, Effect of high dimension, Statistica Sinica 6, section 3).

    Attributes:
        origin: mean of other clients' foreign queries, shape (d,).
        sums: sum of each account's queries, float64, shape (accounts, d).
        counts: their number, shape (accounts,).
        scatter: sum of squared lengths of each account's queries around the origin, shape (accounts,).
        spread: tr Σ² of the pool's queries around their centre.
    """

    origin: npt.NDArray[np.float64]
    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    scatter: npt.NDArray[np.float64]
    spread: float

    @classmethod
    def of(cls, content: Content, accounts: int, origin: npt.NDArray[np.float64]) -> Pool:
        """Sum up the queries of accounts, of which there are ``accounts``."""
        away = content.embeddings - origin.astype(np.float32)
        counts = np.bincount(content.owners, minlength=accounts)
        some = np.flatnonzero(counts)
        starts = np.cumsum(counts[some]) - counts[some]
        sums = np.zeros((len(counts), len(origin)))
        scatter = np.zeros(len(counts))
        if len(some):
            by_account = away[np.argsort(content.owners, kind="stable")].astype(np.float64)
            sums[some] = np.add.reduceat(by_account, starts, axis=0)
            scatter[some] = np.add.reduceat(np.einsum("ij,ij->i", by_account, by_account), starts)
        sample = away[:: max(1, len(away) // _BLOCK)]
        sample = sample - sample.mean(axis=0) if len(sample) else sample
        meet = product(sample, sample.T) ** 2
        pairs = len(sample) * (len(sample) - 1)
        spread = float(meet.sum() - np.trace(meet)) / pairs if pairs else 0.0
        return cls(origin, sums, counts, scatter, spread)

    def fit(self, members: npt.NDArray[np.bool_]) -> Fit:
        """Compare every account with the pool that ``members`` make up, each without itself."""
        n, mine = np.maximum(self.counts, 1), np.where(members, self.counts, 0)
        others = np.maximum(mine.sum() - mine, 1)
        mean = self.sums / n[:, None]
        centre = (self.sums[members].sum(axis=0) - self.sums * members[:, None]) / others[:, None]
        # The pool's own scatter adds to every squared distance.
        length = np.einsum("ij,ij->i", centre, centre)
        scatter = float(self.scatter[members].sum()) / max(int(mine.sum()), 1)
        within = max(scatter - float(length.mean()), 0.0)
        length -= within / others
        deviation = NOISE * np.sqrt(2.0 * self.spread)
        apart = (length > deviation / others) & (self.counts > 0) & (mine.sum() > mine)
        along = np.einsum("ij,ij->i", mean, centre) / np.maximum(length, 1e-12)
        off = np.einsum("ij,ij->i", mean - centre, mean - centre) - within * (1 / n + 1 / others)
        near = apart & (off <= OFF_CENTRE * length + deviation * (1 / n + 1 / others))
        return Fit(along, near, near & (along >= 0.5))


def complementary_slices(content: Content, accounts: int) -> dict[int, float]:
    """Accounts that divide the domain's classes or cells among themselves.

    If all asked alike, two queries would meet in one place with the probability ``Σ_c p_c²`` that the
    pooled shares p_c give, whosever they are. Accounts with slices meet themselves far more often and each
    other hardly ever; together they cover what none covers alone.

    Args:
        content: queries of the accounts.
        accounts: how many accounts there are.

    Returns:
        The accounts with slices and the share of expected meetings with the others that did not happen; none
        unless there are three, who expect ten meetings and have at most a third of them.
    """
    places = np.unique(content.places, return_inverse=True)[1]
    counts = np.zeros((accounts, int(places.max(initial=-1)) + 1))
    np.add.at(counts, (content.owners, places), 1.0)
    kept = counts.sum(axis=1) >= SHARED
    while kept.sum() >= 3:
        mine = counts * kept[:, None]
        total = mine.sum(axis=0)
        n = mine.sum(axis=1)
        chance = float(np.sum((total / total.sum()) ** 2))
        between = np.einsum("ac,ac->a", mine, total - mine)
        within = np.einsum("ac,ac->a", mine, mine - 1.0)
        expected_between, expected_within = chance * n * (n.sum() - n), chance * n * (n - 1.0)
        stays = kept & (3.0 * between <= expected_between) & (within >= 1.5 * expected_within)
        if np.array_equal(stays, kept):
            if expected_between.sum() / 2 < 10.0:
                break
            return {
                int(account): float(1.0 - between[account] / expected_between[account])
                for account in np.flatnonzero(kept)
            }
        # The worst goes first: what meets it may be a slice without it.
        excess = np.where(kept & ~stays, between / np.maximum(expected_between, 1e-12), -1.0)
        kept[int(np.argmax(excess))] = False
    return {}
