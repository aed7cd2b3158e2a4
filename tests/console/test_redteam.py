"""`banken redteam`: what it lists, how it refuses, what it keeps, and what comes out."""

from __future__ import annotations

import builtins
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from console.app import app
from console.demo.command import DATA as DEMO
from redteam.benchmark.conduct import Benchmark, domain_of
from redteam.benchmark.runs import read_runs
from redteam.benchmark.shipped import DOMAIN, DRAWINGS, unpack
from redteam.errors import RedteamError, SourceDataError
from tests.redteam.counting import ATTACK, Counting, tasks_of


def banken(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["redteam", *arguments], env={"BANKEN_DATA": ""})


def write(path: Path, *splits: str) -> None:
    pq.write_table(
        pa.table({"image": [b""] * len(splits), "label": ["a"] * len(splits), "split": splits}), path
    )


def prepared(out: Path, count: int = 3) -> Benchmark:
    return Benchmark("cifar10", tasks_of(count), out, Counting, ("a fact",), guards=False)


def test_the_zoo_lists_everyone_with_a_line_each() -> None:
    listed = banken("zoo")
    assert listed.exit_code == 0
    for name in ("knockoff ← POOL", "jbda", "i.i.d.", "health check", "prada", "mmd-500"):
        assert name in listed.output


def test_help_teaches() -> None:
    shown = banken("benchmark", "--help").output
    for word in ("--quick", "--core", "--full", "--data", "BANKEN_DATA", "Ctrl-C keeps the runs"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--quick", "--core"), "give one of them"),
        (("--core",), "--core needs --data DIR"),
    ],
)
def test_wrong_usage_is_explained(arguments: tuple[str, ...], said: str) -> None:
    result = banken("benchmark", *arguments)
    assert result.exit_code == 2
    assert said in result.output


def test_the_domain_is_named_guessed_or_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "pool.parquet", "pool")
    with pytest.raises(SourceDataError, match=r"name the domain with --domain.*are none"):
        domain_of(tmp_path, None)
    write(tmp_path / "birds.parquet", "train", "test")
    assert domain_of(tmp_path, None) == "birds"
    write(tmp_path / "ships.parquet", "train", "test")
    with pytest.raises(SourceDataError, match="birds, ships"):
        domain_of(tmp_path, None)
    write(tmp_path / "cifar10.parquet", "train", "test")
    assert domain_of(tmp_path, None) == "cifar10"
    assert domain_of(tmp_path, "ships") == "ships"


def test_a_wrong_data_directory_or_domain_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceDataError, match="no data directory"):
        domain_of(tmp_path / "nowhere", None)
    write(tmp_path / "pool.parquet", "pool")
    with pytest.raises(SourceDataError, match=r"no domain 'cats'.*cats\.parquet"):
        domain_of(tmp_path, "cats")
    with pytest.raises(SourceDataError, match="has the splits pool, a domain needs train and test"):
        domain_of(tmp_path, "pool")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceDataError, match=r"torn\.parquet cannot be read"):
        domain_of(tmp_path, None)


def test_too_few_pictures_are_a_fault_of_the_data(tmp_path: Path) -> None:
    write(tmp_path / "cats.parquet", "train", "test")
    write(tmp_path / "pool.parquet", "pool")
    result = banken("benchmark", "--quick", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert isinstance(result.exception, RedteamError)
    assert "cats.parquet" in str(result.exception)


def test_the_demo_unpacks_into_a_domain_and_a_pool(tmp_path: Path) -> None:
    unpack(DEMO, tmp_path)
    garments, drawings = (pq.read_table(tmp_path / f"{name}.parquet") for name in (DOMAIN, DRAWINGS))
    splits = garments["split"].to_pylist()
    assert splits.count("train") == 2_000
    assert splits.count("test") > 800
    images = garments["image"].to_pylist()
    assert len(set(images)) == len(images), "nothing is in both splits"
    assert set(drawings["split"].to_pylist()) == {"pool"}
    assert not set(drawings["image"].to_pylist()) & set(images)
    with pytest.raises(SourceDataError, match="does not hold the demo's pictures"):
        unpack(tmp_path, tmp_path)


def test_a_benchmark_concludes_with_tables_and_every_run(tmp_path: Path) -> None:
    benchmark = prepared(tmp_path)
    benchmark.run(1, lambda task: None)
    assert benchmark.left() == []
    results = benchmark.conclude()
    assert read_runs([results.runs]) == [ATTACK] * 3
    assert "31 / 31" in results.report.read_text()
    assert results.missed == []


def test_without_matplotlib_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = builtins.__import__

    def without(name: str, *rest: object) -> ModuleType:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return wanted(name, *rest)  # type: ignore[arg-type]

    benchmark = prepared(tmp_path)
    benchmark.run(1, lambda task: None)
    results = benchmark.conclude()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RedteamError, match=r"pip install 'banken\[redteam\]'"):
        benchmark.draw(results.summaries)


def test_interrupted_it_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from console import redteam as console_redteam

    benchmark = prepared(tmp_path)

    def interrupted(self: Benchmark, jobs: int, on_done: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Benchmark, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        console_redteam._run(benchmark, 1)
    assert "The same command goes on from there" in capsys.readouterr().err
