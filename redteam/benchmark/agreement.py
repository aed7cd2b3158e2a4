"""What a thief holds: a model trained on the answers it got, and how often it agrees with the victim."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from redteam.pictures import Pictures

__all__ = ["agreement"]

_STRENGTHS = (3.0, 30.0, 300.0)
"""Inverse regularisation, of embeddings of unit length: few answers want little, many noisy ones more."""

_STEPS = 300


def agreement(answered: Pictures, exam: Pictures) -> float:
    """Train thieves on hard labels and count how often the best of them gives the victim's answer.

    A thief is multinomial logistic regression on foundation features, the strong thief of Raj, Varma and
    Arora (arXiv 2502.18077, section 4); its features are those of the detector's own encoder. A real
    one would choose its regularisation on queries that it kept back; this one is lucky.

    Args:
        answered: what the thief asked, with the answers; at least one.
        exam: pictures of the domain that nobody asked.

    Returns:
        Share of the exam on which the thief's answer is the victim's, in [0, 1].
    """
    told, right = answered.answers.argmax(axis=1), exam.answers.argmax(axis=1)
    if len(np.unique(told)) == 1:
        return float((right == told[0]).mean())
    asked, sat = answered.embeddings.astype(np.float32), exam.embeddings.astype(np.float32)
    reached = []
    for strength in _STRENGTHS:
        thief = LogisticRegression(C=strength, max_iter=_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a thief stops when it is good enough
            thief.fit(asked, told)
        reached.append(float((thief.predict(sat) == right).mean()))
    return max(reached)
