"""What the interpreted tests share: a generator, float64 copies, and error bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
from triton.runtime import interpreter as triton_interpreter

from zoo.kernels.language import INTERPRETED

if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
    # Triton 3.6 makes a Python integer of an array of one element, which numpy 2.4 refuses.
    _patch = triton_interpreter._patch_lang_tensor

    def _patch_with_index(tensor, *rest):
        _patch(tensor, *rest)
        tensor.__index__ = lambda self: int(np.asarray(self.handle.data).item())

    triton_interpreter._patch_lang_tensor = _patch_with_index


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
