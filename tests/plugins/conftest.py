"""Plug-ins of the tests, taken out again, so that no other test meets their entries."""

from __future__ import annotations

import textwrap

import pytest
from page import write_files

from zoo.plugins import load_plugin, loaded_plugins, unload_plugin


@pytest.fixture(autouse=True)
def nothing_stays():
    before = {plugin.path for plugin in loaded_plugins()}
    yield
    for plugin in loaded_plugins():
        if plugin.path not in before:
            unload_plugin(plugin.path)


@pytest.fixture
def plugged(tmp_path):
    """Return a function that writes a plug-in and loads it."""

    def load(text, name="own.py"):
        path = tmp_path / name
        path.write_text("import torch\nfrom torch import nn\nfrom zoo import plugin\n\n"
                        + textwrap.dedent(text))  # fmt: skip
        return load_plugin(path)

    return load


@pytest.fixture(scope="module")
def page_plugin(tmp_path_factory):
    """The plug-in of docs/extend.md, loaded for all tests of a file."""
    path = write_files(tmp_path_factory.mktemp("page"))
    yield load_plugin(path)
    unload_plugin(path)
