from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import storage.baselines
import storage.findings
import storage.progress
import storage.queries
from detector.baseline import Baseline
from detector.coverage_figures import Neighbourhoods, coverage_of
from detector.findings import Activity, FindingChange, Moment
from detector.groups import CAMPAIGN, FLEET
from detector.progress import Answered, Exam, progress_of
from detector.subjects import CLIENT, SubjectKey
from storage.database import Database
from storage.records import QueryRecord
from streams.events import QueryEvent, Response
from streams.fitting import fit
from streams.formats import named
from streams.pipeline import Feed, Pipeline, Rules
from streams.progress import ProgressMeter
from streams.sources import open_source
from tests.integration.world import World, contents, draft, embeddings_only, write_log
from tests.storage.examples import finding, query

WORLD = World()
CLASSES = ("coat", "hat", "shirt", "sneaker")
THIEF = SubjectKey(CLIENT, "thief")
HONEST = SubjectKey(CLIENT, "honest-0")


def answer(vector: npt.NDArray[np.float32]) -> Response:
    """What the endpoint answers: a linear model of the embedding."""
    logits = 4 * np.random.default_rng(5).standard_normal((4, WORLD.dim)) @ vector
    scores = np.exp(logits) / np.exp(logits).sum()
    return Response(CLASSES[scores.argmax()], dict(zip(CLASSES, scores.round(4).tolist(), strict=True)))


def answered(event: QueryEvent) -> QueryEvent:
    assert event.embedding is not None
    return replace(event, response=answer(event.embedding))


def examined() -> Baseline:
    held = WORLD.honest(300, seed=77)
    answers = [(one.label, one.scores) for one in map(answer, held)]
    return WORLD.baseline().with_exam(Exam.choose(held.astype(np.float16), answers))


def traffic() -> list[QueryEvent]:
    """The usual mix; then one honest client asks much, and half of its queries were answered."""
    events = [answered(event) for event in WORLD.traffic(500)]
    more = [WORLD.query(number) for number in range(150)]
    events += [answered(event) if number % 2 else event for number, event in enumerate(more)]
    return events


def watch(database: Database, baseline: Baseline, events: Sequence[QueryEvent], log: Path, size: int) -> None:
    with database.transaction() as connection:
        storage.baselines.add(connection, draft(baseline))
    write_log(log, events)
    with embeddings_only() as embedder, closing(open_source(str(log), once=True)) as source:
        pipeline = Pipeline(database, embedder, Rules(batch_size=size))
        pipeline.run([Feed(source, named(None))], threading.Event())


def test_the_figures_are_those_of_the_first_queries(database: Database, tmp_path: Path) -> None:
    baseline = examined()
    watch(database, baseline, traffic(), tmp_path / "log.jsonl", 256)
    with database.snapshot() as connection:
        found = storage.progress.load(connection, "garments", [THIEF, HONEST, SubjectKey(CLIENT, "honest-1")])
        (record,) = [one for one in storage.findings.page(connection) if one.finding.subject == THIEF]
        change = storage.findings.history(connection, record.finding.uid)[-1].finding
        mine = [one.query for one in storage.queries.page(connection, "garments", "honest-0", limit=500)]
    assert found.keys() == {THIEF, HONEST}
    assert found[THIEF].queries == max(64, change.queries)
    assert found[HONEST].queries == 128

    first = mine[::-1][:128]
    vectors = np.stack([np.frombuffer(query.embedding, "<f2") for query in first])
    assert baseline.exam is not None
    pairs = Answered.of(
        baseline.exam,
        vectors,
        [
            (None, {}) if query.response is None else ((one := answer_of(query.response)).label, one.scores)
            for query in first
        ],
    )
    assert 50 < len(pairs) < 100
    assert found[HONEST].progress == progress_of(baseline.exam, pairs, 128)
    inside = np.array([query.cell for query in first if query.p_value > 0.05])
    reference = Neighbourhoods.of(baseline.held_out)
    assert found[HONEST].coverage == coverage_of(baseline.mass, reference, inside, vectors)
    progress = found[HONEST].progress
    assert progress is not None
    assert progress.strong > 0.6


def answer_of(text: str) -> Response:
    return Response(**json.loads(text))


def test_groups_are_measured_with_their_findings(database: Database, tmp_path: Path) -> None:
    watch(database, examined(), traffic(), tmp_path / "log.jsonl", 100)
    with database.snapshot() as connection:
        findings = [one.finding for one in storage.findings.page(connection, limit=500)]
        found = storage.progress.load(connection, "garments", [one.subject for one in findings])
    assert {one.subject for one in findings} == found.keys()
    kinds = {key.kind for key in found}
    assert "network" in kinds
    for key, measured in found.items():
        assert measured.progress is not None
        if key.kind not in (CLIENT, FLEET):
            assert measured.progress.answered == measured.queries


@pytest.mark.parametrize("with_exam", [True, False])
def test_the_same_rows_whatever_the_batches(tmp_path: Path, with_exam: bool) -> None:
    rows = []
    for size in (13, 650):
        database = Database.open(f"sqlite:///{tmp_path}/{size}.db")
        baseline = examined() if with_exam else WORLD.baseline()
        watch(database, baseline, traffic(), tmp_path / "log.jsonl", size)
        rows.append(contents(database)["progress"])
        database.close()
    assert rows[0] == rows[1]
    assert rows[0]
    assert all((row[4] is not None) == with_exam for row in rows[0])


@pytest.mark.parametrize("size", [1, 2])
def test_a_campaign_that_was_merged_has_no_figures(tmp_path: Path, size: int) -> None:
    """Found by one query and merged by a later one, it leaves nothing, in one batch as in two."""
    campaign = SubjectKey(CAMPAIGN, "honest-0")
    steps = [
        FindingChange(activity, finding(subject=campaign), Moment(0, at, f"q-{number}"))
        for activity, at, number in ((Activity.CREATE, 20, 40), (Activity.CLOSE, 20, 90))
    ]
    with closing(Database.open(f"sqlite:///{tmp_path}/one.db")) as database:
        meter, seen = ProgressMeter(WORLD.baseline(), ()), []
        with database.transaction() as connection:
            storage.queries.add(connection, [stored(number) for number in range(100)])
            for first in range(0, 2, size):
                part = steps[first : first + size]
                accounts = {campaign.value: () if part[-1].activity is Activity.CLOSE else ("honest-0",)}
                meter.measure(connection, [], [], part, accounts)
                seen.append(campaign in storage.progress.load(connection, "garments", [campaign]))
    assert seen == ([True, False] if size == 1 else [False])


def stored(number: int) -> QueryRecord:
    embedding = WORLD.query(number, client="honest-0").embedding
    assert embedding is not None
    vector = embedding.astype("<f2").tobytes()
    return replace(query(number, client="honest-0"), embedding=vector, encoder=WORLD.weights)


def log_of(vectors: npt.NDArray[np.float32], path: Path, *, responses: bool) -> str:
    events = [
        replace(
            WORLD.query(number, client=f"trusted-{number % 30}"),
            id=f"{path.stem}-{number}",
            embedding=np.round(vector, 4),
            response=answer(vector) if responses else None,
        )
        for number, vector in enumerate(vectors)
    ]
    return str(write_log(path, events))


def test_where_the_exam_comes_from(tmp_path: Path) -> None:
    reference, history = WORLD.honest(600, seed=20), WORLD.honest(400, seed=21)
    plain = log_of(reference, tmp_path / "plain.jsonl", responses=False)
    full = log_of(reference, tmp_path / "full.jsonl", responses=True)
    trusted = log_of(history, tmp_path / "trusted.jsonl", responses=True)
    silent = log_of(history, tmp_path / "silent.jsonl", responses=False)
    with embeddings_only() as embedder:
        of_reference = fit("garments", full, embedder, trusted=trusted)
        of_history = fit("garments", plain, embedder, trusted=trusted)
        of_neither = fit("garments", plain, embedder, trusted=silent)
    for fitted, count in ((of_reference, 600), (of_history, 400)):
        exam = fitted.baseline.exam
        assert exam is not None
        assert fitted.no_exam is None
        assert len(exam) == count
        assert exam.classes == CLASSES
        copy = Baseline.from_bytes(fitted.baseline.to_bytes(), content_hash=fitted.baseline.content_hash)
        assert copy.exam is not None
        assert copy.exam.classes == exam.classes
    assert of_neither.baseline.exam is None
    assert of_neither.no_exam is not None
    assert of_neither.no_exam.startswith("the reference has 0 distinct pictures")
    assert "; the trusted history has 0 distinct pictures" in of_neither.no_exam


def test_a_baseline_of_fewer_cells_takes_over(database: Database, tmp_path: Path) -> None:
    """What was asked before is measured in the cells of the baseline in force."""
    events = [WORLD.query(number) for number in range(400)]
    large = WORLD.baseline()
    small = Baseline.fit("garments", large.encoder, WORLD.honest(400, seed=3).astype(np.float16))
    assert len(small.mass) < len(large.mass)
    watch(database, large, events[:200], tmp_path / "first.jsonl", 64)
    watch(database, small, events[200:], tmp_path / "second.jsonl", 64)
    with database.snapshot() as connection:
        found = storage.progress.load(connection, "garments", [HONEST])[HONEST]
    assert found.queries == 256
    assert found.coverage.visited is not None
    assert 0.0 < found.coverage.visited <= 1.0
