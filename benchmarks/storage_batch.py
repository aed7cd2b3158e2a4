"""What it costs to store one batch in SQLite, and how fast subjects are saved and loaded.

A batch is 512 queries of 512 dimensions, 1,500 subjects drawn uniformly from all that are known (the worst
case: every one lies on another page) and 1,024 contributions to groups, in one transaction. Processor time,
so that neither the disk nor other work on the machine is counted:

    python -m benchmarks.storage_batch
"""

from __future__ import annotations

import random
import statistics
import tempfile
from pathlib import Path
from time import process_time

from detector.subjects import STATE, SubjectKey, SubjectRow
from storage import members, queries, subjects
from storage.database import Database
from storage.records import Member, QueryRecord

BATCHES, EVENTS, TOUCHED, CHUNK = 40, 512, 1_500, 50_000
NETWORKS = [SubjectKey("network", f"10.{number}.0.0/16") for number in range(200)]
FLEET = SubjectKey("fleet", "")


def row(rng: random.Random, key: SubjectKey) -> SubjectRow:
    evidence = 5.0 if rng.random() < 0.02 else rng.random()
    return SubjectRow(key, 10, evidence, 3 * rng.random(), 0, 1, 2, rng.randbytes(STATE.itemsize))


def batch(rng: random.Random, number: int) -> list[QueryRecord]:
    return [
        QueryRecord(
            endpoint="garments",
            client=f"key-{rng.randrange(5_000):08x}",
            event_id=f"{rng.getrandbits(128):032x}",
            event_time=number,
            source="file:///var/log/queries.jsonl",
            partition="0",
            offset=number * EVENTS + event,
            item=0,
            content=rng.randbytes(16),
            fingerprint=rng.getrandbits(64),
            embedding=rng.randbytes(1_024),
            encoder="ab" * 32,
            score=rng.random(),
            p_value=rng.random(),
            cell=3,
            hits=0,
            duplicate=False,
            novel=number * EVENTS + event if event % 10 == 0 else None,
            groups=(rng.choice(NETWORKS), FLEET),
            response='{"label":"coat"}',
            attributes='{"org":"acme"}',
        )
        for event in range(EVENTS)
    ]


def report(name: str, values: list[float], unit: str) -> None:
    print(f"{name:24}{statistics.median(values):10,.1f} {unit}  ({min(values):,.1f} to {max(values):,.1f})")


def main() -> None:
    rng = random.Random(7)
    keys = [SubjectKey("client", f"key-{number:08x}") for number in range(4 * CHUNK)]
    rng.shuffle(keys)
    with tempfile.TemporaryDirectory() as folder:
        database = Database.open(f"sqlite:///{Path(folder)}/banken.db")
        speeds: dict[str, list[float]] = {"new subjects saved": [], "known subjects saved": []}
        for known in speeds.values():
            for start in range(0, len(keys), CHUNK):
                rows = [row(rng, key) for key in keys[start : start + CHUNK]]
                began = process_time()
                with database.transaction() as connection:
                    subjects.save(connection, "garments", rows)
                known.append(CHUNK / (process_time() - began))
        loads = []
        for _ in range(4):
            wanted = rng.sample(keys, CHUNK)
            began = process_time()
            with database.snapshot() as connection:
                subjects.load(connection, "garments", wanted)
            loads.append(CHUNK / (process_time() - began))
        batches = []
        for number in range(BATCHES):
            records = batch(rng, number)
            rows = [row(rng, key) for key in rng.sample(keys, TOUCHED)]
            parts = [Member(key, one.client, 1, 0, 5, 6) for one in records for key in one.groups]
            began = process_time()
            with database.transaction() as connection:
                queries.add(connection, records)
                subjects.save(connection, "garments", rows)
                members.add(connection, "garments", parts)
            batches.append(1e3 * (process_time() - began))
        database.close()
    for name, values in speeds.items():
        report(name, values, "rows/s")
    report("subjects loaded", loads, "rows/s")
    report("a batch", batches, "ms")


if __name__ == "__main__":
    main()
