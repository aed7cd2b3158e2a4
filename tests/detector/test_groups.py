"""Groups of a query, from what the log says of its client."""

from __future__ import annotations

import pytest

from detector.errors import DetectorError
from detector.groups import COHORT, DEFAULT_GROUPS, FLEET, NETWORK, USER_AGENT, check_kinds, groups_of
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


@pytest.mark.parametrize("kinds", [("client",), ("campaign",), ("",), ("org", "org")])
def test_kinds_that_cannot_be_judged_are_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(DetectorError, match="group kind"):
        check_kinds(kinds)


def test_kinds_keep_their_order() -> None:
    assert check_kinds(["cohort", "org"]) == ("cohort", "org")


@pytest.mark.parametrize(
    ("attributes", "cohort"),
    [
        ({"signup": "2026-11-22"}, "2026-W47"),
        ({"signup": "2026-11-16T00:00:00Z"}, "2026-W47"),
        ({"signup": "2027-01-01T12:00:00+09:00"}, "2026-W53"),
        ({"signup": "2026-11-22", "cohort": "spring offer"}, "spring offer"),
        ({"signup": "yesterday"}, None),
        ({"signup": ""}, None),
        ({}, None),
    ],
)
def test_a_cohort_is_the_week_of_the_sign_up(attributes: dict[str, str], cohort: str | None) -> None:
    assert groups_of(attributes, (COHORT,)) == (SubjectKey(COHORT, cohort) if cohort else None,)


def test_a_user_agent_is_a_group_and_its_name_is_bounded() -> None:
    assert groups_of({"user_agent": " curl/8.5 "}, (USER_AGENT,)) == (SubjectKey(USER_AGENT, "curl/8.5"),)
    assert groups_of({"user_agent": "x" * 5000}, (USER_AGENT,)) == (SubjectKey(USER_AGENT, "x" * 200),)
    assert groups_of({"user_agent": "  "}, (USER_AGENT,)) == (None,)
