"""Is memory flat over a long run? Embeds pictures by the hundred thousand and watches the process's size.

    python -m benchmarks.encoder_memory [--data FILE.parquet|DIR] [--images 100000]

The pictures are cycled; each goes the pipeline's way every time, through its decoding threads and a cache
that is too small to keep any until they come round again. Prints the resident memory ten times along the
way and fails if it grows after the first tenth, which fills the allocators' pools, by more than allowed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from itertools import cycle, islice
from pathlib import Path

from benchmarks.encoder_throughput import event
from benchmarks.pictures import encoded_pictures
from embeddings import Encoder
from streams.embedding import Embedder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="banken-compact")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=Path, help="Parquet file or directory of PNGs; else drawn")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=64, help="images in one call of embed")
    parser.add_argument("--cached", type=int, default=1000, help="entries of the cache")
    parser.add_argument("--allowance", type=float, default=32, help="growth that is let pass, in MiB")
    options = parser.parse_args()
    encoder = Encoder.load(options.spec, device=options.device)
    blobs = islice(cycle(encoded_pictures(options.data, 2048)), options.images)
    done, marks, start = 0, [], time.perf_counter()
    print(f"loaded: {resident():.0f} MiB")
    embedder = Embedder(lambda: encoder, cached=options.cached)
    ready = []
    while True:
        chunk = [embedder.submit(event(blob)) for blob in islice(blobs, options.batch)]
        done += len(embedder.embed(ready))
        ready = chunk
        if not chunk:
            break
        if done * 10 // options.images > len(marks):
            marks.append(resident())
            rate = done / (time.perf_counter() - start)
            print(f"{done:9,} images: {marks[-1]:.0f} MiB, {rate:.0f} images/s", flush=True)
    growth = max(marks) - marks[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"growth after the first tenth: {growth:.1f} MiB; peak {peak:.0f} MiB")
    sys.exit(growth > options.allowance)


def resident() -> float:
    """MiB of the process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 1024**2


if __name__ == "__main__":
    main()
