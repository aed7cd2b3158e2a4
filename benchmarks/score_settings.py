"""How the out-of-domain score's settings were chosen: subspace, neighbours and what they tell apart.

    python -m benchmarks.score_settings --data DIR [--cache DIR]

CIFAR-10 `train` is the domain and the splits `encoder` of CIFAR-100 and Tiny-ImageNet are foreign; no image
of a test split or a `pool` is looked at. DIR and the cache are those of `python -m embeddings.compact.train`.
Prints, by setting, AUROC and the share of foreign images above the domain's own 95 % quantile.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.prompt_domains import Bench
from detector.domain import Domain

FOREIGN = ("cifar100-encoder", "tiny-imagenet-encoder")
FITTED, SCALED = 4000, 4500  # images that fit the domain, and up to where they set its scales


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the parquet files")
    parser.add_argument("--cache", type=Path, default=Path("compact-cache"), help="folder for trunk features")
    options = parser.parse_args()
    bench = Bench(options.data, options.cache)
    own = bench.images("cifar10-train")
    foreign = {name: bench.images(name)[:2500] for name in FOREIGN}
    print("| explained | k | " + " | ".join(f"{name}: AUROC, hits" for name in FOREIGN) + " |")
    print("|---|---|" + "---|" * len(FOREIGN))
    for explained in (0.1, 0.2, 0.5):
        for neighbours in (3, 10, 20, 40, 80):
            domain = Domain.fit(own[:FITTED], own[FITTED:SCALED], explained=explained, neighbours=neighbours)
            inside, _ = domain.score(own[SCALED:])
            cells = []
            for images in foreign.values():
                outside, _ = domain.score(images)
                truth = np.repeat([0, 1], [len(inside), len(outside)])
                auroc = roc_auc_score(truth, np.concatenate([inside, outside]))
                hits = np.mean(outside > np.quantile(inside, 0.95))
                cells.append(f"{auroc:.3f}, {hits:.1%}")
            print(f"| {explained} | {neighbours} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
