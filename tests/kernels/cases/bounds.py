"""Comparison with float64."""

from __future__ import annotations

import torch


def double(value):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.double()
    return value


def assert_near(found, wanted, floor, *, torch32=None):
    """Assert |found − wanted| ≤ max(floor, 2·the error of float32 torch), NaN and ∞ equal."""
    found, wanted = found.double(), wanted.double()
    finite = torch.isfinite(wanted)
    assert torch.equal(torch.isnan(found), torch.isnan(wanted))
    assert torch.equal(found[torch.isinf(wanted)], wanted[torch.isinf(wanted)])
    if not finite.any():
        return
    error = (found - wanted)[finite].abs().max().item()
    allowed = floor
    if torch32 is not None:
        allowed = max(allowed, 2 * (torch32.double() - wanted)[finite].abs().max().item())
    assert error <= allowed, f"error {error:.3g}, allowed {allowed:.3g}"


def same_bits(a, b):
    return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
