"""The loop forms that torch does not have, against the package pytorch_optimizer."""

from __future__ import annotations

import pytest
import torch

from zoo.optim import OPTIMIZERS
from zoo.spec.run import RunSpec

rivals = pytest.importorskip("pytorch_optimizer", reason="pip install pytorch-optimizer")

#: A matrix, filters, and a vector that is neither decayed nor adapted.
SHAPES = [(6, 9), (4, 3, 3, 3), (7,)]
BETAS = {"betas": (0.9, 0.999)}

#: optimizer -> (run-spec fields, the rival, its arguments)
CASES = {
    "lion": ({}, "Lion", {"betas": (0.9, 0.99)}),
    "lars": ({"trust": 0.02, "eps": 1e-12}, "LARS", {"trust_coefficient": 0.02, "momentum": 0.9}),
    "lars-nesterov": (
        {"optimizer": "lars", "trust": 0.02, "eps": 1e-12, "nesterov": True},
        "LARS",
        {"trust_coefficient": 0.02, "momentum": 0.9, "nesterov": True},
    ),
    "sgdp": ({"momentum": 0.9}, "SGDP", {"momentum": 0.9}),
    "sgdp-nesterov": (
        {"optimizer": "sgdp", "momentum": 0.9, "nesterov": True, "projection_delta": 0.3},
        "SGDP",
        {"momentum": 0.9, "nesterov": True, "delta": 0.3},
    ),
    "adamp": ({}, "AdamP", {**BETAS}),
    "adamp-nesterov": (
        {"optimizer": "adamp", "nesterov": True, "projection_delta": 3.0},
        "AdamP",
        {**BETAS, "nesterov": True, "delta": 3.0},
    ),
    "adabelief": ({"eps": 1e-6}, "AdaBelief", {**BETAS, "eps": 1e-6}),
    "yogi": ({}, "Yogi", {**BETAS, "initial_accumulator": 0.0}),
    "signum": ({}, "SignSGD", {"momentum": 0.9}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_twin_equals_rival(case, decay):
    fields, name, arguments = CASES[case]
    run = RunSpec(**{"optimizer": case, "lr": 0.01, "weight_decay": decay, **fields})
    gen = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(s, generator=gen).double()) for s in SHAPES]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    twin = OPTIMIZERS[run.optimizer].torch(_groups(ours), run)
    rival = getattr(rivals, name)(_groups(theirs), lr=0.01, weight_decay=decay, **arguments)
    for _ in range(12):
        for a, b in zip(ours, theirs, strict=True):
            # partly along the weights, so that some steps are projected and some are not
            along = torch.rand(1, generator=gen).double() * a.detach()
            a.grad = torch.randn(a.shape, generator=gen).double() + along
            b.grad = a.grad.clone()
        twin.step()
        rival.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_lamb_is_adams_step_at_the_length_of_the_weights():
    """The step of torch's own Adam at rate 1, decay added, then rescaled (the rival leaves the
    bias corrections out).
    """
    run = RunSpec(optimizer="lamb", lr=0.01, weight_decay=0.1)
    gen = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(s, generator=gen).double()) for s in SHAPES]
    twin = OPTIMIZERS["lamb"].torch(ours, run)
    steps = [torch.nn.Parameter(torch.zeros(s, dtype=torch.float64)) for s in SHAPES]
    adam = torch.optim.Adam(steps, lr=1.0, eps=1e-6)
    wanted = [p.detach().clone() for p in ours]
    for _ in range(12):
        for p, step in zip(ours, steps, strict=True):
            p.grad = torch.randn(p.shape, generator=gen).double()
            step.grad = p.grad.clone()
            step.data.zero_()
        twin.step()
        adam.step()
        for w, step in zip(wanted, steps, strict=True):
            u = -step.detach() + 0.1 * w
            w -= 0.01 * u * (w.norm() / u.norm() if w.dim() > 1 else 1.0)
    for p, w in zip(ours, wanted, strict=True):
        torch.testing.assert_close(p.detach(), w, rtol=1e-9, atol=1e-9)


def _groups(params):
    return [{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.0}]
