from __future__ import annotations

import numpy as np
import pytest

from redteam.errors import RedteamError
from redteam.traffic import camouflage, merge, one_client, spread, turncoat
from tests.redteam.test_pictures import made


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25, 0.1, 0.05])
def test_camouflage_keeps_the_share_and_both_orders(share: float) -> None:
    foreign, honest = made(60), made(900)
    hidden = camouflage(foreign, honest, share, np.random.default_rng(1))
    assert abs(hidden.attack.mean() - share) < 1 / len(hidden)
    own = hidden.pictures[hidden.attack]
    rest = hidden.pictures[~hidden.attack]
    assert np.array_equal(own.fingerprints, foreign.fingerprints[: len(own)])
    assert np.array_equal(rest.fingerprints, honest.fingerprints[: len(rest)])
    assert set(hidden.clients) == {"thief"}


def test_camouflage_begins_anywhere() -> None:
    rng = np.random.default_rng(2)
    places = [np.flatnonzero(camouflage(made(5), made(50), 0.1, rng).attack)[0] for _ in range(200)]
    assert 5 < np.mean(places) < 13  # the first of five among fifty lies at 51 / 6 - 1 on average


@pytest.mark.parametrize("share", [0.0, 1.5, -0.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(RedteamError, match="share"):
        camouflage(made(5), made(5), share, np.random.default_rng(0))


def test_camouflage_without_anything_to_hide_is_refused() -> None:
    with pytest.raises(RedteamError, match="none"):
        camouflage(made(1), made(1), 0.05, np.random.default_rng(0))


def test_a_turncoat_is_honest_until_it_turns() -> None:
    life = turncoat(made(30), made(7), np.random.default_rng(3), turn=100)
    assert len(life) == 107
    assert life.attack.tolist() == [False] * 100 + [True] * 7
    assert np.array_equal(life.pictures[100:].fingerprints, made(7).fingerprints)
    first = life.pictures.fingerprints[:30]
    assert len(np.unique(first)) == 30  # nothing repeats within an epoch
    assert set(life.pictures.fingerprints[30:100]) <= set(first)


@pytest.mark.parametrize(("accounts", "each"), [(1, 24), (4, 6), (12, 2)])
@pytest.mark.parametrize("network", ["203.0.113", None])
def test_a_campaign_is_dealt_round_robin(accounts: int, each: int, network: str | None) -> None:
    campaign = spread(made(30), accounts, each, np.random.default_rng(4), network=network)
    assert len(campaign) == 24
    clients = campaign.of_client()
    assert [len(own) for own in clients.values()] == [each] * accounts
    assert campaign.clients[:accounts] == tuple(clients)
    assert np.array_equal(campaign.pictures.fingerprints, made(30).fingerprints[:24])
    assert (np.diff(campaign.times) >= 0).all()
    networks = {said["ip"].rpartition(".")[0] for said in campaign.attributes}
    assert len(networks) == (1 if network else accounts)


def test_a_campaign_larger_than_its_pool_is_refused() -> None:
    with pytest.raises(RedteamError, match="2,500 accounts of 2 queries need 5,000 pictures, not 30"):
        spread(made(30), 2_500, 2, np.random.default_rng(0))


def test_merging_keeps_each_clients_order() -> None:
    streams = [one_client(made(count), client=f"c{count}", attack=count == 9) for count in (4, 9, 15)]
    log = merge(streams, np.random.default_rng(5))
    assert len(log) == 28
    assert (np.diff(log.times) >= 0).all()
    for stream in streams:
        own = log.of_client()[stream.clients[0]]
        assert np.array_equal(own.pictures.fingerprints, stream.pictures.fingerprints)
        assert np.array_equal(own.attack, stream.attack)
    assert list(log.clients) != sorted(log.clients)


def test_merging_without_chance_keeps_the_times() -> None:
    early, late = one_client(made(3), client="a"), one_client(made(3), client="b", begins=500)
    assert merge([late, early]).clients == ("a", "b", "a", "b", "a", "b")
