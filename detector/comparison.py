"""What refitting changes, and why."""

from __future__ import annotations

from dataclasses import dataclass

from detector.baseline import Baseline
from detector.signals import CHANNELS, LEVELS, Channel, Signal

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two baselines of one endpoint side by side.

    Attributes:
        same_encoder: whether their embeddings can be compared at all.
        bounds: π₀ by level, (old, new).
        allowances: m₀ at the first level, (old, new).
        new_foreign_to_old: share of the new calibration images with p ≤ 0.05 under the old baseline; about
            0.05 where the domain is the same, None across encoders and where either was declared in words.
        old_foreign_to_new: the other way round.
    """

    same_encoder: bool
    bounds: tuple[tuple[float, ...], tuple[float, ...]]
    allowances: tuple[float, float]
    new_foreign_to_old: float | None
    old_foreign_to_new: float | None

    def as_json(self) -> dict[str, object]:
        """The figures by name."""
        return {
            "same_encoder": self.same_encoder,
            "old_benign_bound": list(self.bounds[0]),
            "new_benign_bound": list(self.bounds[1]),
            "old_exposure_allowance": self.allowances[0],
            "new_exposure_allowance": self.allowances[1],
            "new_foreign_to_old": self.new_foreign_to_old,
            "old_foreign_to_new": self.old_foreign_to_new,
        }

    def lines(self) -> list[str]:
        """The comparison in sentences."""
        lines = [
            f"Benign bound, {channel}: {_bound(channel, old)} before, {_bound(channel, new)} after; "
            + (
                "thieves are found sooner."
                if new < old
                else "honest clients are given more room."
                if new > old
                else "no change."
            )
            for channel, old, new in zip(CHANNELS, *self.bounds, strict=True)
        ]
        lines.append(
            f"Exposure counts foreign queries above {self.allowances[0]:.1%} before, "
            f"{self.allowances[1]:.1%} after."
        )
        if self.new_foreign_to_old is None or self.old_foreign_to_new is None:
            why = "A domain declared in words has no pictures" if self.same_encoder else "The encoders differ"
            lines.append(f"{why}, so the domains cannot be compared picture by picture.")
            return lines
        lines.append(
            f"{self.new_foreign_to_old:.1%} of the new reference is foreign to the old baseline, and "
            f"{self.old_foreign_to_new:.1%} of the old one to the new; about {LEVELS[0]:.0%} each where the "
            "domain is the same."
        )
        if self.new_foreign_to_old > 2 * LEVELS[0]:
            lines.append(
                "The new reference covers pictures that the old one did not: the domain has grown or moved."
            )
        if self.old_foreign_to_new > 2 * LEVELS[0]:
            lines.append(
                "Pictures that were normal are foreign now: check that the new reference is complete."
            )
        return lines


def compare(old: Baseline, new: Baseline) -> Comparison:
    """Compare two baselines of one endpoint."""
    same = old.encoder.weights == new.encoder.weights
    pictures = same and len(old.held_out) > 0 and len(new.held_out) > 0
    return Comparison(
        same,
        (old.rates.bound, new.rates.bound),
        (old.rates.allowance[0], new.rates.allowance[0]),
        float(old.judge(new.held_out).foreign[:, 0].mean()) if pictures else None,
        float(new.judge(old.held_out).foreign[:, 0].mean()) if pictures else None,
    )


def _bound(channel: Channel, value: float) -> str:
    """A rate as a share of queries, or of coverage as a factor on what has not been visited."""
    return f"{value:.2f} × unvisited mass" if channel.signal is Signal.COVERAGE else f"{value:.1%}"
