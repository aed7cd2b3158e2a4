from __future__ import annotations

from pathlib import Path

import pytest

from redteam.world import World, load_world
from tests.redteam import drawn


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the domain `shapes` and the foreign pool `stains`."""
    folder = tmp_path_factory.mktemp("data")
    drawn.draw(folder)
    return folder


@pytest.fixture(scope="session")
def world_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def world(drawn_data: Path, world_cache: Path) -> World:
    return load_world(drawn_data, world_cache, "shapes", small=True)
