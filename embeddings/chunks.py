"""Many rows through a model in pieces of one fixed size."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embeddings.errors import EncoderError

__all__ = ["Forward", "in_chunks", "in_parallel", "invariant_chunk"]

Forward = Callable[[npt.NDArray[Any]], torch.Tensor]
"""A model: an array of k rows to a tensor of k rows."""


def in_chunks(forward: Forward, rows: npt.NDArray[Any], size: int) -> tuple[list[torch.Tensor], int]:
    """Run a model over rows, always on chunks of one size; zeros fill the last.

    Kernels choose another order of summation for another batch size, so a chunk of another shape would give
    other bits. When the device runs out of memory the size is halved, once and for all, and the run goes on
    where it was.

    Args:
        forward: the model. May return before the device has finished.
        rows: its input, shape (n, …).
        size: rows in a chunk.

    Returns:
        The model's output in pieces, n rows together; and the size to use from now on.

    Raises:
        EncoderError: one row alone does not fit the device.
    """
    pieces: list[torch.Tensor] = []
    start = 0
    while start < len(rows):
        count = min(size, len(rows) - start)
        try:
            pieces.append(forward(_filled(rows[start : start + size], size))[:count])
        except torch.cuda.OutOfMemoryError as error:
            if size == 1:
                raise EncoderError(
                    "the device has no memory for a single picture; use device 'cpu'"
                ) from error
            torch.cuda.empty_cache()
            size //= 2
            continue
        start += count
    return pieces, size


def in_parallel(forward: Forward, rows: npt.NDArray[Any], size: int, workers: Executor) -> list[torch.Tensor]:
    """Run a model over rows as `in_chunks` does, several chunks at a time.

    On a CPU one chunk on each core beats one chunk on all cores: no core waits for another within a layer,
    which matters most when something else wants a core too.

    Args:
        forward: the model; called from the workers' threads.
        rows: its input, shape (n, …).
        size: rows in a chunk.
        workers: whose threads run one chunk each.

    Returns:
        The model's output in pieces, n rows together.
    """
    starts = range(0, len(rows), size)
    outputs = workers.map(lambda start: forward(_filled(rows[start : start + size], size)), starts)
    return [output[: len(rows) - start] for start, output in zip(starts, outputs, strict=True)]


def invariant_chunk(forward: Forward, shape: tuple[int, ...], largest: int) -> int:
    """The largest chunk size at which a row's place in the chunk does not change a bit.

    Random rows go through the model twice, the second time each one place further. Some kernels treat the
    last rows of a batch with other instructions than the first; then the two outputs differ and the chunk is
    halved. One row alone has one place only.

    Args:
        forward: the model.
        shape: of one row; rows are uint8.
        largest: the first size tried; halved until the outputs agree.
    """
    size = largest
    generator = np.random.default_rng(0)
    while size > 1:
        rows = generator.integers(0, 256, (size, *shape), np.uint8)
        pieces, fitting = in_chunks(forward, np.concatenate([rows, np.roll(rows, 1, axis=0)]), size)
        if fitting < size:
            size = fitting
            continue
        first, second = torch.cat(pieces).chunk(2)
        if torch.equal(first.roll(1, dims=0), second):
            break
        size //= 2
    return size


def _filled(rows: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """A chunk of exactly ``size`` rows; zeros fill it."""
    if len(rows) == size:
        return rows
    chunk = np.zeros((size, *rows.shape[1:]), rows.dtype)
    chunk[: len(rows)] = rows
    return chunk
