"""Sums of exponentials that cannot overflow, tile by tile, in two forms.

*Online* (Milakov and Gimelshein 2018, arXiv 1805.02867) keeps the largest value m so far and
Σ exp(x − m), rescaled when m grows. *Two-pass* (Dukhan and Ablavatski 2020, arXiv 2001.04438) never
looks for a largest value: e^x = f·2^n with n = round(x/ln 2) and f in [√½, √2], and the sum is such
a pair too, whose exponent is a float, so that it does not overflow either.

Both have plain-torch forms of the same names with ``_torch``, which tests compare in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.kernels.language import Value, jit, tl

__all__ = [
    "online_step",
    "two_pass_exp",
    "two_pass_logsumexp_torch",
    "two_pass_step",
]

_LN2 = 0.6931471805599453


def two_pass_logsumexp_torch(x: Tensor, *, tile: int = 2048) -> Tensor:
    """Return ln Σ exp(x) over the last axis by the two-pass form, in tiles as the kernel does."""
    peak = torch.full_like(x[..., 0], -torch.inf)
    mass = torch.zeros_like(peak)
    for part in torch.split(x, tile, -1):
        power = torch.round(part / _LN2)
        found = torch.exp(part - power * _LN2)
        found = torch.where(part == -torch.inf, 0, found)
        top = torch.maximum(peak, power.amax(-1))
        base = torch.where(top == -torch.inf, 0, top)
        mass = mass * torch.exp2(peak - base)
        mass = mass + (found * torch.exp2(power - base.unsqueeze(-1))).sum(-1)
        peak = top
    return peak * _LN2 + mass.log()


@jit
def online_step(x: Value, peak: Value, mass: Value) -> Value:
    """Take a tile ``[BR, BC]`` into the largest value and the sum ``[BR]``."""
    top = tl.maximum(peak, tl.max(x, 1))
    # Where all is −∞ so far the differences would be NaN.
    base = tl.where(top == float("-inf"), 0.0, top)
    mass = mass * tl.exp(peak - base) + tl.sum(tl.exp(x - base[:, None]), 1)
    return top, mass


@jit
def two_pass_step(x: Value, peak: Value, mass: Value) -> Value:
    """Take a tile ``[BR, BC]`` into the exponent and the mantissa ``[BR]`` of the sum."""
    power = tl.floor(x * 1.4426950408889634 + 0.5)
    # ln 2 in two parts (Cody and Waite 1980): n·0.693359375 is exact.
    rest = (x - power * 0.693359375) + power * 2.12194440e-4
    found = tl.where(x == float("-inf"), 0.0, tl.exp(rest))
    top = tl.maximum(peak, tl.max(power, 1))
    base = tl.where(top == float("-inf"), 0.0, top)
    mass = mass * tl.exp2(peak - base) + tl.sum(found * tl.exp2(power - base[:, None]), 1)
    return top, mass


@jit
def two_pass_exp(x: Value, peak: Value, mass: Value) -> Value:
    """Return p = exp(x) over the sum and ln p, both ``[BR, BC]``."""
    power = tl.floor(x * 1.4426950408889634 + 0.5)
    rest = (x - power * 0.693359375) + power * 2.12194440e-4
    found = tl.exp(rest) * tl.exp2(power - peak[:, None]) / mass[:, None]
    low = power - peak[:, None]
    logp = (low * 0.693359375 + rest) - low * 2.12194440e-4 - tl.log(mass)[:, None]
    gone = x == float("-inf")
    return tl.where(gone, 0.0, found), tl.where(gone, float("-inf"), logp)
