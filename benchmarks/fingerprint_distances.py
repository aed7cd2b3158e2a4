"""How many bits of a fingerprint change under what a client may do to a picture, and between pictures?

    python -m benchmarks.fingerprint_distances [--data FILE.parquet|DIR] [--images 300]

The bounds for near duplicates are read off this table (docs/encoders.md).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.pictures import encoded_pictures
from embeddings.decoding import fingerprint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="Parquet file or directory of PNGs; else drawn")
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    pictures = [on_white(data) for data in encoded_pictures(options.data, options.images)]
    generator = np.random.default_rng(0)

    def noisy(picture: Image.Image) -> Image.Image:
        pixels = np.asarray(picture) + generator.normal(0, 4, (picture.height, picture.width, 3))
        return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

    def stepped(picture: Image.Image) -> Image.Image:
        """A step of 0.1 of the range along random signs, as JBDA takes along a gradient's."""
        step = 25.5 * generator.choice([-1, 1], (picture.height, picture.width, 3))
        return Image.fromarray((np.asarray(picture) + step).clip(0, 255).astype(np.uint8))

    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "JPEG at quality 75": recompressed,
        "noise of σ = 4": noisy,
        "signs of 0.1": stepped,
        "0.9 times the size": lambda p: p.resize((max(1, p.width * 9 // 10), max(1, p.height * 9 // 10))),
    }
    prints = [fingerprint(picture) for picture in pictures]
    for name, change in changes.items():
        distances = [
            (fingerprint(change(picture)) ^ before).bit_count()
            for picture, before in zip(pictures, prints, strict=True)
        ]
        within = np.mean(np.array(distances) <= 10)
        print(
            f"{name:>20}: median {np.median(distances):.0f}, 95 % {np.percentile(distances, 95):.0f}, "
            f"{within:.0%} at 10 bits or fewer"
        )
    others = np.array([(first ^ second).bit_count() for first, second in combinations(prints, 2)])
    print(
        f"{'two pictures':>20}: median {np.median(others):.0f}, 1 % {np.percentile(others, 1):.0f}, ", end=""
    )
    print(f"{np.mean(others <= 10):.2%} at 10 bits or fewer")
    closest = [
        min((prints[i] ^ prints[j]).bit_count() for j in generator.choice(len(prints), 65) if j != i)
        for i in range(len(prints))
    ]
    print(
        f"{'closest of 64':>20}: median {np.median(closest):.0f}, 1 % {np.percentile(closest, 1):.0f}, "
        f"{np.mean(np.array(closest) <= 10):.2%} at 10 bits or fewer"
    )


def on_white(data: bytes) -> Image.Image:
    """Transparency composed on white, as decoding does; RGB."""
    layers = Image.open(io.BytesIO(data)).convert("RGBA")
    layers.thumbnail((512, 512))
    return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")


def recompressed(picture: Image.Image) -> Image.Image:
    """As JPEG at quality 75 and back."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return Image.open(buffer).convert("RGB")


if __name__ == "__main__":
    main()
