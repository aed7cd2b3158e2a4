"""Which groups a query belongs to: its organisation, its network, its cohort, the whole fleet."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from detector.errors import DetectorError
from detector.subjects import CLIENT, SubjectKey

__all__ = [
    "CAMPAIGN",
    "COHORT",
    "DEFAULT_GROUPS",
    "FLEET",
    "NETWORK",
    "USER_AGENT",
    "check_kinds",
    "groups_of",
]

NETWORK = "network"
USER_AGENT = "user_agent"
COHORT = "cohort"
FLEET = "fleet"

CAMPAIGN = "campaign"
"""The kind of the subjects that are campaigns: found by what accounts ask, not by what the log says."""

DEFAULT_GROUPS = ("org", NETWORK, FLEET)
"""Groups judged unless settings say otherwise. Any other name groups by the attribute of that name.

A kind costs about a hundredth of the detector's time also where the log never says it, so user agents and
cohorts are judged where they are asked for."""

_PREFIX = {4: 24, 6: 48}
_LONGEST_AGENT = 200  # characters; a header may have thousands, and the first ones name the program


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return ``kinds`` as group kinds.

    Raises:
        DetectorError: a kind is empty, repeated, or ``client`` or ``campaign`` (these are judged anyway).
    """
    for kind in kinds:
        if not kind or kind in {CLIENT, CAMPAIGN}:
            raise DetectorError(
                f"group kind {kind!r}: name an attribute of the log, {NETWORK!r} or {FLEET!r}"
            )
    if len(set(kinds)) != len(kinds):
        raise DetectorError(f"group kinds {', '.join(kinds)}: each may stand once")
    return tuple(kinds)


def groups_of(attributes: Mapping[str, str], kinds: Sequence[str]) -> tuple[SubjectKey | None, ...]:
    """The group subjects of one query, one place a kind; None where the log does not say.

    Args:
        attributes: what the log says of the client. ``ip`` makes the network: /24 of an IPv4
            address, /48 of an IPv6 one (RFC 6177 sites). ``user_agent`` is cut after 200 characters. The
            cohort is the attribute ``cohort``, or else the ISO week of ``signup``, a date or time in
            ISO 8601: accounts that are made for one theft are made together.
        kinds: group kinds, as :func:`check_kinds` returns them.

    Examples:
        >>> groups_of({"ip": "203.0.113.7"}, ("org", "network", "fleet"))
        (None, SubjectKey(kind='network', value='203.0.113.0/24'), SubjectKey(kind='fleet', value='all'))
    """
    return tuple(_group(attributes, kind) for kind in kinds)


def _group(attributes: Mapping[str, str], kind: str) -> SubjectKey | None:
    if kind == FLEET:
        return SubjectKey(FLEET, "all")
    if kind == NETWORK:
        return _network(attributes.get("ip", ""))
    value = attributes.get(kind)
    if kind == USER_AGENT and value:
        value = value.strip()[:_LONGEST_AGENT]
    if kind == COHORT and not value:
        value = _week(attributes.get("signup", ""))
    return SubjectKey(kind, value) if value else None


@lru_cache(65_536)
def _week(moment: str) -> str | None:
    """The ISO week of a date or time, as ``2026-W47``."""
    try:
        year, week, _ = datetime.fromisoformat(moment.strip()).isocalendar()
    except ValueError:
        return None
    return f"{year}-W{week:02d}"


@lru_cache(65_536)
def _network(ip: str) -> SubjectKey | None:
    try:
        address = ipaddress.ip_address(ip.strip())
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return SubjectKey(NETWORK, str(ipaddress.ip_network((address, _PREFIX[address.version]), strict=False)))
