"""Domains that are declared in words: prompts, the concepts beside them, and their shipped calibration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from embeddings.encoder import Encoder
from embeddings.errors import EncoderError

__all__ = ["PromptCalibration", "calibration_of", "embed_concepts", "embed_prompts"]

_SHIPPED = files("embeddings.compact")
_ARTICLES = ("a ", "an ", "the ")


@dataclass(frozen=True, slots=True)
class PromptCalibration:
    """How images score under a domain that is declared in words; made by `benchmarks/prompt_domains.py`.

    The domains behind it are random sets of classes that the text tower never saw with their names.

    Attributes:
        weights: SHA-256 of the encoder's weights that it is for, hex.
        temperature: what cosines are multiplied with.
        nothing: cosine of the concept "nothing that was named".
        apart: a concept with this cosine to a prompt or more is left out.
        near_duplicate: cosine similarity from which two images may be near duplicates.
        domains: how many domains were declared.
        bound: benign rate by level that `share` of such domains stay under.
        mean: by level: the mean benign rate over them.
        scores: quantiles of the scores of images under their own domains, ascending, shape (n,).
    """

    weights: str
    temperature: float
    nothing: float
    apart: float
    near_duplicate: float
    domains: int
    bound: tuple[float, ...]
    mean: tuple[float, ...]
    scores: tuple[float, ...]


def calibration_of(encoder: Encoder) -> PromptCalibration:
    """The calibration that ships for an encoder.

    Raises:
        EncoderError: there is none for these weights.
    """
    shipped = json.loads((_SHIPPED / "prompts.json").read_text("utf-8"))
    shipped |= {name: tuple(shipped[name]) for name in ("bound", "mean", "scores")}
    calibration = PromptCalibration(**shipped)
    if encoder.identity.weights != calibration.weights:
        raise EncoderError(
            f"prompts are calibrated for the weights {calibration.weights[:12]} of banken-compact, this is "
            f"{encoder.identity.name} with {encoder.identity.weights[:12]}; fit on reference images, or use "
            "banken-compact as it ships"
        )
    return calibration


def embed_prompts(encoder: Encoder, prompts: Sequence[str]) -> npt.NDArray[np.float16]:
    """Embed what people write of a domain.

    A noun phrase ("a coat") loses its article and is the mean over the shipped templates ("a photo of a
    coat.", …). A line that ends with a full stop is a caption and is taken as it stands.

    Returns:
        L2-normalised float16, shape (n, d).
    """
    embedded = np.empty((len(prompts), encoder.identity.dim), np.float16)
    captions = np.array([prompt.endswith(".") for prompt in prompts], np.bool_)
    phrases = [_bare(prompt) for prompt in prompts if not prompt.endswith(".")]
    embedded[captions] = encoder.embed_text([prompt for prompt in prompts if prompt.endswith(".")])
    embedded[~captions] = encoder.embed_text(phrases, _lines("templates.txt"))
    return embedded


def embed_concepts(encoder: Encoder) -> npt.NDArray[np.float16]:
    """Embed the shipped vocabulary: L2-normalised float16, shape (v, d)."""
    return embed_prompts(encoder, _lines("vocabulary.txt"))


def _bare(phrase: str) -> str:
    for article in _ARTICLES:
        if phrase.lower().startswith(article):
            return phrase[len(article) :].lstrip()
    return phrase


@cache
def _lines(name: str) -> tuple[str, ...]:
    return tuple((_SHIPPED / name).read_text("utf-8").splitlines())
