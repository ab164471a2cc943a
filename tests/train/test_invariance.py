"""Neighbours do not matter: a model's bits under permutation, grouping, dummies and divergence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from engine_cases import same_bits, specs, train, trajectories

from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.train.checkpoint import ResumePoint

KINDS = {
    "mlp": {},
    "mlp-batch-adamw": {"norm": "batch", "optimizer": "adamw", "lr": 1e-3},
    "cnn": {"architecture": "cnn"},
    "cnn-group-dropout": {"architecture": "cnn", "norm": "group", "dropout": 0.2},
    "cnn-batch": {"architecture": "cnn", "norm": "batch"},
    "rmsprop-noise": {"optimizer": "rmsprop", "lr": 1e-4, "label_noise": 0.2},
    "cnn-ghost-standardized": {"architecture": "cnn", "norm": "ghost_batch", "virtual_batch": 8,
                               "weight_transform": "standardize"},
    "cnn-evonorm-clipped": {"architecture": "cnn", "norm": "evonorm_s0", "clip_norm": 0.5,
                            "weight_decay": 0.1, "decay_mask": "kernels"},
}  # fmt: skip


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    return KINDS[request.param]


def assert_same(found, wanted):
    assert set(found) <= set(wanted)
    for run_id, values in found.items():
        assert same_bits(values, wanted[run_id]), run_id


COMPILED = ["mlp", "cnn", "cnn-group-dropout", "mlp-batch-adamw"]


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        *((name, "eager") for name in KINDS),
        *(pytest.param(name, "compiled", marks=pytest.mark.compile) for name in COMPILED),
    ],
)
def test_slots_groups_and_dummies(name, backend):
    kind = KINDS[name]
    runs = specs(11, **kind)
    wanted = trajectories(*train(runs, backend=backend, group_rows=8))
    order = np.random.default_rng(0).permutation(len(runs))
    shuffled = [runs[i] for i in order]
    assert_same(trajectories(*train(shuffled, backend=backend, group_rows=8)), wanted)
    # other company, then alone among seven dummies
    assert_same(trajectories(*train(runs[3:6], backend=backend, group_rows=8)), wanted)
    assert_same(trajectories(*train(runs[7:8], backend=backend, group_rows=8)), wanted)


def test_runs_of_different_lengths_share_a_cohort():
    """Each model stops at its own steps, with the bits it would have alone."""
    record = RecordSpec(every_epochs=1, probe_size=0)
    runs = [
        RunSpec(seed=s, width=16, batch_size=32, train_size=size, epochs=3, lr=0.05)
        for s, size in enumerate((96, 200, 330, 64))
    ]
    cohort, checkpoints = train(runs, record=record, group_rows=4)
    assert cohort.models == 4
    assert cohort.steps.shape == (4, 4)
    assert len({int(s) for s in cohort.steps[:, -1]}) == 4
    wanted = trajectories(cohort, checkpoints)
    for run in runs:
        assert_same(trajectories(*train([run], record=record, group_rows=4)), wanted)


def test_a_diverging_neighbour_changes_nothing(kind):
    calm = specs(4, **kind)
    wild = specs(5, **{**kind, "lr": 1e30})[4:]
    wanted = trajectories(*train(calm, group_rows=8))
    cohort, checkpoints = train([*calm[:2], *wild, *calm[2:]], group_rows=8)
    found = trajectories(cohort, checkpoints)
    row = cohort.run_ids.index(next(i for i in cohort.run_ids if i not in wanted))
    lost = found.pop(cohort.run_ids[row])
    assert_same(found, wanted)
    last = checkpoints[-1]
    if last.diverged_step[row] >= 0:
        assert np.isnan(last.weights[row]).all()
        assert np.isnan(last.probe[row]).all()
        assert np.isnan(lost).any()
    assert (np.delete(last.diverged_step, row) == -1).all()


def test_divergence_is_recorded_with_its_step():
    runs = [*specs(2), *specs(3, lr=1e25)[2:]]
    cohort, checkpoints = train(runs)
    row = int(np.argmax([run.lr for run in cohort.runs]))
    step = int(checkpoints[-1].diverged_step[row])
    assert 1 <= step <= 4
    for c, at in zip(checkpoints, cohort.steps[row], strict=True):
        assert np.isnan(c.weights[row]).all() == (at >= step)
        assert np.isnan(c.metrics["test_loss"][row]) == (at >= step)
    assert checkpoints[0].diverged_step[row] == -1


@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_resume_gives_the_same_bits(kind, backend):
    runs = specs(5, **kind)
    cohort, whole = train(runs, backend=backend, group_rows=4)
    for k in range(len(whole) - 1):
        point = ResumePoint(k, whole[k].weights, whole[k].diverged_step, whole[k].resume)
        _, rest = train(runs, backend=backend, group_rows=4, resume=point)
        assert [c.index for c in rest] == list(range(k + 1, len(whole)))
        assert_same(trajectories(cohort, rest), trajectories(cohort, whole[k + 1 :]))


def test_resume_after_divergence():
    runs = [*specs(2), *specs(3, lr=1e25)[2:]]
    cohort, whole = train(runs)
    k = len(whole) - 2
    point = ResumePoint(k, whole[k].weights, whole[k].diverged_step, whole[k].resume)
    _, rest = train(runs, resume=point)
    assert_same(trajectories(cohort, rest), trajectories(cohort, whole[k + 1 :]))
    assert (rest[-1].diverged_step == whole[-1].diverged_step).all()


def test_each_seed_matters_and_only_for_its_own_part():
    base = {"width": 16, "steps": 4, "batch_size": 16, "label_noise": 0.2, "dropout": 0.1,
                "augmentation": "noise", "lr": 0.05}  # fmt: skip
    names = ["init_seed", "order_seed", "augment_seed", "dropout_seed", "noise_seed"]
    runs = [RunSpec(**base), *(RunSpec(**base, **{name: 7}) for name in names)]
    assert len({r.run_id for r in runs}) == 6
    cohort, checkpoints = train(runs)
    rows = {r.run_id: checkpoints[-1].weights[i] for i, r in enumerate(cohort.runs)}
    first = {r.run_id: checkpoints[0].weights[i] for i, r in enumerate(cohort.runs)}
    ids = [r.resolve(1437).run_id for r in runs]
    for a, b in itertools.combinations(ids, 2):
        assert not same_bits(rows[a], rows[b])
    for name, run_id in zip(names, ids[1:], strict=True):
        assert same_bits(first[run_id], first[ids[0]]) == (name != "init_seed")


def test_bfloat16_computes_less_exactly_and_keeps_a_float32_slab():
    runs = specs(3, norm="layer")
    half = [RunSpec(**{**r.to_dict(), "precision": "bfloat16"}) for r in runs]
    _, full = train(runs)
    _, low = train(half)
    gap = np.abs(full[-1].weights - low[-1].weights).max()
    assert 0 < gap < 0.05
    assert low[-1].weights.dtype == np.float32
    assert low[-1].metrics["train_loss"] == pytest.approx(full[-1].metrics["train_loss"], rel=0.1)
