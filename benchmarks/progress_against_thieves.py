"""Extraction progress against thieves that were really trained.

    python -m benchmarks.progress_against_thieves --data DIR --cache DIR

The owner's figures come from embeddings and answers alone; the thieves see pixels through other backbones
(docs/progress.md says what was chosen beforehand, and on what). Thieves once trained are read from the cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.trained_thieves import FOUNDATION, SCRATCH, Thief, represent
from detector.progress import Answered, Exam, Progress, progress_of
from redteam.pictures import Pictures
from redteam.world import World, load_world

BUDGETS = (100, 500, 2_000, 5_000)
EXAM = 1_000


@dataclass(frozen=True, slots=True)
class Setting:
    """What a thief asked, what the owner measured, and what thieves reached.

    Attributes:
        pool: where the pictures come from.
        budget: how many were asked.
        progress: the owner's figures.
        foundation: agreement by thief with foundation features, in [0, 1].
        scratch: agreement by thief without.
    """

    pool: str
    budget: int
    progress: Progress
    foundation: dict[str, float]
    scratch: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    data = os.environ.get("BANKEN_DATA")
    parser.add_argument("--data", type=Path, default=data, required=data is None, help="folder of image sets")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what is computed once")
    parser.add_argument("--domain", default="cifar10", help="the protected domain's file")
    parser.add_argument("--pools", nargs="*", help="foreign pools; all by default")
    parser.add_argument("--budgets", nargs="*", type=int, default=BUDGETS, help="queries asked")
    parser.add_argument("--labels", action="store_true", help="the log has labels and no scores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = load_world(arguments.data, arguments.cache, arguments.domain)
    cache = arguments.cache / "thieves"
    settings = []
    print("| pool | queries | thieves with foundation features | predicted | from scratch | predicted |")
    print("|---|---|---|---|---|---|")
    for setting in measured(world, arguments.pools, tuple(arguments.budgets), cache, labels=arguments.labels):
        settings.append(setting)
        progress = setting.progress
        print(
            f"| {setting.pool} | {setting.budget:,} | {_list(setting.foundation)} "
            f"| {_points(progress.strong)} ({_points(progress.low)}–{_points(progress.high)}) "
            f"| {_list(setting.scratch)} | {_points(progress.weak)} |",
            flush=True,
        )
    _summary("strong", [(one.progress.strong, one.foundation) for one in settings])
    _summary("weak", [(one.progress.weak, one.scratch) for one in settings])


def measured(
    world: World, pools: list[str] | None, budgets: tuple[int, ...], cache: Path, *, labels: bool
) -> Iterator[Setting]:
    """Every pool at every budget.

    Args:
        world: the victim and everybody's pictures.
        pools: names of foreign pools; None for all.
        budgets: how many queries a thief asks.
        cache: folder for trained thieves.
        labels: thieves and owner have only the labels of the answers.
    """
    exam = world.exam[:EXAM]
    asked = {name: world.pools[name] for name in sorted(world.pools) if pools is None or name in pools}
    owner = Exam.choose(exam.embeddings, _answers(exam, world.classes, labels=labels))
    for name, whole in {"in-distribution": world.thief, **asked}.items():
        asked_for = sorted({min(budget, len(whole)) for budget in budgets})
        # A pool is represented once, for all budgets.
        pool = whole[: max(asked_for)]
        for budget in asked_for:
            mine = pool[:budget]
            pairs = Answered.of(owner, mine.embeddings, _answers(mine, world.classes, labels=labels))
            started = time.process_time()
            progress = progress_of(owner, pairs, budget)
            if (took := time.process_time() - started) > 1.0:
                print(f"measuring {budget:,} pairs took {took:.2f} s of processor time")
            foundation, scratch = (
                {
                    thief: _agreement(thief, *thieves[thief], (pool, budget, exam), cache, labels=labels)
                    for thief in thieves
                }
                for thieves in (FOUNDATION, SCRATCH)
            )
            yield Setting(name, budget, progress, foundation, scratch)


def _agreement(
    name: str,
    representation: str,
    thief: Thief,
    task: tuple[Pictures, int, Pictures],
    cache: Path,
    *,
    labels: bool,
) -> float:
    """Train a thief and let it answer the exam; or read what it reached when it was trained before."""
    pool, budget, exam = task
    scores = pool.answers[:budget]
    if labels:
        scores = np.eye(scores.shape[1], dtype=np.float32)[scores.argmax(axis=1)]
    digest = hashlib.sha256(name.encode())
    for array in (pool.pixels[:budget], scores.argmax(axis=1), exam.pixels, exam.answers.argmax(axis=1)):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(b"labels" if labels else b"scores")
    stored = cache / f"run-{digest.hexdigest()[:20]}.json"
    if not stored.exists():
        asked = represent(pool.pixels, representation, cache)[:budget]
        found = thief(asked, scores, represent(exam.pixels, representation, cache))
        cache.mkdir(parents=True, exist_ok=True)
        stored.write_text(json.dumps(float((found == exam.answers.argmax(axis=1)).mean())))
    return float(json.loads(stored.read_text()))


def _answers(
    pictures: Pictures, classes: tuple[str, ...], *, labels: bool
) -> list[tuple[str, dict[str, float]]]:
    """What the log says of the answers."""
    return [
        (classes[row.argmax()], {} if labels else dict(zip(classes, row.tolist(), strict=True)))
        for row in pictures.answers
    ]


def _list(agreements: dict[str, float]) -> str:
    return " / ".join(_points(value) for value in agreements.values())


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _summary(what: str, pairs: list[tuple[float, dict[str, float]]]) -> None:
    runs = np.array([(predicted, value) for predicted, found in pairs for value in found.values()])
    best = np.array([(predicted, max(found.values())) for predicted, found in pairs])
    errors, under = np.abs(runs[:, 0] - runs[:, 1]), best[:, 1] - best[:, 0]
    print(
        f"\n{what}: {len(runs)} trained thieves ({', '.join(pairs[0][1])}); mean absolute error "
        f"{100 * errors.mean():.1f} points over all, {100 * np.abs(under).mean():.1f} against the best of "
        f"each setting; at most {100 * under.max():.1f} below the best, {-100 * under.min():.1f} above it; "
        f"r = {np.corrcoef(runs.T)[0, 1]:.3f} over all, {np.corrcoef(best.T)[0, 1]:.3f} against the best"
    )


if __name__ == "__main__":
    main()
