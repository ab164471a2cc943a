"""Random directions of the landscape metrics: a function of (model's seed, purpose, number).

A model's directions depend on its own seed alone, so that neither its slot nor its neighbours
matter, and the errors of two models are independent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.seeds import Stream, torch_bits, torch_normal, torch_uniform

__all__ = ["KINDS", "normals", "signs", "uniforms"]

#: What directions are for. The values are part of what is published: never renumber, only add.
KINDS = {
    "lanczos": 0,
    "trace": 1,
    "spectrum": 2,
    "average": 3,
    "curve": 4,
    "mixup": 5,
    "probe": 6,
}

_KIND_STRIDE = 1 << 32


def _index(seeds: Tensor, kind: str, number: int) -> Tensor:
    return torch.full_like(seeds, KINDS[kind] * _KIND_STRIDE + number)


def signs(seeds: Tensor, kind: str, number: int, n: int) -> Tensor:
    """Return Rademacher vectors ``[G, n]`` float32, one a seed ``[G]``."""
    words = torch_bits(seeds, Stream.LANDSCAPE, _index(seeds, kind, number), -(-n // 32))
    bits = (words.unsqueeze(-1) >> torch.arange(32, device=seeds.device)) & 1
    return bits.flatten(1)[:, :n].to(torch.float32) * 2 - 1


def normals(seeds: Tensor, kind: str, number: int, n: int) -> Tensor:
    """Return standard normal vectors ``[G, n]`` float32, one a seed ``[G]``."""
    return torch_normal(seeds, Stream.LANDSCAPE, _index(seeds, kind, number), n)


def uniforms(seeds: Tensor, kind: str, number: int, n: int) -> Tensor:
    """Return numbers uniform on [0, 1) ``[G, n]`` float32, one row per seed ``[G]``."""
    return torch_uniform(seeds, Stream.LANDSCAPE, _index(seeds, kind, number), n)
