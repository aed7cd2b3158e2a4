"""Encoded bytes to embeddings: how much of the bare model's rate is left?

    python -m benchmarks.encoder_throughput [--data FILE.parquet|DIR] [--spec SPEC] [--decode-threads N]

Each round times the same pictures four ways, one after the other, so that a busy machine slows all four:

- bare: the model alone on normalised tensors that are in memory already, in batches of 16 on all cores;
- encode: ``Encoder.embed`` on decoded pixels;
- decode: ``decode`` alone, in the given number of threads;
- end to end: the pipeline's own ``Embedder``, one batch decoding while the one before it is encoded.

The ratio is end to end over bare, round by round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.pictures import encoded_pictures
from embeddings import Encoder, Picture, decode
from streams.embedding import Embedder
from streams.events import Coordinates, QueryEvent

BARE = 16
"""Pictures in a batch of the bare model: the fastest of 4, 8, 16 and 32 on two cores."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="banken-compact")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=Path, help="Parquet file or directory of PNGs; else drawn")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="images in one forward pass")
    parser.add_argument("--batch", type=int, default=64, help="images in one call of embed")
    parser.add_argument("--decode-threads", type=int, default=1)
    options = parser.parse_args()
    encoder = Encoder.load(options.spec, device=options.device, batch_size=options.batch_size)
    blobs = encoded_pictures(options.data, options.images)
    print(
        f"{encoder.identity.name} on {encoder.device}, {encoder.preprocess.size} px, "
        f"chunks of {encoder.batch_size}, torch threads: {torch.get_num_threads()}, "
        f"decode threads: {options.decode_threads}; {len(blobs)} pictures of "
        f"{np.mean([len(blob) for blob in blobs]):,.0f} bytes"
    )
    pixels = np.stack([p.pixels for p in decoded(encoder, blobs, options.decode_threads)])
    resident = [encoder.normalise(pixels[start : start + BARE]) for start in range(0, len(pixels), BARE)]
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: [bare(encoder, images) for images in resident],
        "encode": lambda: encoder.embed(pixels),
        "decode": lambda: decoded(encoder, blobs, options.decode_threads),
        "end to end": lambda: end_to_end(encoder, blobs, options.batch, options.decode_threads),
    }
    for way in ways.values():
        way()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if encoder.device.type == "cuda":
                torch.cuda.synchronize()
            rates[name].append(len(blobs) / (time.perf_counter() - start))
    for name, values in rates.items():
        print(f"{name:>10}: {np.median(values):7.0f} images/s  (from {min(values):.0f} to {max(values):.0f})")
    ratios = np.divide(rates["end to end"], rates["bare"])
    print(
        f"{'ratio':>10}: {np.median(ratios):7.2f}           (from {ratios.min():.2f} to {ratios.max():.2f})"
    )


@torch.inference_mode()
def bare(encoder: Encoder, images: torch.Tensor) -> object:
    return encoder.model.encode_image(images)


def decoded(encoder: Encoder, blobs: Sequence[bytes], threads: int) -> list[Picture]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda blob: decode(blob, encoder.preprocess), blobs))


def end_to_end(encoder: Encoder, blobs: Sequence[bytes], batch: int, threads: int) -> None:
    with Embedder(lambda: encoder, threads=threads, cached=0) as embedder:
        ready = []
        for start in range(0, len(blobs) + batch, batch):
            decoding = [embedder.submit(event(blob)) for blob in blobs[start : start + batch]]
            embedder.embed(ready)
            ready = decoding


def event(blob: bytes) -> QueryEvent:
    return QueryEvent(id="q", time=0, client="c", endpoint="e", at=Coordinates("", "", 0), image=blob)


if __name__ == "__main__":
    main()
