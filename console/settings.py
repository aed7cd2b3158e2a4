"""Settings: command-line flags over ``BANKEN_*`` variables over a TOML file over defaults."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as PydanticSettingsError

from console.errors import SettingsError
from detector.errors import DetectorError
from detector.evidence import EvidenceRule
from detector.groups import DEFAULT_GROUPS, check_kinds
from embeddings.decoding import DecodeLimits
from streams.pipeline import Rules

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Settings", "default_database", "load_settings"]


_OTHERS = {"BANKEN_CONFIG", "BANKEN_DATA"}
"""Variables that are ours and no settings: the configuration file, and the data of development scripts."""

# Kubernetes sets such variables in every pod beside a service whose name begins with "banken".
_KUBERNETES = re.compile(r"BANKEN_(\w+_)?(SERVICE_HOST|(SERVICE_)?PORT(_\w+)?)")


def default_database() -> Path:
    """The database's file where nothing names one, in the user's state directory.

    Raises:
        SettingsError: the user has no home.
    """
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise SettingsError(
            "db: the user has no home directory to keep a database in; give --db sqlite:///FILE, or set "
            "XDG_STATE_HOME"
        ) from error
    return Path(state, "banken", "banken.db")


class Settings(BaseSettings):
    """Everything that can be set. Each field is ``BANKEN_<NAME>`` in the environment and ``name`` in TOML."""

    model_config = SettingsConfigDict(env_prefix="BANKEN_", extra="forbid")

    db: Annotated[str, Field(description="database URL, sqlite:///… or postgresql://…", repr=False)] = Field(
        default_factory=lambda: f"sqlite:///{default_database()}"
    )
    encoder: Annotated[
        str, Field(description="encoder: banken-compact, MODEL/TAG, hf-hub:…, MODEL@FILE, or a directory")
    ] = "banken-compact"
    device: Annotated[str, Field(description="auto, cpu, cuda, cuda:N or mps")] = "auto"
    alpha: Annotated[
        float, Field(gt=0, lt=1, description="probability with which an honest client is ever suspected")
    ] = 0.001
    alert_exposure: Annotated[
        float, Field(gt=0, description="excess foreign queries that turn a suspect into an alert")
    ] = 25.0
    groups: Annotated[
        list[str],
        Field(
            description="groups judged beside clients: network, fleet, cohort (week of sign-up), or names of "
            "attributes"
        ),
    ] = list(DEFAULT_GROUPS)
    consumer: Annotated[str, Field(min_length=1, description="name under which read offsets are kept")] = (
        "banken"
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536, description="queries judged together at most")] = 256
    batch_seconds: Annotated[float, Field(gt=0, description="longest wait for a batch to fill")] = 1.0
    subjects_in_memory: Annotated[
        int, Field(ge=1_000, description="subjects of an endpoint kept in memory")
    ] = 200_000
    decode_threads: Annotated[int, Field(ge=1, le=256, description="threads that decode pictures")] = 2
    max_image_bytes: Annotated[int, Field(ge=1, description="largest picture file")] = 20 * 2**20
    max_image_pixels: Annotated[int, Field(ge=1, description="largest picture, width × height")] = 50_000_000
    dead_letter_bytes: Annotated[int, Field(ge=0, description="how much of a bad record is kept")] = 4096
    max_future_hours: Annotated[
        float, Field(gt=0, description="events further ahead of the clock become dead letters")
    ] = 24.0

    @field_validator("groups")
    @classmethod
    def _known_groups(cls, kinds: list[str]) -> list[str]:
        return list(check_kinds(kinds))

    @property
    def rules(self) -> Rules:
        """The pipeline's part of the settings."""
        return Rules(
            consumer=self.consumer,
            batch_size=self.batch_size,
            batch_seconds=self.batch_seconds,
            evidence=EvidenceRule(alpha=self.alpha, alert_exposure=self.alert_exposure),
            groups=tuple(self.groups),
            capacity=self.subjects_in_memory,
            raw_bytes=self.dead_letter_bytes,
            max_future=round(self.max_future_hours * 3_600_000),
        )

    @property
    def limits(self) -> DecodeLimits:
        """The decoder's part of the settings."""
        return DecodeLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings.

    Args:
        config: a TOML file; by default ``BANKEN_CONFIG``, or ``banken/banken.toml`` in the user's
            configuration directory where there is one.
        flags: what the command line says; None means that it is silent.

    Raises:
        SettingsError: the file cannot be read, a name does not exist, or a value is out of range.
    """
    _check_environment()
    path = config or _default_config()

    class _WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = (TomlConfigSettingsSource(settings_cls, path),) if path else ()
            return (init_settings, env_settings, *file)

    try:
        if path is not None and not path.is_file():
            raise SettingsError(f"configuration file {path}: no such file; check --config or BANKEN_CONFIG")
        return _WithFile(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(f"settings: {'; '.join(map(_told, error.errors()))}") from error
    except PydanticSettingsError as error:
        raise SettingsError(
            f'environment: {error}; a list is written as JSON, such as BANKEN_GROUPS=\'["org", "network"]\''
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"configuration file {path}: {error}") from error
    except DetectorError as error:
        raise SettingsError(f"settings: {error}") from error


def _default_config() -> Path | None:
    named = os.environ.get("BANKEN_CONFIG")
    if named:
        return Path(named)
    try:
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        path = Path(home, "banken", "banken.toml")
        return path if path.is_file() else None
    except (RuntimeError, PermissionError):
        return None  # no home, or one that we may not look into


def _check_environment() -> None:
    known = {f"BANKEN_{name}".upper() for name in Settings.model_fields} | _OTHERS
    for name in sorted(os.environ):
        capitals = name.upper()
        if capitals.startswith("BANKEN_") and capitals not in known and not _KUBERNETES.fullmatch(capitals):
            raise SettingsError(f"environment: {name} is not a setting; there are {', '.join(sorted(known))}")


def _told(fault: ErrorDetails) -> str:
    """A fault for people. A value that may be a database URL, and hold a password, is not repeated."""
    name = ".".join(map(str, fault["loc"])) or "settings"
    if fault["type"] == "extra_forbidden":
        return f"{name}: no such setting; there are {', '.join(sorted(Settings.model_fields))}"
    given = "" if name.startswith("db") else f" (given: {fault['input']!r})"
    return f"{name}: {fault['msg']}{given}"
