"""How far do embeddings move when the model runs in bfloat16 instead of float32?

    python -m benchmarks.encoder_drift [--data FILE.parquet|DIR] [--spec SPEC] [--images 64]

Both runs are on the CPU, the second under autocast, as a GPU without a GPU. Prints the cosine between the two
embeddings of each picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.pictures import encoded_pictures
from embeddings import Encoder, decode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", default="banken-compact")
    parser.add_argument("--data", type=Path, help="Parquet file or directory of PNGs; else drawn")
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    encoder = Encoder.load(options.spec, device="cpu")
    blobs = encoded_pictures(options.data, options.images)
    pixels = np.stack([decode(blob, encoder.preprocess).pixels for blob in blobs])
    with torch.inference_mode():
        images = encoder.normalise(pixels)
        full = encoder.model.encode_image(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = encoder.model.encode_image(images).float()
    cosine = torch.nn.functional.cosine_similarity(full, half).numpy()
    print(f"{encoder.identity.name}, {len(cosine)} pictures: cosine of float32 and bfloat16 embeddings")
    print(f"median {np.median(cosine):.4f}, least {cosine.min():.4f}")


if __name__ == "__main__":
    main()
