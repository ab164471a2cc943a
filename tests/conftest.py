"""What every test relies on: one thread, so that bits do not depend on the machine's cores."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread_of_torch():
    torch.set_num_threads(1)
