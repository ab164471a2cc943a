"""Optimizer kernels against the optimizers' own updates in float64, and what their bits keep to."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bounds import same_bits

sys.path.append(str(Path(__file__).parents[2] / "train"))

from engine_cases import plan_of

from zoo.kernels.newton_schulz import newton_schulz, newton_schulz_torch
from zoo.kernels.optimizer_step import FAMILIES, Update
from zoo.optim import OPTIMIZERS
from zoo.optim.fused import fused_step, has_kernel
from zoo.spec.run import RunSpec
from zoo.train.group import coefficient_table

WITH_KERNELS = sorted(n for n in OPTIMIZERS.names() if has_kernel(OPTIMIZERS[n]))
STEPS = 2
CASES = [(name, {}) for name in WITH_KERNELS]
CASES += [
    (name, {"clip_norm": 0.5, "decay_mask": "kernels", "norm": "layer"}) for name in WITH_KERNELS
]
CASES += [(name, {"nesterov": True}) for name in ("sgd", "lars", "sgdp", "adamp")]
CASES += [("muon", {"nesterov": False})]


class Setting:
    """A cohort of three models with different rates, and gradients for a few steps."""

    def __init__(self, name, more, *, models=3, width=5):
        fields = {"optimizer": name, "weight_decay": 0.01, "data": "digits", "steps": 50, **more}
        runs = [
            RunSpec(seed=s, lr=0.01 * (1 + s), width=width, depth=2, batch_size=16, **fields)
            for s in range(models)
        ]
        (cohort,) = plan_of(runs).cohorts
        self.optimizer = OPTIMIZERS[name]
        self.layout, self.key = cohort.layout, cohort.key
        steps = np.arange(STEPS)[:, None] * 3 + np.arange(models)  # each at a step of its own
        self.table = coefficient_table(self.optimizer, cohort.runs, steps)
        draw = torch.Generator().manual_seed(1)
        shape = (models, self.layout.trained)
        self.slab = torch.randn(models, self.layout.params, generator=draw) * 0.3
        self.grads = torch.randn(STEPS, *shape, generator=draw)
        # One model whose gradients are all but tangent, so that projections happen.
        p = self.slab[:, : self.layout.trained]
        along = (self.grads[:, 0] * p[0]).sum(1, keepdim=True) / p[0].square().sum()
        self.grads[:, 0] -= along * p[0]
        self.moments = [torch.zeros(shape) for _ in self.optimizer.moments]

    def kernels(self, rows=slice(None), active=None, steps=STEPS):
        slab = self.slab[rows].clone()
        moments = [m[rows].clone() for m in self.moments]
        active = torch.ones(len(slab), dtype=torch.bool) if active is None else active
        for t in range(steps):
            p, g = slab[:, : self.layout.trained], self.grads[t][rows].contiguous()
            update = Update(p, g, moments, self.table[t][:, rows], active)
            fused_step(self.optimizer, update, self.key, self.layout)
        return slab, moments

    def plain(self, dtype):
        names = self.optimizer.names(clipped=bool(self.key.get("has_clip_norm")))
        p = self.slab[:, : self.layout.trained].to(dtype)
        moments = [m.to(dtype) for m in self.moments]
        for t in range(STEPS):
            c = dict(zip(names, self.table[t].to(dtype).unbind(0), strict=True))
            g = self.grads[t].to(dtype)
            p, moments = self.optimizer.step(p, g, moments, c, self.key, self.layout)
        return p, moments


@pytest.mark.parametrize(("name", "more"), CASES, ids=str)
def test_equals_the_update_in_float64(name, more):
    setting = Setting(name, more)
    slab, moments = setting.kernels()
    wide, wide_moments = setting.plain(torch.float64)
    plain, _ = setting.plain(torch.float32)
    trained = setting.layout.trained
    start = setting.slab[:, :trained].double()
    size = (wide - start).abs().max()
    floor = max(1e-5 * size, 1e-6, 2 * (plain.double() - wide).abs().max())
    assert size > 1e-4
    assert (slab[:, :trained].double() - wide).abs().max() <= floor
    for found, wanted in zip(moments, wide_moments, strict=True):
        scale = wanted.abs().max().clamp(min=1e-3)
        assert (found.double() - wanted).abs().max() <= 3e-6 * scale
    assert same_bits(slab[:, trained:], setting.slab[:, trained:])


@pytest.mark.parametrize("name", WITH_KERNELS)
def test_rows_that_are_not_active_keep_their_bits(name):
    setting = Setting(name, {"clip_norm": 1.0})
    setting.grads[:, 1] = float("nan")
    setting.grads[:, 2, ::3] = float("inf")
    active = torch.tensor([True, False, False])
    slab, moments = setting.kernels(active=active, steps=1)
    assert same_bits(slab[1:3], setting.slab[1:3])
    for found in moments:
        assert (found[1:3] == 0).all()
    trained = setting.layout.trained
    changed = (slab != setting.slab)[:, :trained].float().mean(1)
    assert changed[0] > 0.9
    assert torch.isfinite(slab).all()


@pytest.mark.parametrize("name", WITH_KERNELS)
def test_neighbours_and_slots_do_not_matter(name):
    setting = Setting(name, {"clip_norm": 0.5})
    slab, _ = setting.kernels(steps=1)
    rows = torch.tensor([2, 0])
    alone, _ = setting.kernels(rows, steps=1)
    assert same_bits(alone, slab[rows])
    single, _ = setting.kernels(slice(1, 2), steps=1)
    assert same_bits(single, slab[1:2])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_step_is_within_two_units_of_the_last_place(name):
    setting = Setting(name, {})
    found, _ = setting.kernels(steps=1)
    wide = Setting(name, {})
    names = wide.optimizer.names(clipped=False)
    trained = wide.layout.trained
    c = dict(zip(names, wide.table[0].double().unbind(0), strict=True))
    exact, _ = wide.optimizer.step(
        wide.slab[:, :trained].double(), wide.grads[0].double(), [m.double() for m in wide.moments],
        c, wide.key, wide.layout,
    )  # fmt: skip
    step = (exact - wide.slab[:, :trained].double()).abs()
    # of the parameter, of the update, or of the larger number that they cancel from
    ulp = 2.0**-23 * torch.maximum(exact.abs(), wide.slab[:, :trained].double().abs()) + 4e-7 * step
    assert ((found[:, :trained].double() - exact).abs() <= 2 * ulp + 1e-12).all()


def test_lion_does_not_move_where_there_is_nothing():
    setting = Setting("lion", {"weight_decay": 0.0})
    setting.grads[:] = 0
    slab, _ = setting.kernels(steps=1)
    assert same_bits(slab, setting.slab)


@pytest.mark.parametrize("shape", [(3, 1, 1), (2, 5, 40), (2, 40, 5), (1, 16, 16), (2, 40, 70)])
def test_newton_schulz(normal, shape):
    u = normal(*shape)
    wanted = newton_schulz_torch(u.double())
    assert (newton_schulz(u).double() - wanted).abs().max() < 1e-4
    zero = newton_schulz(torch.zeros(shape))
    assert (zero == 0).all()
