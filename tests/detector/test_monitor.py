"""The monitor as its owner drives it: batches, storage, restarts, and who is found."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from detector.errors import DetectorError
from detector.evidence import EvidenceRule
from detector.findings import Activity, FindingState
from detector.groups import FLEET, NETWORK
from detector.monitor import Batch
from detector.perturbation import RETAKES
from detector.rates import DEFAULT_RATES
from detector.signals import CHANNELS, FIRST_CHANNEL, SIGNALS, Signal
from detector.subjects import CLIENT, STATE, SubjectKey
from tests.detector.world import (
    DIM,
    HOUR,
    START,
    Query,
    Watch,
    baseline,
    batch,
    foreign,
    native,
    pictures,
    queries,
)


def busy_log(n: int = 400) -> list[Query]:
    """Honest clients, thieves and a health check, over some hours, with repeats and late events."""
    rng = np.random.default_rng(3)
    home, away, prints = native(n, seed=3), foreign(n, seed=3), pictures(n, seed=3)
    log: list[Query] = []
    for i in range(n):
        client = int(rng.integers(8))
        thief = client >= 6
        attributes = {"org": f"o{client % 3}", "ip": f"10.0.{client % 5}.{client}"}
        if client == 4:
            attributes = {"ip": "unknown"}
        late = int(rng.integers(-2, 1)) * HOUR // 2 if i % 7 == 0 else 0
        time = START + i * 60_000 + late
        embedding = away[i] if thief or i % 29 == 0 else home[i]
        fingerprint = int(prints[i])
        if log and rng.random() < 0.15:  # repeats of anyone's earlier query, within a batch or before it
            other = log[int(rng.integers(max(0, len(log) - 300), len(log)))]
            embedding, fingerprint = other.embedding, other.fingerprint
            client = int(other.client[1:]) if rng.random() < 0.6 else client
            if rng.random() < 0.4:  # and some of them after a small step
                embedding, fingerprint = home[i], fingerprint ^ (1 << int(rng.integers(60)))
        margin = float(np.float32(rng.beta(1, 4))) if i % 3 else float("nan")
        log.append(Query(f"c{client}", embedding, fingerprint, time, attributes, margin))
    return log


@pytest.fixture(scope="module")
def whole() -> Watch:
    return Watch(half=32).run(busy_log())


def test_the_busy_log_is_busy(whole: Watch) -> None:
    assert whole.states(CLIENT) >= {FindingState.SUSPECTED, FindingState.ALERTED}
    assert len(whole.pool) > 3 * 32
    assert sum(int(seen.duplicate.sum()) for seen in whole.seen) > 4
    assert len({row.first_seen for row in whole.stored.values()}) > 5
    hits = np.concatenate([seen.hits for seen in whole.seen])
    assert (hits.sum(axis=0) > 2).all()
    assert (hits.sum(axis=0) < 300).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_cut_into_batches_changes_nothing(whole: Watch, seed: int) -> None:
    log = busy_log()
    rng = np.random.default_rng(seed)
    cuts = range(1, len(log)) if seed == 0 else rng.integers(1, len(log), size=4 * 2**seed).tolist()
    assert Watch(half=32).run(log, cuts).record() == whole.record()


@pytest.mark.parametrize("seed", range(3))
def test_eviction_and_restarts_change_nothing(whole: Watch, seed: int) -> None:
    log = busy_log()
    rng = np.random.default_rng(seed)
    watch = Watch(capacity=3, half=32)
    edges = [0, *sorted(set(rng.integers(1, len(log), size=60).tolist())), len(log)]
    for first, last in pairwise(edges):
        watch.observe(log[first:last])
        if rng.random() < 0.3:
            watch.restart()
    assert watch.record() == whole.record()


def test_memory_keeps_no_more_subjects_than_its_capacity() -> None:
    watch = Watch(capacity=50, kinds=())
    for i in range(40):
        watch.observe(
            [query for k in range(20) for query in queries(f"c{i}-{k}", native(1, seed=i * 20 + k))]
        )
        assert len(watch.monitor._table) <= 50
    assert len(watch.stored) == 800


def test_a_subject_is_seen_from_its_first_to_its_latest_time() -> None:
    watch = Watch()
    home = native(3, seed=5)
    watch.observe([Query("a", home[0], time=START + 5), Query("a", home[1], time=START - 5)])
    watch.observe([Query("a", home[2], time=START + 1)])
    row = watch.monitor.subject(SubjectKey(CLIENT, "a"))
    assert row is not None
    assert (row.first_seen, row.last_seen, row.queries) == (START - 5, START + 5, 3)
    assert watch.monitor.subject(SubjectKey(CLIENT, "b")) is None


def test_an_empty_batch_is_nothing() -> None:
    seen = Watch().observe([])
    assert seen.hits.shape == (0, len(CHANNELS))
    assert seen.changes == ()


@pytest.mark.parametrize(
    ("embeddings", "fault"),
    [
        (np.zeros((1, DIM + 1), np.float16), "shape"),
        (np.zeros(DIM, np.float16), "shape"),
        (np.full((1, DIM), np.nan, np.float16), "NaN"),
        (np.full((1, DIM), -np.inf, np.float16), "infinity"),
    ],
)
def test_bad_embeddings_are_refused_before_anything_moves(embeddings: np.ndarray, fault: str) -> None:
    watch = Watch()
    bad: Batch = replace(batch([Query("a", native(1, seed=1)[0])]), embeddings=embeddings)
    with pytest.raises(DetectorError, match=fault):
        watch.monitor.observe(bad)
    assert watch.monitor.changed() == []


def test_a_thief_is_suspected_then_alerted_and_honest_clients_are_neither() -> None:
    log = queries("thief", foreign(60, seed=1)) + [
        query for k in range(20) for query in queries(f"honest-{k}", native(100, seed=100 + k), seed=k)
    ]
    watch = Watch(kinds=()).run(log, range(50, len(log), 50))
    assert {one.finding.subject.value for one in watch.changes} == {"thief"}
    first, *_, last = [one.finding for one in watch.changes]
    assert (first.state, first.alerted_at) == (FindingState.SUSPECTED, None)
    assert first.suspected_at.queries <= 6
    assert last.state is FindingState.ALERTED
    assert last.alerted_at is not None
    assert 25 <= last.alerted_at.queries <= 40
    assert last.alerted_at.event_id == f"q-{last.alerted_at.queries - 1}"
    assert last.uid == first.uid
    assert last.suspected_at == first.suspected_at


def test_a_health_check_that_repeats_one_odd_picture_is_one_hit() -> None:
    odd = foreign(1, seed=4).repeat(400, axis=0)
    log = [
        Query("probe", vector, 12345, START + i * 1000, {"ip": "10.1.1.1"}) for i, vector in enumerate(odd)
    ]
    watch = Watch().run(log, range(7, 400, 7))
    assert sum(int(seen.hits[:, 0].sum()) for seen in watch.seen) == 1
    assert watch.changes == []
    assert len(watch.pool) == 1


def test_a_health_check_is_one_hit_also_where_thousands_of_foreign_queries_lie_between() -> None:
    crowd, prints = foreign(3000, seed=5), pictures(3000, seed=5)
    probe = foreign(1, seed=6)[0]
    log = []
    for i in range(3000):
        if i % 100 == 0:
            log.append(Query("probe", probe, 1, START + i * 1000, {"ip": "10.1.1.1"}))
        log.append(Query(f"c{i}", crowd[i], int(prints[i]), START + i * 1000))
    watch = Watch(half=32).run(log, range(500, len(log), 500))
    posts = [one for one in log if one.client == "probe"]
    assert len(posts) == 30
    row = watch.monitor.subject(SubjectKey(CLIENT, "probe"))
    assert row is not None
    assert np.frombuffer(row.state, STATE)[0]["hits"][0] == 1
    assert all(change.finding.subject.kind == "fleet" for change in watch.changes)


def test_a_stolen_key_that_turns_after_20_000_honest_queries_is_found_soon() -> None:
    log = queries("key", native(20_000, seed=8), every=10)
    watch = Watch(kinds=()).run(log, range(1000, 20_000, 1000))
    assert watch.states(CLIENT) <= {FindingState.SUSPECTED, FindingState.CLOSED}
    before = len(watch.changes)
    watch.run(queries("key", foreign(80, seed=9), seed=9, start=START + HOUR))
    found = [one.finding for one in watch.changes[before:]]
    assert found[0].suspected_at.queries <= 20_000 + 25
    alerted = next(one.alerted_at for one in found if one.alerted_at)
    assert alerted.queries <= 20_000 + 60


def test_a_finding_closes_when_suspicion_lapses_and_opens_again_under_another_uid() -> None:
    watch = Watch(kinds=())
    watch.run(queries("a", foreign(60, seed=1), seed=1))
    watch.run(queries("a", native(8000, seed=2), seed=2), range(500, 8000, 500))
    watch.run(queries("a", foreign(60, seed=3), seed=3))
    steps = [(one.activity, one.finding.sequence) for one in watch.changes]
    assert steps[0] == (Activity.CREATE, 1)
    assert steps.count((Activity.CLOSE, 1)) == 1
    assert (Activity.CREATE, 2) in steps
    closed = next(one.finding for one in watch.changes if one.activity is Activity.CLOSE)
    assert closed.state is FindingState.CLOSED
    assert closed.closed_at is not None
    assert closed.alerted_at is not None
    assert closed.evidence < 1.0
    assert len({one.finding.uid for one in watch.changes}) == len({seq for _, seq in steps})


def test_a_campaign_of_many_small_clients_in_one_network_is_alerted() -> None:
    away = foreign(40 * 4, seed=11)
    order = np.random.default_rng(0).permutation(160)
    log = [
        Query(f"k{i % 40}", away[i], int(i + 1) << 20, START + n * 5000, {"ip": f"203.0.113.{i % 40}"})
        for n, i in enumerate(order.tolist())
    ]
    watch = Watch(kinds=(NETWORK,)).run(log, range(16, 160, 16))
    assert FindingState.ALERTED not in watch.states(CLIENT)
    assert FindingState.ALERTED in watch.states(NETWORK)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_a_lone_thief_does_not_make_his_groups_suspected(share: float) -> None:
    n = 600
    choice = np.random.default_rng(1).random(n) < share
    vectors = np.where(choice[:, None], foreign(n, seed=12), native(n, seed=12))
    log = queries("thief", vectors, seed=12, org="acme", ip="203.0.113.7")
    honest = [
        query
        for k in range(6)
        for query in queries(f"h{k}", native(100, seed=60 + k), seed=k, org="acme", ip=f"203.0.113.{20 + k}")
    ]
    watch = Watch().run(honest + log, range(50, len(log) + 600, 50))
    assert FindingState.ALERTED in watch.states(CLIENT)
    assert {one.finding.subject.kind for one in watch.changes} == {CLIENT}
    fleet = watch.monitor.subject(SubjectKey(FLEET, "all"))
    assert fleet is not None
    assert fleet.exposure > 25.0  # what he took is still exposure


def state_of(watch: Watch, client: str) -> np.void:
    row = watch.monitor.subject(SubjectKey(CLIENT, client))
    assert row is not None
    return np.frombuffer(row.state, STATE)[0]


def test_a_finding_says_what_each_signal_says(whole: Watch) -> None:
    weights = EvidenceRule().weights
    of_signal = {
        signal: sum(
            weight for weight, channel in zip(weights, CHANNELS, strict=True) if channel.signal is signal
        )
        for signal in SIGNALS
    }
    for change in whole.changes:
        finding = change.finding
        if finding.subject.kind == CLIENT:
            assert tuple(one.signal for one in finding.signals) == SIGNALS
            total = sum(of_signal[one.signal] * one.evidence for one in finding.signals)
            assert total == pytest.approx(finding.evidence, rel=1e-9)
        else:
            (only,) = finding.signals
            assert only.signal is Signal.OUT_OF_DOMAIN
            assert only.evidence == pytest.approx(finding.evidence, rel=1e-9)
        assert max(one.exposure for one in finding.signals) == finding.exposure
    last = {change.finding.subject: change for change in whole.changes}[SubjectKey(CLIENT, "c7")]
    (asked,) = (seen.hits for seen in whole.seen)
    upto = int(last.at.event_id[2:]) + 1
    mine = np.array([query.client == "c7" for query in busy_log()[:upto]])
    assert [one.hits for one in last.finding.signals] == asked[:upto][mine].sum(axis=0)[
        list(FIRST_CHANNEL)
    ].tolist()


def test_a_client_who_perturbs_pictures_of_the_domain_is_found_by_that() -> None:
    seeds, prints = native(150, seed=20), pictures(150, seed=20)
    near = prints ^ np.uint64(0b10110)
    log = [
        Query("thief", seeds[(i + step) % 150], int(looks[i]), START + i * 1000)
        for first in range(0, 150, 50)
        for step, looks in enumerate((prints, near))  # fifty seeds, and then a step from each
        for i in range(first, first + 50)
    ]
    watch = Watch(kinds=()).run(log, range(16, 300, 16))
    assert FindingState.ALERTED in watch.states(CLIENT)
    most = max(watch.changes[-1].finding.signals, key=lambda one: one.evidence)
    assert most.signal is Signal.PERTURBATION
    assert state_of(watch, "thief")["hits"][4] == 3 * (50 - RETAKES)


def test_an_answer_without_scores_is_no_event_for_the_boundary() -> None:
    """Whatever the boundary's null, evidence has the same bits; and with it as without its weight in S."""
    rates = DEFAULT_RATES.channels
    strict = replace(DEFAULT_RATES, channels=(*rates[:5], replace(rates[5], bound=0.01, mean=0.005)))
    log = busy_log(120)
    silent = [replace(query, margin=float("nan")) for query in log]
    watches = [Watch(baseline().with_rates(given)).run(silent) for given in (DEFAULT_RATES, strict)]
    one, other = ([row.state for _, row in sorted(watch.stored.items())] for watch in watches)
    assert one == other
    S = state_of(watches[0], "c1")["S"][5]
    assert (S[0] == S).all(), "only start weights"
    heard = Watch(baseline().with_rates(strict)).run(log)
    assert [row.state for _, row in sorted(heard.stored.items())] != other


def test_answers_near_the_boundary_hit_and_others_do_not() -> None:
    margin = np.float32(DEFAULT_RATES.margin)
    margins = [0.0, float(np.nextafter(margin, np.float32(0))), 0.2, float("nan"), 1.0]
    log = [
        replace(query, margin=value)
        for query, value in zip(queries("a", native(5, seed=21)), margins, strict=True)
    ]
    seen = Watch(kinds=()).observe(log)
    assert seen.hits[:, 5].tolist() == [True, True, False, False, False]
    assert seen.outcomes.bounds[:, 5].tolist() == [0.3, 0.3, 0.3, 1.0, 0.3]
    assert seen.outcomes.allowances[3, 3] == 1.0


@pytest.mark.parametrize("seen_as", ["a picture", "an embedding", "shots of one scene"])
def test_a_health_check_that_gets_one_unsure_answer_all_day_is_one_hit(seen_as: str) -> None:
    """The picture belongs to the domain, so the duplicate rule of foreign queries does not see it."""
    n = 300
    shots = seen_as == "shots of one scene"
    vectors = native(n, seed=24) if shots else native(1, seed=24).repeat(n, axis=0)
    prints = [0 if seen_as == "an embedding" else (0xF0F0 << 20) ^ (shots and 1 << i % 5) for i in range(n)]
    log = [
        Query("probe", vectors[i], prints[i], START + i * 1000, {"ip": "10.1.1.1"}, margin=0.01)
        for i in range(n)
    ]
    watch = Watch().run(log, range(7, n, 7))
    assert sum(int(seen.hits[:, 5].sum()) for seen in watch.seen) == 1
    assert watch.changes == []


def test_foreign_queries_visit_no_cell_and_first_ones_are_no_evidence_of_coverage() -> None:
    watch = Watch(kinds=())
    away = foreign(40, seed=22)
    seen = watch.observe(queries("a", away[watch.baseline.judge(away).foreign[:, 0]]))
    assert not state_of(watch, "a")["visited"].any()
    assert (seen.outcomes.bounds[:, 3] == 1.0).all()
    home = native(200, seed=22)
    seen = watch.observe(queries("b", home))
    verdict = watch.baseline.judge(home)
    inside = ~verdict.foreign[:, 0]
    visited = set(verdict.cells[inside].tolist())
    assert int(np.bitwise_count(state_of(watch, "b")["visited"]).sum()) == len(visited)
    assert seen.outcomes.bounds[0, 3] == 1.0
    assert 0 < seen.outcomes.bounds[-1, 3] < 0.5
    assert seen.outcomes.hits[:, 3].sum() == len(visited)


def test_two_clients_with_one_picture_perturb_nothing() -> None:
    home, others = native(2 + RETAKES, seed=23), pictures(RETAKES, seed=23)
    log = [
        Query("a", home[0], 0b1111 << 20),
        *(Query("a", vector, int(look)) for vector, look in zip(home[2:], others, strict=True)),
        Query("b", home[1], 0b1011 << 20),
    ]
    assert not Watch(kinds=()).observe(log).hits[:, 4].any()
    alone = Watch(kinds=()).observe([replace(query, client="a") for query in log])
    assert np.flatnonzero(alone.hits[:, 4]).tolist() == [len(log) - 1]
