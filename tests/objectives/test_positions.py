"""Objectives at positions, with targets that are missing: each against autograd and torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from zoo.data import DataShape
from zoo.objectives import OBJECTIVES, objective_for
from zoo.spec import RunSpec

B, T, C = 6, 5, 4
#: (objective, what its targets are): labels at positions, or values of which some are missing.
CASES = [(n, "class") for n in OBJECTIVES] + [
    (n, k) for n in OBJECTIVES for k in ("vector", "binary") if k in OBJECTIVES[n].takes
]


def case(name, kind, *, missing=True, lead=()):
    """Return (objective, flat outputs, targets, which are there)."""
    gen = torch.Generator().manual_seed(3)
    shape = DataShape((3,), C if kind == "class" else T, (T,) if kind == "class" else (),
                      target=kind, masked=missing)  # fmt: skip
    there = torch.rand(*lead, B, T, generator=gen) < (0.6 if missing else 2)
    there[..., 0] = True
    z = torch.randn(*lead, B, shape.total, generator=gen, dtype=torch.float64)
    if kind == "class":
        y = torch.randint(0, C, (*lead, B, T), generator=gen)
        return objective_for(name, shape), z, torch.where(there, y, -1), there
    y = torch.randn(*lead, B, T, generator=gen, dtype=torch.float64)
    y = (y > 0).double() if kind == "binary" else y
    return objective_for(name, shape), z, torch.where(there, y, torch.nan), there


def by_hand(name, kind, z, y, there):
    """Return the mean over the targets of each example that are there, one by one."""
    inner = OBJECTIVES[name](kind)
    out = []
    for b in range(len(z)):
        each = []
        for t in range(T):
            if there[b, t]:
                at = z[b].view(T, -1)[t : t + 1]
                own = y[b, t : t + 1] if kind == "class" else y[b, t].view(1, 1)
                each.append(inner.losses(at, own)[0])
        out.append(torch.stack(each).mean())
    return torch.stack(out)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_loss_gradient_and_hessian(name, kind):
    objective, z, y, there = case(name, kind)
    torch.testing.assert_close(objective.losses(z, y), by_hand(name, kind, z, y, there))
    u = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(
        by_hand(name, kind, u, y, there).sum(), u, create_graph=True, materialize_grads=True
    )
    torch.testing.assert_close(objective.gradient(z, y), slope.detach())
    v = torch.randn_like(z)
    (bend,) = torch.autograd.grad((slope * v).sum(), u, materialize_grads=True)
    torch.testing.assert_close(objective.hessian(z, y)(v), bend)


def test_cross_entropy_is_torchs_with_ignored_targets():
    objective, z, y, there = case("cross_entropy", "class")
    each = F.cross_entropy(z.view(B, T, C).mT, y, ignore_index=-1, reduction="none").sum(1)
    torch.testing.assert_close(objective.losses(z, y), each / there.sum(1))


@pytest.mark.parametrize("fields", [{}, {"label_smoothing": 0.2, "softmax_temperature": 2.0}])
def test_what_training_minimises_has_the_settings(fields):
    objective, z, y, _ = case("cross_entropy", "class", missing=False, lead=(2,))
    runs = [RunSpec(**fields)] * 2
    loss, dz = objective.step(z, y, objective.settings(runs))
    s, tau = fields.get("label_smoothing", 0.0), fields.get("softmax_temperature", 1.0)
    u = z.clone().requires_grad_()
    wanted = F.cross_entropy(
        (u / tau).view(2 * B, T, C).mT, y.view(-1, T), label_smoothing=s, reduction="none"
    )
    wanted = wanted.view(2, -1).mean(1)
    torch.testing.assert_close(loss, wanted.detach())
    (slope,) = torch.autograd.grad(wanted.sum(), u)
    torch.testing.assert_close(dz, slope)


@pytest.mark.parametrize("kind", ["class", "vector"])
def test_measures_are_of_the_targets_that_are_there(kind):
    objective, z, y, there = case("mse" if kind == "vector" else "cross_entropy", kind)
    sums = {n: v.double().sum(0)[None] for n, v in objective.sums(z, y).items()}
    found = objective.measured(sums, torch.tensor([float(B)]))
    if kind == "class":
        right = (z.view(B, T, C).argmax(-1) == y) & there
        share = (right.sum(1) / there.sum(1)).double().mean()
        torch.testing.assert_close(found["accuracy"][0], share)
        return
    mean = torch.stack([y[there[:, t], t].mean() for t in range(T)])
    spread = (torch.nan_to_num(y - mean) * there).square().sum()
    left = (torch.nan_to_num(y - z) * there).square().sum()
    torch.testing.assert_close(found["r2"][0], 1 - left / spread)


def test_what_needs_one_label_per_example_says_so():
    objective = objective_for("cross_entropy", DataShape((3,), C, (T,)))
    for needs in ("labels", "probabilities"):
        assert objective.lack(needs) == "needs one label per example"
    assert objective.lack("right") == objective.lack("no probabilities") == ""
    assert objective.lack("floats").startswith("needs targets that are floats")


def test_without_positions_and_gaps_the_objective_is_itself():
    assert type(objective_for("mse", DataShape((3,), 2, target="vector"))) is OBJECTIVES["mse"]


def test_guessing_leaves_out_what_is_missing():
    objective, _, y, there = case("mse", "vector")
    wanted = torch.stack([y[there[:, t], t].var(correction=0) for t in range(T)]).mean()
    assert objective.guessing(y.numpy(), T) == pytest.approx(float(wanted))
