from __future__ import annotations

import shutil

import fabricated_store as fab
import pytest

from zoo.store import create_store


@pytest.fixture(scope="session")
def plan():
    return fab.make_plan()


@pytest.fixture
def empty(tmp_path, plan):
    """A store with nothing trained."""
    path = tmp_path / "x.zarr"
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={"command": ["zoo", "run"]})
    return path


@pytest.fixture(scope="session")
def template(tmp_path_factory, plan):
    path = tmp_path_factory.mktemp("template") / "x.zarr"
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={"command": ["zoo", "run"]})
    fab.fill(path, plan)
    return path


@pytest.fixture
def full(tmp_path, template):
    """A store with everything trained."""
    return shutil.copytree(template, tmp_path / "x.zarr")
