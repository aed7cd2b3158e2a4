"""Flags over environment over file over defaults; every setting and command is documented."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from console.errors import SettingsError
from console.settings import Settings, load_settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("BANKEN_CONFIG", raising=False)
    monkeypatch.delenv("BANKEN_DB", raising=False)


def test_flags_beat_environment_beats_file_beats_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b.toml"
    file.write_text('alpha = 0.01\nbatch_size = 7\nconsumer = "file"\n')
    monkeypatch.setenv("BANKEN_CONSUMER", "environment")
    monkeypatch.setenv("BANKEN_BATCH_SIZE", "8")
    settings = load_settings(file, batch_size=9)
    assert (settings.batch_size, settings.consumer, settings.alpha, settings.device) == (
        9,
        "environment",
        0.01,
        "auto",
    )


def test_the_default_database_lies_in_the_state_directory(tmp_path: Path) -> None:
    assert load_settings().db == f"sqlite:///{tmp_path / 'state' / 'banken' / 'banken.db'}"


def test_the_users_own_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "banken").mkdir()
    (tmp_path / "banken" / "banken.toml").write_text("alpha = 0.02\n")
    assert load_settings().alpha == 0.02


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("alpha = 2", "alpha"),
        ("alfa = 0.1", "alfa"),
        ("alpha = ", "banken.toml"),
        ('groups = ["org", "org"]', "each may stand once"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "banken.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(fault)):
        load_settings(file)


def test_every_setting_is_documented() -> None:
    page = (DOCS / "settings.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}`" not in page] == []


def test_the_page_of_commands_is_the_help_of_the_commands() -> None:
    """Made anew by: typer console.app utils docs --name banken --output docs/commands.md."""
    command = [sys.executable, "-m", "typer", "console.app", "utils", "docs", "--name", "banken"]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert (DOCS / "commands.md").read_text().strip() == made.strip()
