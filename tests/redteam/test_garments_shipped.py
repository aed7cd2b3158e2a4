"""The demo files that ship are what their page says."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from redteam.garments import ENDPOINT, FILES, native_line, pixel_auroc, write_native
from redteam.garments_clients import CAMPAIGN_NETWORK, OFFICE_NETWORK
from redteam.garments_files import LOG_SCHEMA, REFERENCE_SCHEMA, TRUTH_SCHEMA
from redteam.garments_images import LABELS, SIDE, decode_png

DEMO = Path(__file__).parents[2] / "console" / "demo"
MOST_BYTES = 8_000_000


def rows(name):
    return pq.read_table(DEMO / f"{name}.parquet").to_pylist()


@pytest.fixture(scope="module")
def log():
    return rows("log")


@pytest.fixture(scope="module")
def trusted():
    return rows("trusted")


@pytest.fixture(scope="module")
def truth():
    return {row["client"]: row for row in rows("truth")}


def digests(table):
    return Counter(hashlib.sha256(row["image"]).hexdigest() for row in table)


def test_files_are_small_and_have_their_hashes_on_the_page():
    page = (DEMO / "DATA.md").read_text(encoding="utf-8")
    assert sum((DEMO / name).stat().st_size for name in (*FILES, "DATA.md")) <= MOST_BYTES
    for name in FILES:
        assert hashlib.sha256((DEMO / name).read_bytes()).hexdigest() in page


def test_schemas_and_sizes(log, trusted):
    assert pq.read_schema(DEMO / "reference.parquet").equals(REFERENCE_SCHEMA)
    assert pq.read_schema(DEMO / "trusted.parquet").equals(LOG_SCHEMA)
    assert pq.read_schema(DEMO / "log.parquet").equals(LOG_SCHEMA)
    assert pq.read_schema(DEMO / "truth.parquet").equals(TRUTH_SCHEMA)
    assert Counter(row["label"] for row in rows("reference")) == dict.fromkeys(LABELS, 200)
    assert 3_600 <= len(log) <= 4_400
    assert 1_400 <= len(trusted) <= 1_900
    assert len({row["client"] for row in trusted}) == 40


@pytest.mark.parametrize("name", ["log", "trusted"])
def test_rows_are_well_formed_and_in_order_of_time(name):
    table = rows(name)
    assert len({row["id"] for row in table}) == len(table)
    moments = [datetime.fromisoformat(row["time"]) for row in table]
    assert moments == sorted(moments)
    assert all(moment.utcoffset().total_seconds() == 0 for moment in moments)
    assert (moments[-1] - moments[0]).days in (9, 10)
    for row in table:
        scores = json.loads(row["scores"])
        assert row["endpoint"] == ENDPOINT
        assert row["label"] == max(scores, key=scores.get)
        assert set(scores) <= set(LABELS)
        assert 0 < sum(scores.values()) <= 1.001
        assert row["ip"]
        assert row["user_agent"]
        assert decode_png(row["image"]).shape == (SIDE, SIDE)


def test_no_picture_serves_two_files(log, trusted):
    asked, before, normal = digests(log), digests(trusted), digests(rows("reference"))
    assert not asked.keys() & before.keys()
    assert not asked.keys() & normal.keys()
    assert not before.keys() & normal.keys()
    assert set(normal.values()) == {1}


def test_only_health_checks_repeat_a_picture(log, truth):
    repeated = {digest for digest, number in digests(log).items() if number > 1}
    askers = {row["client"] for row in log if hashlib.sha256(row["image"]).hexdigest() in repeated}
    checks = {client for client, row in truth.items() if row["role"] == "health check"}
    assert askers == checks
    assert len(repeated) == len(checks)


def test_truth_covers_every_client(log, trusted, truth):
    asked = Counter(row["client"] for row in log)
    assert {client: row["queries"] for client, row in truth.items()} == asked
    assert not truth.keys() & {row["client"] for row in trusted}
    assert 30 <= sum(row["honest"] for row in truth.values()) <= 60
    owner = {row["id"]: row["client"] for row in log}
    assert all(owner[query] == client for client, row in truth.items() for query in row["foreign"])


def test_the_cast_of_thieves(log, truth):
    thieves = [row for row in truth.values() if not row["honest"]]
    by_role = {row["role"]: row for row in thieves}
    assert Counter(row["role"] for row in thieves) == {
        "knockoff thief": 1,
        "half-camouflaged thief": 1,
        "stolen key": 1,
        "campaign account": 40,
    }
    assert len(by_role["knockoff thief"]["foreign"]) == by_role["knockoff thief"]["queries"] == 400
    assert len(by_role["half-camouflaged thief"]["foreign"]) == 200
    stolen = by_role["stolen key"]
    own = [row["id"] for row in log if row["client"] == stolen["client"]]
    assert stolen["turned_after"] >= 400
    assert own[stolen["turned_after"] :] == stolen["foreign"]
    campaign = [row for row in thieves if row["role"] == "campaign account"]
    assert all(6 <= row["queries"] <= 10 for row in campaign)
    assert len({row["org"] for row in campaign} - {None}) == 20


def test_networks_hold_either_honest_clients_or_thieves(truth):
    honest = [row["network"] for row in truth.values() if row["honest"]]
    thieves = [row["network"] for row in truth.values() if not row["honest"]]
    assert not set(honest) & set(thieves)
    assert Counter(honest)[f"{OFFICE_NETWORK}.0/24"] == 6
    assert Counter(thieves)[f"{CAMPAIGN_NETWORK}.0/24"] == 40


def test_the_new_integrators_junk_falls_on_its_first_day(log, truth):
    (newcomer,) = (row for row in truth.values() if row["role"] == "new integrator")
    own = [row for row in log if row["client"] == newcomer["client"]]
    assert [row["id"] for row in own[:18]] == newcomer["foreign"]
    assert own[0]["time"][:10] == own[17]["time"][:10] < own[18]["time"][:10]


def test_pixel_statistics_do_not_give_the_drawings_away():
    auroc = pixel_auroc(DEMO)
    for found in (
        auroc.mean,
        auroc.mean_distance,
        auroc.deviation,
        auroc.deviation_distance,
        auroc.foreground,
    ):
        assert 0.47 <= found <= 0.53
    assert auroc.drawings > 1_000
    assert f"| {auroc.mean:.3f} |" in (DEMO / "DATA.md").read_text(encoding="utf-8")


def test_native_lines_keep_the_picture_and_the_answer(log, tmp_path):
    target = tmp_path / "log.jsonl"
    assert write_native(DEMO / "log.parquet", target) == len(log)
    lines = target.read_text(encoding="utf-8").splitlines()
    assert lines[0] == native_line(log[0])
    for row, line in zip(log, lines, strict=True):
        record = json.loads(line)
        assert base64.b64decode(record["image"]["b64"], validate=True) == row["image"]
        assert record["response"]["label"] == row["label"]
        assert (record["id"], record["time"], record["client"]) == (row["id"], row["time"], row["client"])
        assert record["attributes"].get("org") == row["org"]
        assert None not in record["attributes"].values()
