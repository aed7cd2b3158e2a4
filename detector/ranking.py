"""Lists of suspects with a bounded false discovery rate: the e-BH procedure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detector.errors import DetectorError

__all__ = ["e_bh"]


def e_bh(
    evidence: npt.NDArray[np.floating[Any]], level: float, *, judged: int | None = None
) -> npt.NDArray[np.bool_]:
    """Lists suspects so that the expected share of benign ones among them is at most ``level``.

    Lists the k subjects with the most evidence, for the largest k whose k-th largest e-value is at least
    ``m/(level·k)``. Valid under any dependence between the subjects, and at any moment chosen by looking,
    as long as m counts every subject ever judged at this level (clients, or networks, …; never mixed).

    Args:
        evidence: current e-values, >= 0, one a subject, shape (n,).
        level: bound on the false discovery rate, in (0, 1].
        judged: m, how many subjects were ever judged, at least n. Those left out of ``evidence`` count as
            not listed; leaving out any below ``1/level`` changes nothing. None means n.

    Returns:
        Which of the subjects are listed, shape (n,).

    Raises:
        DetectorError: a level outside (0, 1], an e-value that is negative or not a number, or fewer judged
            than given.

    Examples:
        >>> import numpy as np
        >>> e_bh(np.array([90.0, 1.0, 0.2, 45.0]), 0.05).tolist()
        [True, False, False, True]

    References:
        Wang and Ramdas (2022), False discovery rate control with e-values, JRSS-B 84(3), section 4.
    """
    m = evidence.size if judged is None else judged
    if not 0.0 < level <= 1.0:
        raise DetectorError(f"e-BH: level is {level}; give a false discovery rate in (0, 1]")
    if m < evidence.size:
        raise DetectorError(
            f"e-BH: {m} subjects judged but {evidence.size} e-values; count every subject ever judged"
        )
    if not np.all(evidence >= 0.0):
        raise DetectorError(
            "e-BH: an e-value is negative or not a number; pass evidence, not p-values or logarithms"
        )
    ranked = np.sort(evidence)[::-1]
    enough = np.flatnonzero(level * ranked * np.arange(1, ranked.size + 1) >= m)
    if enough.size == 0:
        return np.zeros(evidence.shape, dtype=np.bool_)
    # Equal e-values stay together: if the k-th passes, an equal one after it passes more easily.
    listed: npt.NDArray[np.bool_] = evidence >= ranked[enough[-1]]
    return listed
