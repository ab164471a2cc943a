"""Every objective against torch's own losses, its derivatives against autograd, in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from zoo.objectives import OBJECTIVES, TARGETS
from zoo.objectives.base import Objective
from zoo.spec import RunSpec

G, B, C = 3, 7, 4
CASES = [(name, target) for name in OBJECTIVES for target in OBJECTIVES[name].takes]


def batch_of(target, seed=0, outputs=C):
    make = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(G, B, outputs, generator=make, dtype=torch.float64)
    values = {
        "class": torch.randint(0, outputs, (G, B), generator=make),
        "binary": torch.randint(0, 2, (G, B, outputs), generator=make).double(),
        "vector": torch.randn(G, B, outputs, generator=make, dtype=torch.float64),
    }
    return z, values[target]


def settings_of(objective, **fields):
    name = next(n for n in OBJECTIVES if OBJECTIVES[n] is type(objective))
    runs = [RunSpec(objective=name, **fields) for _ in range(G)]
    return {n: v.double() for n, v in objective.settings(runs).items()}


def by_torch(name, z, targets):
    """Return the mean loss of one model ``[B, C]`` as torch or a plain formula has it."""
    values = targets if targets.is_floating_point() else F.one_hot(targets, z.shape[-1]).double()
    if name == "cross_entropy":
        return torch.nn.CrossEntropyLoss()(z, targets)
    if name == "mse":
        return torch.nn.MSELoss()(z, values)
    if name == "bce":
        return torch.nn.BCEWithLogitsLoss()(z, values)
    return F.mse_loss(torch.softmax(z, -1), values, reduction="sum") / len(z)


@pytest.mark.parametrize(("name", "target"), CASES)
def test_loss_gradient_and_hessian_are_those_of_autograd(name, target):
    objective = OBJECTIVES[name](target)
    z, y = batch_of(target)
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    losses, slopes = objective.losses(z, y), objective.gradient(z, y)
    bend = objective.hessian(z, y)(v)
    assert losses.shape == (G, B)
    for g in range(G):
        assert torch.allclose(losses[g].mean(), by_torch(name, z[g], y[g]), rtol=1e-14, atol=0)
        for b in range(B):
            one, target_of = z[g, b], y[g, b]

            def loss(u, own=target_of):
                return by_torch(name, u[None], own[None])

            wanted = torch.autograd.functional.jacobian(loss, one)
            matrix = torch.autograd.functional.hessian(loss, one)
            torch.testing.assert_close(slopes[g, b], wanted, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(bend[g, b], matrix @ v[g, b], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("name", "target"), CASES)
def test_fast_forms_are_the_defaults(name, target):
    """What an entry has of its own and what ``torch.func`` makes of its loss: the same."""
    objective = OBJECTIVES[name](target)
    z, y = batch_of(target)
    v = torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    torch.testing.assert_close(objective.gradient(z, y), Objective.gradient(objective, z, y))
    default = Objective.hessian(objective, z, y)(v)
    torch.testing.assert_close(objective.hessian(z, y)(v), default)
    fields = {"label_smoothing": 0.1, "z_loss": 0.3, "softmax_temperature": 2.5}
    for own in ({}, {"label_smoothing": 0.2}, {"softmax_temperature": 0.5}, fields):
        settings = settings_of(objective, **own)
        fast = objective.step(z, y, settings)
        slow = Objective.step(objective, z, y, settings)
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-14)
        each = objective.trained(z, y, settings)
        torch.testing.assert_close(each.mean(1), fast[0], rtol=1e-12, atol=1e-14)


def test_a_new_objective_needs_nothing_but_its_loss_and_its_guess():
    class Quartic(Objective):
        takes, doc, source, loss_name = ("vector",), "", "", "fourth power"

        def losses(self, z, targets):
            return (z - targets.to(z.dtype)).pow(4).sum(-1)

        def guessing(self, targets, outputs):
            return 0.0

    z, y = batch_of("vector")
    own = Quartic("vector")
    with torch.no_grad():
        loss, dz = own.step(z, y, {})
        bend = own.hessian(z, y)(torch.ones_like(z))
    torch.testing.assert_close(dz, 4 * (z - y).pow(3) / B)
    torch.testing.assert_close(loss, (z - y).pow(4).sum(-1).mean(1))
    torch.testing.assert_close(bend, 12 * (z - y).square())


@pytest.mark.parametrize(
    "fields", [{}, {"label_smoothing": 0.1}, {"z_loss": 0.2}, {"softmax_temperature": 0.5}]
)
def test_what_cross_entropy_trains_on_is_torchs_loss_and_the_squared_log_partition(fields):
    objective = OBJECTIVES["cross_entropy"]("class")
    z, y = batch_of("class")
    found = objective.trained(z, y, settings_of(objective, **fields)).mean(1)
    smoothing, zeta = fields.get("label_smoothing", 0.0), fields.get("z_loss", 0.0)
    z = z / fields.get("softmax_temperature", 1.0)
    for g in range(G):
        wanted = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)(z[g], y[g])
        wanted = wanted + zeta * z[g].logsumexp(-1).square().mean()
        # settings are float32 in training
        torch.testing.assert_close(found[g], wanted, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("name", "target"), CASES)
def test_measures_of_a_set(name, target):
    """Means over the set, and R² as scikit-learn has it (variance weighted)."""
    objective = OBJECTIVES[name](target)
    z, y = batch_of(target)
    sums = {n: v.double().sum(1) for n, v in objective.sums(z, y).items()}
    found = objective.measured(sums, torch.full((G,), float(B), dtype=torch.float64))
    assert set(found) == set(objective.measures)
    assert ("accuracy" in found) == objective.classifies == (target != "vector")
    for g in range(G):
        assert float(found["loss"][g]) == pytest.approx(float(by_torch(name, z[g], y[g])))
        if target == "class":
            assert float(found["accuracy"][g]) == (z[g].argmax(-1) == y[g]).double().mean()
        elif target == "binary":
            cut = 0.5 if name == "mse" else 0.0
            assert float(found["accuracy"][g]) == pytest.approx(
                float(((z[g] > cut) == y[g].bool()).double().mean())
            )
        else:
            metrics = pytest.importorskip("sklearn.metrics")
            wanted = metrics.r2_score(y[g], z[g], multioutput="variance_weighted")
            assert float(found["r2"][g]) == pytest.approx(wanted, rel=1e-10)


def test_r2_of_equal_targets_is_not_known():
    objective = OBJECTIVES["mse"]("vector")
    z, y = batch_of("vector")
    same = torch.full_like(y, 0.1)
    sums = {n: v.sum(1) for n, v in objective.sums(z, same).items()}
    found = objective.measured(sums, torch.full((G,), float(B), dtype=torch.float64))
    assert torch.isnan(found["r2"]).all()
    assert torch.isfinite(found["loss"]).all()


@pytest.mark.parametrize(("name", "target"), CASES)
def test_guessing_is_the_least_loss_of_a_constant(name, target):
    """Of balanced labels, or of the targets as they are: no constant output does better."""
    objective = OBJECTIVES[name](target)
    y = torch.arange(C)[None] if target == "class" else batch_of(target)[1].flatten(0, 1)[None]
    guess = objective.guessing(y[0].numpy(), C)
    z = torch.zeros(C, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = objective.losses(z.expand(*y.shape[:2], C), y).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(closure().detach()) == pytest.approx(guess, rel=1e-6)


def test_every_objective_says_what_it_takes():
    for name in OBJECTIVES:
        kind = OBJECTIVES[name]
        assert kind.takes, name
        assert set(kind.takes) <= set(TARGETS), name
        assert kind.doc
        assert kind.source
        assert kind.loss_name


def test_probabilities():
    z, _ = batch_of("class")
    for name in OBJECTIVES:
        objective = OBJECTIVES[name](OBJECTIVES[name].takes[0])
        said = objective.said(z)
        assert torch.equal(said, torch.softmax(z, -1) if objective.softmax else z)
        if objective.softmax:
            np.testing.assert_allclose(objective.log_probabilities(z).exp(), said, rtol=1e-12)
