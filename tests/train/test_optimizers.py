"""Every optimizer: neighbours, interruption, compilation, zero norms; and rivals of the twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_cases import same_bits, specs, train, trajectories

from zoo.architectures import build
from zoo.architectures.layout import Layout, Segment
from zoo.data import DataShape
from zoo.optim import DECAY_MASKS, OPTIMIZERS
from zoo.optim.base import clip_by_norm
from zoo.optim.masks import column_mask
from zoo.optim.muon import orthogonalized
from zoo.spec.run import RunSpec
from zoo.train.checkpoint import ResumePoint

#: Rates at which a few steps of each stay calm.
RATES = {"sgd": 0.02, "sgdp": 0.02, "lars": 0.5, "adadelta": 0.5, "adagrad": 0.01}
#: Filters whose rows fill no vector register evenly.
ODD = {"architecture": "cnn", "width": 6, "norm": "group", "norm_groups": 2}


@pytest.fixture(params=OPTIMIZERS, ids=str)
def optimizer(request):
    return request.param


def few(count, name, **fields):
    lr = RATES.get(name, 1e-3)
    return [
        RunSpec(**{**run.to_dict(), "lr": lr * (1 + run.seed % 3), "weight_decay": 0.01})
        for run in specs(count, **{"optimizer": name, "norm": "layer", **fields})
    ]


def assert_kept(found, wanted):
    assert all(same_bits(found[run_id], values) for run_id, values in wanted.items())


def test_neighbours_slots_dummies_and_divergence_change_no_bit(optimizer):
    calm = few(5, optimizer, **ODD)
    wanted = trajectories(*train(calm, group_rows=8))
    assert all(np.isfinite(values).any() for values in wanted.values())
    wild = RunSpec(**{**few(6, optimizer, **ODD)[5].to_dict(), "lr": 1e30})
    mixed = [calm[3], wild, *calm[:3], calm[4]]
    cohort, checkpoints = train(mixed, group_rows=8)
    found = trajectories(cohort, checkpoints)
    assert set(found) > set(wanted)
    assert_kept(found, wanted)
    alone = trajectories(*train(calm[2:3], group_rows=8))
    assert_kept(wanted, alone)


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_an_interruption_changes_no_bit(optimizer, backend):
    runs = few(2, optimizer, steps=5)
    _, whole = train(runs, backend=backend, group_rows=2)
    k = len(whole) - 2
    point = ResumePoint(k, whole[k].weights, whole[k].diverged_step, whole[k].resume)
    _, rest = train(runs, backend=backend, group_rows=2, resume=point)
    assert same_bits(rest[-1].weights, whole[-1].weights)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["lars", "muon", "adamp"])
def test_compiled_equals_eager_and_no_slot_matters(name):
    """Odd sizes, so that no two models' tensors lie alike in memory."""
    runs = few(3, name, width=13, clip_norm=1.0, decay_mask="kernels", activation="gelu")
    _, eager = train(runs, group_rows=4)
    cohort, compiled = train(runs, backend="compiled", group_rows=4)
    for a, b in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-5, atol=1e-6)
    again = trajectories(*train(runs[::-1], backend="compiled", group_rows=4))
    assert_kept(again, trajectories(cohort, compiled))


def slabs(seed=0, models=3):
    """Return a network's layout and float32 slabs of parameters and gradients."""
    layout = build(
        RunSpec(architecture="cnn", width=6, norm="group", norm_groups=2), DataShape((1, 8, 8), 4)
    )
    gen = torch.Generator().manual_seed(seed)
    shape = (models, layout.layout.trained)
    return layout.layout, *(torch.randn(shape, generator=gen) for _ in range(2))


def stepped(name, p, g, layout, **fields):
    """Return the parameters and moments of the slab step after one step from zero moments."""
    rule = OPTIMIZERS[name]
    runs = [RunSpec(optimizer=name, lr=0.1, **fields)] * len(p)
    one = np.ones((1, len(p)))
    table = rule.table(runs, 0.1 * one, one.astype(np.int64))
    names = rule.names(clipped=runs[0].clip_norm is not None)
    columns = [np.broadcast_to(table[n], one.shape)[0].astype(np.float32) for n in names]
    c = {n: torch.from_numpy(v)[:, None] for n, v in zip(names, columns, strict=True)}
    moments = [torch.zeros_like(p) for _ in rule.moments]
    shared = {
        "nesterov": runs[0].nesterov,
        "decay_mask": runs[0].decay_mask,
        "has_clip_norm": runs[0].clip_norm is not None,
    }
    return rule.step(p, g, moments, c, shared, layout)


def test_no_gradient_and_no_decay_leave_the_parameters(optimizer):
    layout, p, _ = slabs()
    new, moments = stepped(optimizer, p, torch.zeros_like(p), layout)
    assert torch.equal(new, p)
    assert all(torch.isfinite(m).all() for m in moments)


def test_zero_weights_take_finite_steps(optimizer):
    """Norms of zero, in numerator and denominator alike, are no division by zero."""
    layout, p, g = slabs()
    p = torch.where(torch.arange(len(p))[:, None] == 0, 0.0, p)
    g = torch.where(torch.arange(len(p))[:, None] == 1, 0.0, g)
    new, moments = stepped(optimizer, p, g, layout, weight_decay=0.1)
    assert torch.isfinite(new).all()
    assert all(torch.isfinite(m).all() for m in moments)
    assert not torch.equal(new[0], p[0])


def test_masked_decay_moves_only_what_is_decayed(optimizer):
    layout, p, g = slabs()
    free = stepped(optimizer, p, g, layout)[0]
    whole = stepped(optimizer, p, g, layout, weight_decay=0.1)[0]
    for mask, roles in (("kernels", {"kernel"}), ("no_norms", {"kernel", "bias"})):
        masked = stepped(optimizer, p, g, layout, weight_decay=0.1, decay_mask=mask)[0]
        for s in layout.segments:
            part = slice(s.offset, s.stop)
            wanted = whole if s.role in roles else free
            assert torch.equal(masked[:, part], wanted[:, part]), s.name
    assert not torch.equal(whole, free)


def test_masks_name_roles_of_the_layout():
    layout = Layout(
        tuple(
            Segment(role, (2,), 2 * i, role)
            for i, role in enumerate(("kernel", "bias", "norm_weight", "norm_bias", "buffer"))
        )
    )
    found = {n: column_mask(layout, DECAY_MASKS[n], torch.empty(0)).tolist() for n in DECAY_MASKS}
    assert found["all"] == [True] * 8
    assert found["kernels"] == [True] * 2 + [False] * 6
    assert found["no_norms"] == [True] * 4 + [False] * 4


def test_clipping_equals_torch_for_each_model():
    _, _, g = slabs()
    limits = torch.tensor([[0.5], [1e6], [3.0]])
    found = clip_by_norm(g, limits)
    for row, limit, raw in zip(found, limits, g, strict=True):
        p = torch.nn.Parameter(torch.zeros_like(raw))
        p.grad = raw.clone()
        torch.nn.utils.clip_grad_norm_([p], float(limit))
        torch.testing.assert_close(row, p.grad, rtol=1e-6, atol=0)
    assert torch.equal(found[1], g[1])


# --- Muon against torch's own ----------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 4), (1, 7), (16, 3)])
def test_newton_schulz_orthogonalizes(shape):
    gen = torch.Generator().manual_seed(0)
    u = torch.randn(3, *shape, generator=gen)
    values = torch.linalg.svdvals(orthogonalized(u).double())
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    left, _, right = torch.linalg.svd(u.double(), full_matrices=False)
    polar = left @ right
    found = orthogonalized(u).double()
    # the same singular vectors: UᵀXV is diagonal
    inner = left.mT @ found @ right.mT
    off = inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    assert float(off.abs().max()) < 1e-4
    assert float((found - polar).norm() / polar.norm()) < 0.4
    from torch.optim._muon import _zeropower_via_newtonschulz

    for one, x in zip(found, u, strict=True):  # torch's own is in bfloat16
        theirs = _zeropower_via_newtonschulz(x, (3.4445, -4.775, 2.0315), 5, 1e-7)
        torch.testing.assert_close(one, theirs.double(), rtol=0, atol=3e-2)


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_torch_muon_and_adamw(nesterov, monkeypatch):
    """Torch's Muon on the hidden matrices, kept in float32, and torch's AdamW on the rest."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    run = RunSpec(optimizer="muon", lr=0.01, weight_decay=0.1, nesterov=nesterov)
    shapes = [(8, 5), (8,), (6, 8), (6,), (3, 6), (3,)]
    gen = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(s, generator=gen)) for s in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    twin = OPTIMIZERS["muon"].torch(ours, run)
    muon = torch.optim.Muon(
        [theirs[0], theirs[2]], lr=0.01, weight_decay=0.1, momentum=0.95, nesterov=nesterov,
        adjust_lr_fn="match_rms_adamw",
    )  # fmt: skip
    rest = [theirs[i] for i in (1, 3, 4, 5)]
    adamw = torch.optim.AdamW(rest, lr=0.01, weight_decay=0.1)
    for _ in range(10):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=gen)
            b.grad = a.grad.clone()
        for o in (twin, muon, adamw):
            o.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
