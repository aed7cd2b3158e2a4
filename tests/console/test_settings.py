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
    monkeypatch.delenv("BANKEN_DATA", raising=False)


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


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("BANKEN_GROUPS", "org,network", "written as JSON"),
        ("BANKEN_ALFA", "0.1", "BANKEN_ALFA is not a setting"),
    ],
)
def test_a_bad_variable_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, fault: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=fault):
        load_settings()


def test_what_kubernetes_sets_for_a_service_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "BANKEN_SERVICE_HOST",
        "BANKEN_PORT_80_TCP_ADDR",
        "BANKEN_DB_SERVICE_PORT_SQL",
        "BANKEN_DB_PORT",
    ):
        monkeypatch.setenv(name, "10.0.0.1")
    assert load_settings().alpha == 0.001


@pytest.mark.parametrize(
    "text", ['dp = "postgresql://banken:hunter2@db/banken"', 'db = ["postgresql://banken:hunter2@db/banken"]']
)
def test_a_password_is_never_repeated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "banken.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(file)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(load_settings(db="postgresql://banken:hunter2@db/banken"))


def test_a_user_without_a_home_needs_a_database_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(SettingsError, match="--db"):
        load_settings()
    assert load_settings(db="sqlite:///here.db").db == "sqlite:///here.db"


def test_a_configuration_directory_that_is_closed_to_us_holds_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", closed)
    assert load_settings().alpha == 0.001


def test_every_setting_is_documented() -> None:
    page = (DOCS / "settings.md").read_text()
    assert [name for name in Settings.model_fields if f"`{name}`" not in page] == []


def test_the_page_of_commands_is_the_help_of_the_commands() -> None:
    """Made anew by: typer console.app utils docs --name banken --output docs/commands.md."""
    command = [sys.executable, "-m", "typer", "console.app", "utils", "docs", "--name", "banken"]
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert (DOCS / "commands.md").read_text().strip() == made.strip()
