"""What the interpreted tests share: a generator, float64 copies, and error bounds."""

from __future__ import annotations

import pytest
import torch

from zoo.kernels.language import INTERPRETED


def pytest_collection_modifyitems(items):
    # The interpreter computes with numpy, which warns of the NaN and ∞ that kernels mask.
    for item in items:
        if item.path.name.startswith("kernel_"):
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))


@pytest.fixture(autouse=True)
def interpreter():
    assert INTERPRETED, "run through tests/kernels/test_interpreter.py"


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def normal(random):
    def draw(*shape, scale=1.0, offset=0.0):
        return torch.randn(*shape, generator=random) * scale + offset

    return draw
