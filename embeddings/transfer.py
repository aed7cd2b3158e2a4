"""Chunks of pixels to a GPU while it computes."""

from __future__ import annotations

from itertools import cycle
from threading import Lock
from typing import Any

import numpy.typing as npt
import torch

__all__ = ["CudaFeed"]


class CudaFeed:
    """Two page-locked buffers that take turns.

    While the GPU works on one chunk, the next is on its way on a stream of its own. A buffer is written again
    only when its last copy has left it.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = cycle((_Slot(), _Slot()))
        self._lock = Lock()

    def __call__(self, chunk: npt.NDArray[Any]) -> torch.Tensor:
        """Start copying a chunk; work queued on the current stream afterwards waits for it."""
        rows = torch.from_numpy(chunk)
        with self._lock:
            slot = next(self._slots)
            slot.left.synchronize()
            if slot.buffer.shape != rows.shape or slot.buffer.dtype != rows.dtype:
                slot.buffer = torch.empty_like(rows, pin_memory=True)
            slot.buffer.copy_(rows)
            with torch.cuda.stream(self._stream):
                arrived = slot.buffer.to(self._device, non_blocking=True)
                slot.left.record(self._stream)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(slot.left)
        arrived.record_stream(current)  # or the allocator would hand its memory on too early
        return arrived


class _Slot:
    """A page-locked buffer and the event of its last copy."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0, dtype=torch.uint8)
        self.left = torch.cuda.Event()  # type: ignore[no-untyped-call]
