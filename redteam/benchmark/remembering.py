"""A victim that remembers what it answered: honest clients ask the same few thousand pictures all day."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from redteam.victims import Victim

__all__ = ["RememberingVictim"]


class RememberingVictim(Victim):
    """Answers each picture once; the same model otherwise.

    Args:
        victim: who answers.
    """

    def __init__(self, victim: Victim) -> None:
        super().__init__(victim.model, victim.classes, victim.checkpoints[:-1])
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}

    def scores(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Answer queries; see `redteam.victims.Victim.scores`."""
        digests = [blake2b(row.tobytes(), digest_size=16).digest() for row in pixels]
        new = {digest: row for row, digest in enumerate(digests) if digest not in self._known}
        if new:
            answers = super().scores(pixels[list(new.values())])
            self._known.update(zip(new, answers, strict=True))
        if not digests:
            return super().scores(pixels)
        return np.stack([self._known[digest] for digest in digests])
