"""How many queries a second the detector judges, and what a million known subjects cost it.

Embeddings go in and evidence, findings and rows to store come out; decoding, encoding and the database are
left out. 512 dimensions, a reference of 10,000 images. Each case is timed in turns with the others and with
two bare costs of the same batches: the projection alone (double precision, one thread) and the FAISS search
alone. So the ratios hold on a busy machine too:

    python -m benchmarks.detector_throughput

"held" keeps every known subject in memory. "bounded" keeps a tenth: before each batch the stored rows of
those that are missing come back through ``insert``, which is timed; the storage itself is an array whose
reading and writing is not. Clients are drawn uniformly, which is the worst case for a bounded table; the
million belong to 20,000 organisations and 5,000 networks, so a batch is about three times as many different
subjects as one of a thousand clients. "rate" is that of the same batches with 1,000 clients.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from detector.baseline import Baseline, EncoderKey
from detector.domain import product
from detector.groups import DEFAULT_GROUPS
from detector.monitor import Batch, Monitor
from detector.subjects import CLIENT, STATE, SubjectKey, SubjectRow

DIM, REFERENCE, SPREAD = 512, 10_000, 0.35
ORGANISATION, NETWORK = 50, 200  # clients of one organisation and of one network


class World:
    """Clustered directions, as encoders make them, and others far from them."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.homes = [self.rng.normal(size=(40, DIM)) * 0.05 for _ in range(2)]

    def embeddings(self, n: int, share: float = 0.0) -> np.ndarray:
        """``n`` float16 embeddings, of which ``share`` is foreign."""
        home = self.rng.integers(40, size=n)
        foreign = self.rng.random(n) < share
        x = np.where(foreign[:, None], self.homes[1][home], self.homes[0][home])
        x += self.rng.normal(size=(n, DIM)) * 0.1 / np.arange(1, DIM + 1) ** SPREAD
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


@dataclass
class Case:
    """A monitor with ``known`` stored clients; the first ``held`` of them start in memory."""

    name: str
    known: int
    capacity: int
    groups: tuple[str, ...]
    monitor: Monitor = field(init=False)
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    loaded: int = 0
    megabytes: float = 0.0

    def build(self, baseline: Baseline) -> None:
        """A monitor whose table is as full as it gets; notes what that added to the peak of memory."""
        before = peak_megabytes()
        self.monitor = Monitor(baseline, groups=self.groups, capacity=self.capacity)
        self.names = [f"key-{i:07d}" for i in range(self.known)]
        state = np.zeros((), STATE)
        state["starts"] = state["queries"] = 50
        state["evidence"], state["bucket"] = 0.1, -1
        held = min(self.known, self.capacity)
        bare = state.tobytes()
        self.monitor.insert((self.row(i, bare) for i in range(held)), [])
        self.megabytes = peak_megabytes() - before
        self.stored: dict[str, bytes] = {}
        self.bare = bare

    def row(self, client: int, state: bytes) -> SubjectRow:
        """A stored client."""
        return SubjectRow(SubjectKey(CLIENT, self.names[client]), 50, 0.1, 0.0, 0.0, 0, 0, 0, state)

    def fetch(self, key: SubjectKey) -> SubjectRow | None:
        """What storage has: the latest saved row, or the one that every known client began with."""
        state = self.stored.get(str(key), self.bare if key.kind == CLIENT else None)
        return None if state is None else SubjectRow(key, 0, 0.0, 0.0, 0.0, 0, 0, 0, state)

    def observe(
        self,
        embeddings: np.ndarray,
        fingerprints: np.ndarray,
        margins: np.ndarray,
        time_ms: int,
        draw: np.ndarray,
    ) -> None:
        """Time what the pipeline asks of the detector for one batch."""
        clients = (draw % self.known).tolist()
        groups = {
            "org": [SubjectKey("org", f"org-{client // ORGANISATION}") for client in clients],
            "network": [SubjectKey("network", f"10.0.{client // NETWORK}.0/24") for client in clients],
            "fleet": [SubjectKey("fleet", "all")] * len(clients),
        }
        batch = Batch(
            ids=[f"q-{time_ms}-{i}" for i in range(len(clients))],
            times=time_ms + np.arange(len(clients)),
            clients=[self.names[client] for client in clients],
            groups=list(zip(*(groups[kind] for kind in self.groups), strict=True)) or [()] * len(clients),
            embeddings=embeddings,
            fingerprints=fingerprints,
            margins=margins,
        )
        wall, cpu = time.perf_counter(), time.process_time()
        missing = self.monitor.missing(batch)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows = [row for key in missing if (row := self.fetch(key))]
        self.loaded += len(rows)
        began = time.perf_counter(), time.process_time()
        self.monitor.insert(rows, [])
        self.monitor.observe(batch)
        changed = self.monitor.changed()
        self.monitor.saved()
        self.seconds.append(wall + time.perf_counter() - began[0])
        self.cpu.append(cpu + time.process_time() - began[1])
        if self.capacity < self.known:
            self.stored.update((str(row.key), row.state) for row in changed)


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=1024, help="queries in a batch")
    parser.add_argument("--batches", type=int, default=60, help="batches of each case")
    parser.add_argument("--known", type=int, default=1_000_000, help="the larger number of known subjects")
    parser.add_argument("--foreign", type=float, default=0.03, help="share of foreign queries")
    arguments = parser.parse_args()

    world = World(0)
    baseline = Baseline.fit("bench", EncoderKey("bench", "0" * 64, DIM), world.embeddings(REFERENCE))
    domain = baseline.domain
    components, cells = domain.components.shape[1], len(domain.centroids)
    print(f"{components} components, {cells} cells, batches of {arguments.batch}")
    many = arguments.known
    cases = [
        Case(f"{known:>9,} clients, {held}, {'with groups' if groups else 'alone'}", known, capacity, groups)
        for known, held, capacity in (
            (1000, "held", 2000),
            (many, "bounded", many // 10),
            (many, "held", 2 * many),
        )
        for groups in ((), DEFAULT_GROUPS)
    ]
    for case in cases:
        case.build(baseline)
    gc.freeze()  # or the collector walks over this script's million names, and who is slow is chance
    bare: dict[str, list[tuple[float, float]]] = {"x @ w": [], "FAISS": []}
    projection = np.concatenate([domain.components, domain.centroids.T], axis=1)
    for turn in range(arguments.batches):
        embeddings = world.embeddings(arguments.batch, arguments.foreign)
        fingerprints = world.rng.integers(1, 2**63, size=arguments.batch).astype(np.uint64)
        margins = world.rng.random(arguments.batch, np.float32)
        draw = world.rng.integers(many * 1000, size=arguments.batch)
        single = embeddings.astype(np.float32)
        bare["x @ w"].append(timed(lambda x=embeddings: product(x.astype(np.float64), projection)))
        bare["FAISS"].append(timed(lambda x=single: domain.index.search(x, domain.neighbours)))
        for case in cases[turn % len(cases) :] + cases[: turn % len(cases)]:  # the first finds cold caches
            case.observe(embeddings, fingerprints, margins, 1_700_000_000_000 + turn * 60_000, draw)

    for name, pairs in bare.items():
        wall, cpu = np.median(np.array(pairs), axis=0) / arguments.batch * 1e6
        print(f"bare {name}: {wall:.1f} µs a query, {cpu:.1f} µs of CPU")
    print(f"{'case':<44}{'queries/s':>10}{'µs':>7}{'CPU µs':>8}{'rate':>7}{'loaded':>9}{'MB':>7}")
    for i, case in enumerate(cases):
        ratio = np.median(cases[i % 2].seconds) / np.median(case.seconds)
        wall, cpu = (np.median(part) / arguments.batch * 1e6 for part in (case.seconds, case.cpu))
        print(
            f"{case.name:<44}{1e6 / wall:>10,.0f}{wall:>7.1f}{cpu:>8.1f}{ratio:>6.0%}"
            f"{case.loaded / arguments.batches / arguments.batch:>8.0%} {case.megabytes:>6.0f}"
        )
    print(f"peak memory of all cases together: {peak_megabytes():,.0f} MB")


if __name__ == "__main__":
    main()
