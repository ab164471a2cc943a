"""The GPUs of this machine, as seats of worker processes: each worker sees one."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

__all__ = ["gpu_seats"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_seats() -> list[Mapping[str, str]]:
    """Return the environment of the n-th worker; empty where there is no GPU to share out.

    What a scheduler or the user made visible counts, by whatever names it has there; otherwise
    every GPU that torch finds.
    """
    named = os.environ.get(_VISIBLE)
    if named is None:
        devices = [str(index) for index in range(torch.cuda.device_count())]
    else:
        devices = [device.strip() for device in named.split(",") if device.strip()]
    return [{_VISIBLE: device} for device in devices]
