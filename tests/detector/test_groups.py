"""Groups of a query, from what the log says of its client."""

from __future__ import annotations

import pytest

from detector.errors import DetectorError
from detector.groups import DEFAULT_GROUPS, FLEET, NETWORK, check_kinds, groups_of
from detector.subjects import SubjectKey


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        (" 203.0.113.255 ", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
    ],
)
def test_an_address_belongs_to_its_network(ip: str, network: str) -> None:
    assert groups_of({"ip": ip}, (NETWORK,)) == (SubjectKey(NETWORK, network),)


@pytest.mark.parametrize("ip", ["", "unknown", "10.0.0.1:443", "10.0.0.1, 10.0.0.2", "1.2.3", "300.1.1.1"])
def test_what_is_no_address_belongs_to_no_network(ip: str) -> None:
    assert groups_of({"ip": ip}, (NETWORK,)) == (None,)


def test_one_place_a_kind_and_none_where_the_log_is_silent() -> None:
    assert groups_of({}, DEFAULT_GROUPS) == (None, None, SubjectKey(FLEET, "all"))
    assert groups_of({"org": "acme", "plan": "free"}, ("plan", "org", "cohort")) == (
        SubjectKey("plan", "free"),
        SubjectKey("org", "acme"),
        None,
    )
    assert groups_of({"org": ""}, ("org",)) == (None,)
    assert groups_of({"org": "acme"}, ()) == ()


@pytest.mark.parametrize("kinds", [("client",), ("",), ("org", "org")])
def test_kinds_that_cannot_be_judged_are_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(DetectorError, match="group kind"):
        check_kinds(kinds)


def test_kinds_keep_their_order() -> None:
    assert check_kinds(["cohort", "org"]) == ("cohort", "org")
