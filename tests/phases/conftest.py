"""Lets these tests use the made-up store of the store tests."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))

import fabricated_store as fab

from zoo.store import create_store


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    plan = fab.make_plan()
    path = tmp_path_factory.mktemp("template") / "x.zarr"
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={"command": ["zoo", "run"]})
    fab.fill(path, plan)
    return path


@pytest.fixture
def full(tmp_path, template):
    """A store with everything trained."""
    return shutil.copytree(template, tmp_path / "x.zarr")
