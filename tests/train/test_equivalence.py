"""Stacked training against plain modules under torch.optim, and against torch's own schedules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_cases import specs, train

from zoo.architectures import ARCHITECTURES, NORMS
from zoo.optim import OPTIMIZERS
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.train.schedule import SCHEDULES, learning_rates

RECORD = RecordSpec(steps=(1, 7), probe_size=4)
# A bias in front of a norm has a gradient of pure rounding noise (about 1e-9), which the default
# eps of 1e-8 would blow up to whole steps, in torch as here: there is nothing to compare then.
HYPER = {
    "sgd": {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"lr": 3e-4, "weight_decay": 1e-3, "eps": 1e-4},
    "adamw": {"lr": 3e-4, "weight_decay": 1e-2, "eps": 1e-4},
    "rmsprop": {"lr": 1e-4, "momentum": 0.5, "weight_decay": 1e-3, "eps": 1e-4},
    "lion": {"lr": 1e-4, "weight_decay": 1e-2},
    "lars": {"lr": 0.02, "weight_decay": 1e-3, "trust": 0.3, "nesterov": True},
    "lamb": {"lr": 3e-4, "weight_decay": 1e-2, "eps": 1e-4},
    "sgdp": {"lr": 0.02, "weight_decay": 1e-3},
    "adamp": {"lr": 3e-4, "weight_decay": 1e-2, "eps": 1e-4},
    "muon": {"lr": 3e-4, "weight_decay": 1e-2, "eps": 1e-4},
    "adagrad": {"lr": 1e-3, "weight_decay": 1e-3, "eps": 1e-4},
    "adadelta": {"lr": 0.1, "weight_decay": 1e-3, "eps": 1e-4},
    "adamax": {"lr": 3e-4, "weight_decay": 1e-3, "eps": 1e-4},
    "amsgrad": {"lr": 3e-4, "weight_decay": 1e-3, "eps": 1e-4},
    "nadam": {"lr": 3e-4, "weight_decay": 1e-3, "eps": 1e-4},
    "radam": {"lr": 3e-4, "weight_decay": 1e-3, "eps": 1e-4},
    "signum": {"lr": 1e-4, "weight_decay": 1e-2},
    "adabelief": {"lr": 3e-4, "weight_decay": 1e-2, "eps": 1e-6},
    "yogi": {"lr": 3e-4, "weight_decay": 1e-2},
}


#: Optimizers that are crossed with every norm; the others with those that leave no gradient to
#: rounding alone: a sign, or a rate from a norm, would make whole steps of it.
EVERYWHERE = ("sgd", "adam", "adamw", "rmsprop")


def cases():
    for family in ARCHITECTURES:
        for norm in NORMS:
            if family == "mlp" and norm in ("instance", "frn"):
                continue
            for optimizer in OPTIMIZERS:
                if optimizer in EVERYWHERE or norm in ("none", "group"):
                    yield family, norm, optimizer


@pytest.mark.parametrize(("family", "norm", "optimizer"), list(cases()))
def test_stacked_equals_torch_optim(family, norm, optimizer):
    """Every optimizer × norm: 20 steps, per-model rates, within 1e-6 of training alone."""
    data = "mnist1d" if norm == "instance" else "digits"
    # Well-conditioned on purpose: a relu at its kink, or a norm over four nearly equal values,
    # turns a rounding difference into another gradient, in torch as here.
    runs = specs(3, steps=20, architecture=family, norm=norm, optimizer=optimizer, data=data,
                 activation="gelu", norm_groups=2, virtual_batch=64,
                 batch_size=128 if norm == "ghost_batch" else 64, **HYPER[optimizer])  # fmt: skip
    _check(runs)


@pytest.mark.parametrize(
    "fields",
    [
        {"optimizer": "sgd", "nesterov": True, "momentum": 0.8},
        {"optimizer": "sgd", "momentum": 0.0},
        {"dropout": 0.3},
        {"dropout": 0.3, "architecture": "cnn"},
        {"label_smoothing": 0.2, "label_noise": 0.3},
        {"train_size": 200},
        {"augmentation": "shift", "architecture": "cnn"},
        {"augmentation": "noise"},
        {"schedule": "one_cycle"},
        {"schedule": "cosine", "warmup": 0.2},
        {"init": "orthogonal", "init_scale": 0.7},
        {"data": "mnist1d", "architecture": "cnn"},
        {"activation": "gelu", "depth": 3},
        {
            "weight_transform": "standardize",
            "norm": "layer",
            "activation": "gelu",
            "batch_size": 64,
            "lr": 0.01,
        },
        {"weight_transform": "standardize", "architecture": "cnn", "activation": "gelu"},
        {"clip_norm": 0.3, "activation": "gelu"},
        {"z_loss": 0.1, "label_smoothing": 0.1},
        {"decay_mask": "kernels", "weight_decay": 0.3},
        {
            "decay_mask": "no_norms",
            "weight_decay": 0.3,
            "optimizer": "adamw",
            "eps": 1e-4,
            "lr": 1e-3,
        },
        {
            "decay_mask": "kernels",
            "weight_decay": 0.3,
            "optimizer": "muon",
            "eps": 1e-4,
            "lr": 1e-3,
        },
        {"decay_mask": "kernels", "weight_decay": 0.3, "optimizer": "lars", "trust": 0.5},
        {"optimizer": "lars", "nesterov": False, "weight_decay": 0.0, "activation": "gelu"},
        {"optimizer": "muon", "nesterov": False, "eps": 1e-4, "lr": 1e-3},
        {"optimizer": "sgdp", "nesterov": True, "weight_decay": 0.1, "activation": "gelu"},
        {"optimizer": "adamp", "nesterov": True, "eps": 1e-4, "weight_decay": 0.1, "lr": 1e-3},
    ],
    ids=lambda f: "-".join(map(str, f.values())),
)
def test_options_equal_torch(fields):
    _check(specs(3, steps=20, **{"lr": 0.03, "norm": "layer", **fields}))


def _check(runs):
    cohort, stacked = train(runs, record=RECORD)
    _, alone = train(runs, record=RECORD, backend="reference")
    assert cohort.steps[0].tolist() == [0, 1, 7, 20]
    trained = cohort.layout.trained
    for a, b in zip(stacked, alone, strict=True):
        # running statistics carry the rounding of a mean over the batch
        for part, atol in ((slice(trained), 1e-6), (slice(trained, None), 3e-6)):
            np.testing.assert_allclose(a.weights[:, part], b.weights[:, part], 1e-6, atol)
        for name in a.metrics:
            np.testing.assert_allclose(
                a.metrics[name], b.metrics[name], rtol=2e-4, atol=2e-6, err_msg=name
            )
        for name in a.resume if runs[0].momentum != 0 else ():  # torch keeps no buffer then
            scale = np.abs(b.resume[name]).max()
            np.testing.assert_allclose(a.resume[name], b.resume[name], rtol=0, atol=1e-4 * scale)
    assert np.isfinite(stacked[-1].weights).all()
    assert not np.array_equal(stacked[-1].weights, stacked[0].weights)


def _torch_rates(scheduler, optimizer, total):
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("total", [1, 2, 10, 37, 880])
def test_schedules_equal_torch(total):
    def fresh():
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)

    lr = torch.optim.lr_scheduler
    steps = np.arange(total)

    def rates(**fields):
        return learning_rates(RunSpec(lr=0.3, steps=total, **fields), steps)

    o = fresh()
    want = _torch_rates(lr.CosineAnnealingLR(o, T_max=total, eta_min=0.03), o, total)
    np.testing.assert_allclose(rates(schedule="cosine", lr_final=0.1), want, rtol=1e-9)
    o = fresh()
    period = max(1, round(total / 3))
    want = _torch_rates(lr.StepLR(o, period, gamma=0.2), o, total)
    np.testing.assert_allclose(rates(schedule="step", lr_gamma=0.2), want, rtol=1e-9)
    if total >= 10:
        o = fresh()
        want = _torch_rates(
            lr.OneCycleLR(o, 0.3, total_steps=total, cycle_momentum=False), o, total
        )
        np.testing.assert_allclose(rates(schedule="one_cycle"), want, rtol=1e-9)
    assert (rates(schedule="constant") == 0.3).all()


def test_warmup_rises_to_the_peak():
    run = RunSpec(lr=1.0, steps=100, schedule="constant", warmup=0.1)
    rates = learning_rates(run, np.arange(100))
    assert (np.diff(rates[:11]) > 0).all()
    assert rates[0] == pytest.approx(1 / 11)
    assert (rates[10:] == 1).all()


def test_every_schedule_stays_within_the_peak():
    for name in SCHEDULES:
        rates = learning_rates(RunSpec(lr=0.5, steps=50, schedule=name), np.arange(50))
        assert rates.max() <= 0.5 * (1 + 1e-12)
        assert (rates > 0).all()
