"""Extraction progress as people and scripts see it."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import storage.baselines
from console.app import app
from console.findings import explain_progress
from console.output import progress_json
from detector.coverage_figures import CoverageFigures
from detector.progress import Exam, Progress
from detector.subjects import CLIENT, SubjectKey
from storage.database import Database
from storage.progress import SubjectProgress
from tests.integration.world import World, draft, write_log
from tests.streams.test_progress import answer, answered

WORLD = World()
KEY = SubjectKey(CLIENT, "thief")


def test_a_sentence_that_needs_no_training() -> None:
    progress = Progress(200, 180, 3, 0.612, 0.571, 0.651, 0.343)
    measured = SubjectProgress(KEY, 200, progress, CoverageFigures(0.25, 0.1, 0.2))
    assert explain_progress(measured) == (
        "With what it had been answered by query 200, it could answer as your model does in 61% (57% to 65%) "
        "of cases; a thief who trains from scratch in 34%. Learned from 180 logged answers. 3 answers are of "
        "classes that the baseline has not seen. It has visited 25% of the domain."
    )
    unknown = SubjectProgress(KEY, 64, None, CoverageFigures(None, 1.0, None))
    assert explain_progress(unknown).endswith("is unknown: the baseline holds no answers of the model.")
    assert progress_json(None) is None
    assert progress_json(unknown) == {
        "queries": 64,
        "coverage": {"visited": None, "unseen": 1.0, "prdc": None},
    }


def test_in_every_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/banken.db"
    held = WORLD.honest(300, seed=77).astype(np.float16)
    exam = Exam.choose(held, [(one.label, one.scores) for one in map(answer, held.astype(np.float32))])
    with closing(Database.open(url)) as database, database.transaction() as connection:
        storage.baselines.add(connection, draft(WORLD.baseline().with_exam(exam)))
    log = write_log(tmp_path / "log.jsonl", [answered(event) for event in WORLD.traffic(500)])

    def run(*arguments: str) -> str:
        found = CliRunner().invoke(app, [*arguments, "--db", url])
        assert found.exit_code == 0, found.output
        return found.stdout

    run("watch", "--source", str(log), "--once")
    findings = [json.loads(line) for line in run("findings", "list", "--json").splitlines()]
    assert findings
    for finding in findings:
        progress = finding["progress"]
        assert 0 <= progress["low"] <= progress["strong"] <= progress["high"] <= 1
        assert progress["weak"] <= progress["strong"]
        assert progress["answered"] <= progress["queries"] <= finding["queries"]
    assert "it could answer as your model does in" in run("findings", "show", findings[0]["uid"])
    subjects = [
        json.loads(line)
        for line in run("subjects", "list", "garments", "--order", "progress", "--json").splitlines()
    ]
    ranked = [one["progress"]["strong"] for one in subjects if one["progress"] is not None]
    assert len(ranked) >= len(findings)
    assert ranked == sorted(ranked, reverse=True)
    assert all(one["progress"] is None for one in subjects[len(ranked) :])
