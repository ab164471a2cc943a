"""What the kernels' cases share: where kernels run, and a generator.

They run under Triton's interpreter (``TRITON_INTERPRET=1``) or on the device that
``ZOO_TEST_KERNELS`` names; the cases are the same.
"""

from __future__ import annotations

import importlib
import os
import pkgutil

import numpy as np
import pytest
import torch
import triton
from triton.runtime import interpreter as triton_interpreter

import zoo.kernels
from zoo.kernels.language import INTERPRETED

DEVICE = os.environ.get("ZOO_TEST_KERNELS")
if DEVICE is not None:
    import bridge

    for _module in pkgutil.iter_modules(zoo.kernels.__path__, "zoo.kernels."):
        importlib.import_module(_module.name)
    bridge.install(DEVICE)

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
    assert INTERPRETED or DEVICE, "run through tests/kernels/test_kernels.py"


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def normal(random):
    def draw(*shape, scale=1.0, offset=0.0):
        return torch.randn(*shape, generator=random) * scale + offset

    return draw
