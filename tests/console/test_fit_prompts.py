"""`banken fit --prompts` from the command line."""

from __future__ import annotations

import json

import pytest

from tests.console.conftest import Shop


def test_a_domain_is_declared_in_words_and_shown(shop: Shop) -> None:
    prompts = shop.place / "prompts.txt"
    prompts.write_text("# what the shop sells\na coat\na shirt\n")
    fitted = shop.banken("fit", "shop", "--prompts", str(prompts))
    assert fitted.exit_code == 0, fitted.output
    assert "2 prompts, encoder banken-compact" in fitted.stdout
    assert "find much less than pictures" in fitted.stderr
    (shown,) = (
        json.loads(line) for line in shop.banken("baselines", "show", "shop", "--json").stdout.splitlines()
    )
    assert (shown["declared_by"], shown["prompts"], shown["cells"]) == ("prompts", ["a coat", "a shirt"], 2)
    assert shown["calibration_groups"] == 1
    assert "declared in words" in shown["rates"][0]["source"]
    assert "a shirt" in shop.banken("baselines", "show", "shop").output


@pytest.mark.parametrize("both", [True, False])
def test_exactly_one_of_reference_and_prompts(shop: Shop, both: bool) -> None:
    given = ("--reference", str(shop.reference), "--prompts", "prompts.txt") if both else ()
    result = shop.banken("fit", "shop", *given)
    assert result.exit_code == 2
    assert "exactly one" in result.stderr


def test_help_says_that_words_are_weaker(shop: Shop) -> None:
    assert "weaker" in " ".join(shop.banken("fit", "--help").output.split())


@pytest.mark.parametrize(("content", "fault"), [(b"", "no prompt in it"), (b"\xff", "not UTF-8")])
def test_a_bad_file_is_one_line(
    shop: Shop,
    content: bytes,
    fault: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from console.app import main

    prompts = shop.place / "prompts.txt"
    prompts.write_bytes(content)
    monkeypatch.setattr("sys.argv", ["banken", "fit", "shop", "--prompts", str(prompts), "--db", shop.db])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: prompts ")
    assert fault in printed
