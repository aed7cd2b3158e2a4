"""What an analyst is shown of a campaign."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.console.conftest import Shop, domain, foreign, line


def campaign_log(path: Path, accounts: int = 20, each: int = 10) -> Path:
    """A thief's queries over many accounts, round robin, among those of nine honest clients."""
    rng = np.random.default_rng(5)
    stolen = foreign(rng, accounts * each)
    lines = []
    for i, vector in enumerate(stolen):
        answer = {"label": f"shoe-[bold]{i % 3}"}
        lines += [
            line(2 * i, f"mule-{i % accounts:02d}", vector, response=answer),
            line(2 * i + 1, f"key-{i % 9}", domain(rng, 1)[0]),
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_campaign_is_shown_account_by_account(shop: Shop, tmp_path: Path) -> None:
    shop.banken("fit", "shop", "--reference", str(shop.reference))
    result = shop.banken("watch", "--source", str(campaign_log(tmp_path / "campaign.jsonl")), "--once")
    assert result.exit_code == 0, result.output
    found = [json.loads(row) for row in shop.banken("findings", "list", "--json").stdout.splitlines()]
    (campaign,) = [one for one in found if one["subject"]["kind"] == "campaign"]
    assert campaign["state"] == "alerted"
    mules = {f"mule-{i:02d}" for i in range(20)}
    assert len(mules & set(campaign["members"])) >= 19
    assert set(campaign["members"]) <= mules

    (shown,) = map(json.loads, shop.banken("findings", "show", campaign["uid"], "--json").stdout.splitlines())
    parts = {part["client"]: part for part in shown["parts"]}
    assert set(campaign["members"]) == {client for client, part in parts.items() if part["suspect"]}
    assert abs(sum(part["share"] for part in parts.values()) - 1) < 1e-9
    one = parts[campaign["members"][0]]
    assert (one["queries"], one["link"]) == (10, "same pool")
    assert 0 < one["foreign"] <= 10
    assert set(one["places"]) <= {f"shoe-[bold]{i}" for i in range(3)}

    text = shop.banken("findings", "show", campaign["uid"]).stdout
    assert all(client in text for client in parts)
    assert "same pool" in text
    assert "shoe-[bold]" in text
