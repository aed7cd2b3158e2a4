"""Perturbation: near but not equal to an earlier picture of one's own, once for each picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from detector.perturbation import FINGERPRINT_BITS, REMEMBERED, RETAKES, digests_of, perturbed
from detector.subjects import CLIENT, SubjectKey, SubjectTable
from tests.detector.world import foreign, pictures

Prints = npt.NDArray[np.uint64]
Digests = npt.NDArray[np.uint64]
Clients = npt.NDArray[np.int64]


class Client:
    """A table of a few clients, one event or batch after the other."""

    def __init__(self, clients: int = 1) -> None:
        self.table = SubjectTable()
        self.slots = self.table.slots([SubjectKey(CLIENT, str(i)) for i in range(clients)])

    def ask(self, prints: Prints, digests: Digests, who: Clients | int = 0) -> list[bool]:
        slots = np.broadcast_to(self.slots[who], len(prints))
        hits, self.known = perturbed(self.table.rows, slots, prints, digests)
        return hits.tolist()


def steps(prints: Prints, seed: int, bits: int = 6) -> Prints:
    """The pictures after a small step: some bits of their fingerprints differ."""
    rng = np.random.default_rng([seed, 3])
    flips = [sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False, shuffle=False)) for _ in prints]
    return prints ^ np.array(flips, np.uint64)


def digests(n: int, seed: int) -> Digests:
    return digests_of(foreign(n, seed=seed))


def test_copies_of_a_hundred_seeds_hit_once_a_seed() -> None:
    """Rounds of a JBDA thief: the first step of each seed is a hit, the later ones are not."""
    client = Client()
    rounds = []
    for half in np.split(np.arange(100), 2):  # no more seeds at a time than are remembered
        seeds = pictures(100, seed=1)[half]
        rounds.append([client.ask(seeds, digests(50, 1))])
        rounds[-1] += [client.ask(steps(seeds, r), digests(50, 1 + r)) for r in range(1, 4)]
    # Those of the latest seeds may be retakes.
    assert [[sum(hits) for hits in one] for one in rounds] == [[0, 50 - RETAKES, 0, 0]] * 2


def test_a_burst_of_thirty_frames_is_one_scene() -> None:
    client = Client()
    scene = pictures(1, seed=2)
    burst = np.concatenate([scene, *(steps(scene, frame, bits=4) for frame in range(29))])
    assert not any(client.ask(burst, digests(30, 2)))
    assert not any(client.ask(pictures(RETAKES, seed=20), digests(RETAKES, 20)))
    assert client.ask(steps(scene, 50), digests(1, 21)) == [False], "it has been taken again before"


@pytest.mark.parametrize(("between", "hit"), [(RETAKES - 1, False), (RETAKES, True)])
def test_a_retake_comes_soon(between: int, hit: bool) -> None:
    client = Client()
    scene = pictures(1, seed=21)
    client.ask(np.append(scene, pictures(between, seed=22)), digests(between + 1, 22))
    assert client.ask(steps(scene, 1), digests(1, 23)) == [hit]


def test_an_exact_repeat_is_never_a_hit_and_uses_nothing_up() -> None:
    client = Client()
    scene, same = pictures(1, seed=3), digests(1, 3)
    assert client.ask(scene.repeat(200), same.repeat(200)) == [False] * 200
    client.ask(pictures(RETAKES, seed=23), digests(RETAKES, 24))
    assert client.ask(steps(scene, 1), digests(1, 4)) == [True]
    assert client.ask(steps(scene, 1), digests(1, 4)) == [False]


def test_pictures_of_one_fingerprint_are_the_same_only_if_their_embeddings_are() -> None:
    """A hash of 64 bits does not see the small steps of an optimiser; the encoder does."""
    client = Client()
    scene = pictures(1, seed=4)
    client.ask(np.append(scene, pictures(RETAKES, seed=24)), digests(RETAKES + 1, 25))
    assert client.ask(scene.repeat(2), digests(2, 5)) == [True, False]


@pytest.mark.parametrize(("bits", "hit"), [(FINGERPRINT_BITS, True), (FINGERPRINT_BITS + 1, False)])
def test_near_is_so_many_bits(bits: int, hit: bool) -> None:
    scene = pictures(1, seed=5)
    client = Client()
    client.ask(np.append(scene, pictures(RETAKES, seed=25)), digests(RETAKES + 1, 26))
    assert client.ask(steps(scene, 1, bits), digests(1, 6)) == [hit]


def test_the_sixty_fifth_picture_takes_the_place_of_the_first() -> None:
    many = pictures(REMEMBERED + 1, seed=6)
    for others, hit in ((REMEMBERED, True), (REMEMBERED + 1, False)):
        client = Client()
        assert not any(client.ask(many[:others], digests(others, 7)))
        assert client.ask(steps(many[:1], 1), digests(1, 8)) == [hit]
        assert client.ask(steps(many[9:10], 1), digests(1, 9)) == [True]


def test_two_clients_do_not_see_each_other() -> None:
    client = Client(2)
    scene = pictures(1, seed=7)
    both = np.append(scene, steps(scene, 1))
    assert client.ask(both, digests(2, 10), np.array([0, 1])) == [False, False]
    client.ask(pictures(RETAKES, seed=26), digests(RETAKES, 27), 0)
    assert client.ask(steps(scene, 2, bits=3), digests(1, 11), 0) == [True]


def test_where_there_was_no_picture_nothing_hits_but_repeats_are_known() -> None:
    client = Client()
    embedded = digests(5, 12)
    assert client.ask(np.zeros(10, np.uint64), np.tile(embedded, 2)) == [False] * 10
    assert client.known.tolist() == [False] * 5 + [True] * 5
    assert client.ask(np.zeros(1, np.uint64), embedded[:1] ^ np.uint64(1)) == [False]


def test_what_is_known_is_what_is_near_or_equal() -> None:
    client = Client()
    scene, same = pictures(1, seed=9), digests(1, 17)
    client.ask(np.concatenate([scene, scene, steps(scene, 1), steps(scene, 2, bits=40)]), same.repeat(4))
    assert client.known.tolist() == [False, True, True, False]


class OneByOne:
    """The rule of `perturbed`, told event by event: what each client remembers, the latest last."""

    def __init__(self) -> None:
        self.remembered: dict[int, list[list[int]]] = {}

    def ask(self, look: int, pictured: bool, short: int, who: int) -> tuple[bool, bool]:
        pictures = self.remembered.setdefault(who, [])
        near = [
            picture
            for picture in pictures[-REMEMBERED:]
            if picture[0] != 0 and (picture[0] ^ look).bit_count() <= FINGERPRINT_BITS
        ]
        if not near:
            pictures.append([look, short, 0])
            return False, False
        if [look, short] in [picture[:2] for picture in near]:
            return False, True
        latest = pictures[-RETAKES:]
        hit = pictured and not any(one[2] or any(one is other for other in latest) for one in near)
        for picture in near:
            picture[2] = 1
        return hit, True

    def row(self, who: int) -> tuple[list[int], list[int], int]:
        """Prints, marks and kept of a client, as the table has them."""
        prints, marks = [0] * REMEMBERED, [0] * REMEMBERED
        for k, (look, short, used) in enumerate(pictures := self.remembered.get(who, [])):
            prints[k % REMEMBERED], marks[k % REMEMBERED] = look, short | used
        return prints, marks, len(pictures)


def traffic(n: int, clients: int, seeds: int, seed: int) -> tuple[Prints, Digests, Clients]:
    """Seeds sent anew, changed or after each other in bursts, some without a picture; one busy client."""
    rng = np.random.default_rng(seed)
    drawn = np.repeat(rng.integers(0, seeds, n), rng.choice([1, 1, 1, 20], n))[:n]
    prints = pictures(seeds, seed)[drawn]
    prints = np.where(rng.random(n) < 0.5, prints, steps(prints, seed, int(rng.integers(1, 9))))
    prints[rng.random(n) < 0.1] = 0
    prints[rng.random(n) < 0.01] = 7
    own = digests(max(n, seeds), seed)
    embedded = np.where(rng.random(n) < 0.3, own[:n], own[drawn])
    embedded[rng.random(n) < 0.02] = 0
    return prints, embedded, rng.integers(0, clients, n) * (rng.random(n) < 0.8)


@pytest.mark.parametrize("busy", [True, False])
@pytest.mark.parametrize("seeds", [20, 90, 3000])
@pytest.mark.parametrize("clients", [1, 3, 40, 600])
def test_events_taken_at_once_are_judged_as_one_by_one(clients: int, seeds: int, busy: bool) -> None:
    n = 1200
    prints, embedded, who = traffic(n, clients, seeds, seed=clients + seeds)
    who = who if busy else np.arange(n) % clients
    looks = np.where(prints != 0, prints, embedded)
    short = (embedded >> 48 & 0xFFFE).tolist()
    plain, fast = OneByOne(), Client(clients)
    expected = list(map(plain.ask, looks.tolist(), (prints != 0).tolist(), short, who.tolist()))
    judged: list[tuple[bool, bool]] = []
    for part in np.split(np.arange(n), [1, 2, 42, 500, 900]):
        hits = fast.ask(prints[part], embedded[part], who[part])
        judged += zip(hits, fast.known.tolist(), strict=True)
    assert judged == expected
    for client, slot in enumerate(fast.slots.tolist()):
        row = fast.table.rows[slot]
        assert (row["prints"].tolist(), row["marks"].tolist(), int(row["kept"])) == plain.row(client)


def test_the_cut_into_batches_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    n = 1500
    seeds, embedded = pictures(90, seed=8), foreign(n, seed=14)
    drawn = rng.integers(0, 90, n)
    prints = np.where(rng.random(n) < 0.5, seeds[drawn], steps(seeds[drawn], 9))
    prints[rng.random(n) < 0.1] = 0
    marks = np.where(rng.random(n) < 0.3, digests_of(embedded), digests_of(embedded)[drawn])
    who = rng.integers(0, 4, n) * (rng.random(n) < 0.6)
    whole = Client(4)
    hits = whole.ask(prints, marks, who)
    assert 20 < sum(hits) < n / 2
    for seed in range(4):
        at = range(1, n) if seed == 0 else np.random.default_rng(seed).integers(1, n, 12)
        cut = Client(4)
        parts = np.split(np.arange(n), sorted(set(at)))
        assert [hit for part in parts for hit in cut.ask(prints[part], marks[part], who[part])] == hits
        assert cut.table.rows.tobytes() == whole.table.rows.tobytes()


def test_digests_are_equal_for_equal_embeddings_and_hardly_for_others() -> None:
    vectors = foreign(5000, seed=15)
    whole = digests_of(vectors)
    assert whole.tobytes() == np.concatenate([digests_of(vectors[i : i + 1]) for i in range(5000)]).tobytes()
    assert len(np.unique(whole)) == 5000
    assert len(np.unique(whole >> 48)) > 4500, "the part that is kept beside a fingerprint"
    nudged = vectors.view(np.uint16).copy()
    nudged[:, 3] ^= 1
    assert (digests_of(nudged.view(np.float16)) >> 48 == whole >> 48).mean() < 0.01
    assert digests_of(np.zeros((2, 5000), np.float16)).shape == (2,)
