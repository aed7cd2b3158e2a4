"""A campaign account by account: each one's part in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

import storage.campaigns
import storage.subjects
from console.output import cell, clean
from detector.findings import Finding
from detector.groups import CAMPAIGN
from detector.links import Link, LinkKind
from detector.subjects import CLIENT, STATE, SubjectKey

__all__ = ["CampaignPart", "part_json", "parts_of", "parts_table"]

_PLACES = 3


@dataclass(frozen=True, slots=True)
class CampaignPart:
    """One account's part in a campaign.

    Attributes:
        client: the account.
        suspect: whether e-BH lists it on its own evidence.
        queries: all of its queries.
        foreign: foreign and novel ones.
        share: of the campaign's foreign queries, in [0, 1].
        evidence: its own E.
        link: what holds it in the campaign.
        places: classes that its foreign queries were answered with most, or else cells, with their numbers.
    """

    client: str
    suspect: bool
    queries: int
    foreign: int
    share: float
    evidence: float
    link: Link
    places: tuple[tuple[str, int], ...]


def parts_of(connection: Connection, finding: Finding, suspects: Collection[str]) -> list[CampaignPart]:
    """Every account of a campaign, the largest share first; nothing for other subjects.

    Args:
        connection: to read from.
        finding: about a campaign.
        suspects: clients that e-BH lists now.
    """
    if finding.subject.kind != CAMPAIGN:
        return []
    endpoint, listed = finding.endpoint, set(suspects)
    joined = {
        one.client: one for one in storage.campaigns.joined(connection, endpoint, finding.subject.value)
    }
    rows = storage.subjects.load(connection, endpoint, [SubjectKey(CLIENT, client) for client in joined])
    places = storage.campaigns.slices(connection, endpoint, joined)
    foreign = {row.key.value: int(np.frombuffer(row.state, STATE)["hits"][0, 0]) for row in rows}
    total = max(sum(foreign.values()), 1)
    parts = [
        CampaignPart(
            client=client,
            suspect=client in listed,
            queries=row.queries,
            foreign=foreign[client],
            share=foreign[client] / total,
            evidence=row.evidence,
            link=joined[client].link,
            places=tuple(places[client].most_common(_PLACES)) if client in places else (),
        )
        for row in rows
        for client in (row.key.value,)
    ]
    return sorted(parts, key=lambda part: (-part.foreign, part.client))


def part_json(part: CampaignPart) -> dict[str, object]:
    """A part as ``--json`` prints it."""
    return {
        "client": part.client,
        "suspect": part.suspect,
        "queries": part.queries,
        "foreign": part.foreign,
        "share": part.share,
        "evidence": part.evidence,
        "link": part.link.kind.value,
        "strength": part.link.strength,
        "places": dict(part.places),
    }


def parts_table(parts: Iterable[CampaignPart]) -> Table:
    """The parts as a table for a terminal."""
    table = Table("account", "queries", "foreign", "share", "evidence", "linked by", "mostly")
    for part in parts:
        places = ", ".join(f"{place} ({count})" for place, count in part.places)
        table.add_row(
            cell(part.client) if part.suspect else Text(clean(part.client), style="dim"),
            f"{part.queries:,}",
            f"{part.foreign:,}",
            f"{part.share:.1%}",
            f"{part.evidence:,.0f}",
            _link(part.link),
            cell(places),
        )
    return table


def _link(link: Link) -> str:
    if link.kind is LinkKind.DUPLICATES:
        return f"{link.strength:.0f} pictures shared"
    return f"{link.kind.value} ({link.strength:.2f})"
