"""Declaring a domain in words: a file of prompts in, a baseline out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detector.baseline import Baseline, EncoderKey
from detector.prompt_domain import PromptDomain
from detector.rates import DEFAULT_RATES, BenignRate
from streams.errors import StreamError

if TYPE_CHECKING:
    from embeddings.encoder import Encoder

__all__ = ["MOST_PROMPTS", "declare", "read_prompts"]

MOST_PROMPTS = 1000
"""More than this are no description of a domain, and a slow one."""

_MOST_BYTES = 1_000_000


def read_prompts(path: str) -> tuple[str, ...]:
    """Read prompts, one a line.

    Blank lines and lines that start with ``#`` are skipped; what stands there twice counts once.

    Raises:
        StreamError: no such file, not UTF-8, no prompt in it, or too many.
    """
    place = Path(path).expanduser()
    try:
        with place.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise StreamError(f"prompts {path}: cannot be read: {error.strerror}") from error
    try:
        lines = content.decode("utf-8-sig").splitlines() if len(content) <= _MOST_BYTES else None
    except UnicodeDecodeError as error:
        raise StreamError(
            f"prompts {path}: not UTF-8 at byte {error.start}; give a text file with a prompt a line"
        ) from error
    if lines is None:
        raise StreamError(f"prompts {path}: more than {_MOST_BYTES:,} bytes; give a prompt a line")
    stripped = (" ".join(line.split()) for line in lines)
    prompts = tuple(dict.fromkeys(line for line in stripped if line and not line.startswith("#")))
    if not prompts:
        raise StreamError(
            f'prompts {path}: no prompt in it; write what the endpoint is for, one a line, such as "a coat"'
        )
    if len(prompts) > MOST_PROMPTS:
        raise StreamError(f"prompts {path}: {len(prompts):,} prompts, at most {MOST_PROMPTS:,} are taken")
    return prompts


def declare(endpoint: str, prompts: Sequence[str], encoder: Encoder) -> Baseline:
    """The baseline of a domain in words, with the calibration that ships with the encoder.

    Args:
        endpoint: the model that it is for.
        prompts: what its queries show.
        encoder: embeds the prompts.

    Raises:
        EncoderError: there is no calibration for these weights.
    """
    from embeddings.prompts import calibration_of, embed_concepts, embed_prompts  # noqa: PLC0415 (torch)

    calibration = calibration_of(encoder)
    domain = PromptDomain.declare(
        embed_prompts(encoder, prompts),
        embed_concepts(encoder),
        temperature=calibration.temperature,
        nothing=calibration.nothing,
        apart=calibration.apart,
    )
    source = f"{calibration.domains} other domains declared in words"
    levels = zip(calibration.bound, calibration.mean, strict=True)
    of_words = tuple(BenignRate(bound, mean, 0, 0, source) for bound, mean in levels)
    rates = replace(DEFAULT_RATES, channels=(*of_words, *DEFAULT_RATES.channels[len(of_words) :]))
    identity = encoder.identity
    return Baseline.declare(
        endpoint,
        EncoderKey(identity.name, identity.weights, identity.dim),
        domain,
        np.array(calibration.scores),
        near_duplicate=calibration.near_duplicate,
        rates=rates,
    )
