"""Dynamic diets: weights against their formulas, and the engine's promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from zoo.objectives import OBJECTIVES
from zoo.registry import vocabulary
from zoo.seeds import Stream, torch_uniform, torch_uniform_at, uniform
from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.train.checkpoint import ResumePoint
from zoo.train.dynamic import DYNAMICS, Presented, diet_runs
from zoo.train.plan import Task
from zoo.train.planner import plan
from zoo.train.trainer import TaskTrainer

LOSS = OBJECTIVES["cross_entropy"]("class")

METHODS = [name for name in vocabulary("dynamic") if name != "none"]
G, B, N = 3, 16, 64


def runs_of(method, count=G, **fields):
    base = {"width": 8, "batch_size": B, "epochs": 6, "train_size": N, "lr": 0.05, "momentum": 0.9}
    return [
        RunSpec(**{**base, **fields}, dynamic=method, seed=s).resolve(1437) for s in range(count)
    ]


def batch(step, seed=0):
    make = torch.Generator().manual_seed(seed)
    logits = torch.randn(G, B, 4, generator=make)
    labels = torch.randint(0, 4, (G, B), generator=make)
    ids = torch.stack([torch.randperm(N, generator=make)[:B] for _ in range(G)])
    return Presented(ids, LOSS, logits, labels, torch.full((G,), step))


def weigh(method, step, seed=0, **fields):
    runs = runs_of(method, **fields)
    entry = DYNAMICS[method]
    known = diet_runs(entry, runs, [N] * G)
    memory = entry.memory(G, N, torch.device("cpu"))
    return entry.weigh(batch(step, seed), known, memory), known


def test_chosen_random_numbers_are_those_of_the_whole():
    seed, index = torch.tensor([3, 2**32 - 1]), torch.tensor([5, 2**33])
    places = torch.tensor([[0, 7, 99, 2], [4, 4, 98, 1]])
    whole = torch_uniform(seed, Stream.DYNAMIC_DIET, index, 100)
    assert torch.equal(
        torch_uniform_at(seed, Stream.DYNAMIC_DIET, index, places), whole.gather(1, places)
    )
    assert whole[0].double().tolist() == uniform(3, Stream.DYNAMIC_DIET, 5, 100).tolist()


def test_linupper_reweighting_is_its_formula():
    (weights, _), _ = weigh("loss_reweighting", 3, reweight_temperature=0.5)
    losses = batch(3).losses().double().numpy()
    low, high = losses.min(1, keepdims=True), losses.max(1, keepdims=True)
    h = np.minimum((2 * losses - high - low) / (high - low) + 1, 1)
    wanted = np.exp(h / 0.5)
    wanted *= B / wanted.sum(1, keepdims=True)
    np.testing.assert_allclose(weights, wanted, rtol=1e-6)
    ratio = (weights.amax(1) / weights.amin(1)).numpy()
    np.testing.assert_allclose(ratio, np.exp(2), rtol=1e-5)  # bounded, whatever the losses
    (off, _), _ = weigh("loss_reweighting", 3, reweight_start=0.9)
    assert (off == 1).all()


def test_selective_backprop_takes_its_share_and_prefers_high_losses():
    taken = torch.zeros(B)
    for seed in range(60):
        runs = runs_of("selective_backprop", backprop_share=0.25)
        entry = DYNAMICS["selective_backprop"]
        runs = [r.replace(diet_seed=100 * seed + g) for g, r in enumerate(runs)]
        known = diet_runs(entry, runs, [N] * G)
        weights, _ = entry.weigh(batch(14, seed), known, ())
        assert ((weights == 0) | (weights == B / 4)).all()
        assert (weights.sum(1) == B).all()
        order = batch(14, seed).losses().argsort(1)
        taken += (weights.gather(1, order) > 0).sum(0)
    assert taken[0] == 0  # the lowest loss has probability 0
    assert taken[-4:].sum() > 3 * taken[:8].sum()
    for step in (0, 11, 13, 22):  # before, an interruption, ..., after
        (weights, _), known = weigh("selective_backprop", step)
        active = 12 <= step < 0.9 * 24 and (step + 1) % 2 != 0
        assert int(known.total[0]) == 24
        assert bool((weights == 1).all()) is not active


def test_importance_resampling_is_unbiased():
    total = torch.zeros(G, B, dtype=torch.float64)
    rounds = 1500
    entry = DYNAMICS["importance"]
    known = diet_runs(entry, runs_of("importance", resample_share=0.5), [N] * G)
    seen = batch(0)
    for step in range(rounds):
        weights, _ = entry.weigh(dataclasses.replace(seen, step=torch.full((G,), step)), known, ())
        total += weights
    error = torch.softmax(seen.outputs, -1) - torch.nn.functional.one_hot(seen.targets, 4)
    p = error.norm(dim=-1)
    p = p / p.sum(1, keepdim=True)
    spread = ((1 / p - 1) / (B / 2) / rounds).sqrt()
    assert (((total / rounds - 1).abs() / spread) < 5).all()


def test_infobatch_against_a_plain_loop():
    """The definition, example by example, over three epochs of one model."""
    (run,) = runs_of("infobatch", 1, drop_share=0.4)
    entry = DYNAMICS["infobatch"]
    known = diet_runs(entry, [run], [N])
    memory = entry.memory(1, N, torch.device("cpu"))
    make = torch.Generator().manual_seed(2)
    last = {}
    dropped = 0
    per_epoch = N // B
    for step in range(6 * per_epoch):
        epoch = step // per_epoch
        if step % per_epoch == 0:
            order = torch.randperm(N, generator=make)
            mean = np.mean(list(last.values())) if last else 0.0
            draws = uniform(int(run.diet_seed), Stream.DYNAMIC_DIET, epoch, N)
        ids = order[(step % per_epoch) * B :][:B]
        losses = torch.rand(1, B, generator=make)
        # with one output and a target of 0, the squared error is what is given
        given, zero = losses.sqrt().unsqueeze(-1), torch.zeros(1, B, 1)
        seen = Presented(
            ids.unsqueeze(0), OBJECTIVES["mse"]("vector"), given, zero, torch.tensor([step])
        )
        losses = seen.losses()
        weights, memory = entry.weigh(seen, known, memory)
        for weight, i, loss in zip(
            weights[0].tolist(), ids.tolist(), losses[0].tolist(), strict=True
        ):
            low = i in last and last[i] < mean and epoch * per_epoch < 0.875 * 6 * per_epoch
            drop = low and draws[i] < 0.4
            wanted = 0.0 if drop else 1 / 0.6 if low else 1.0
            assert weight == pytest.approx(wanted), (step, i)
            dropped += drop
            if not drop:
                last[i] = loss
    assert 30 < dropped < 120


# --- the engine's promises ---------------------------------------------------------------------


def train(runs, resume=None, *, group_rows=None, backend="eager"):
    from types import SimpleNamespace

    record = RecordSpec(steps=(5, 11), probe_size=4)
    sweep = SimpleNamespace(
        name="t", runs=lambda: tuple(runs), axes={}, record=record, paths={}, options={}
    )
    planned = plan(sweep, backend=backend)
    (cohort,) = planned.cohorts
    if group_rows:
        cohort = dataclasses.replace(cohort, group_rows=group_rows)
    trainer = TaskTrainer(planned, cohort, Task(cohort.id, 0, 0, cohort.models))
    return cohort, list(trainer.run(resume))


def bits(checkpoints, row):
    parts = [c.weights[row].tobytes() for c in checkpoints]
    return parts + [c.metrics[n][row].tobytes() for c in checkpoints for n in sorted(c.metrics)]


@pytest.mark.parametrize("method", METHODS)
def test_neighbours_and_slots_do_not_matter(method):
    runs = runs_of(method, 4)
    cohort, whole = train(runs)
    others = [r.replace(seed=50 + i, lr=5.0) for i, r in enumerate(runs[1:])]
    others = [r.replace(init_seed=60 + i, diet_seed=i) for i, r in enumerate(others)]
    mixed, changed = train([*others, runs[0]])
    rows = cohort.run_ids.index(runs[0].run_id), mixed.run_ids.index(runs[0].run_id)
    assert bits(whole, rows[0]) == bits(changed, rows[1])


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_has_the_same_bits(method):
    runs = runs_of(method, 5)
    _, whole = train(runs, group_rows=4)
    for k in (1, 2):
        c = whole[k]
        resume = ResumePoint(k, c.weights, c.diverged_step, c.resume)
        _, rest = train(runs, resume, group_rows=4)
        assert len(rest) == len(whole) - k - 1
        for row in range(5):
            assert bits(whole[k + 1 :], row) == bits(rest, row)


@pytest.mark.parametrize("method", METHODS)
def test_stacked_is_the_plain_loop(method):
    """Each model alone, an ``nn.Module`` under torch's optimizer, with the weighted loss."""
    runs = runs_of(method)
    _, stacked = train(runs)
    _, plain = train(runs, backend="reference")
    _, without = train(runs_of("none"), backend="eager")
    for a, b in zip(stacked, plain, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=2e-3, atol=2e-5)
        np.testing.assert_allclose(a.metrics["grad_norm"], b.metrics["grad_norm"], rtol=2e-3)
    assert not np.allclose(stacked[-1].weights, without[-1].weights, atol=1e-3)


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.parametrize("method", ["infobatch"])  # the one that remembers
def test_compiled_is_eager(method):
    runs = runs_of(method)
    _, eager = train(runs)
    _, compiled = train(runs, backend="compiled")
    np.testing.assert_allclose(eager[1].weights, compiled[1].weights, rtol=1e-3, atol=1e-5)


def test_the_dynamic_diet_splits_cohorts_and_leaves_other_ids_alone():
    from zoo.data import load
    from zoo.train.planner import cohort_key

    dataset, record = load("digits"), RecordSpec()
    keys = [cohort_key(runs_of(m, 1)[0], dataset, record) for m in ("none", *METHODS)]
    assert [key["dynamic"] for key in keys] == ["none", *METHODS]
    assert len({str(key) for key in keys}) == 1 + len(METHODS)


def test_a_store_goes_on_with_what_infobatch_remembers(tmp_path, monkeypatch):
    from zoo.launch.local import run
    from zoo.spec import Sweep
    from zoo.store import TaskWriter, content_hash

    base = {"data": "digits", "width": 8, "epochs": 6, "dynamic": "infobatch", "lr": 0.05}
    sweep = Sweep.from_dict(
        {"name": "i", "base": base, "grid": {"seed": [0, 1, 2]}, "record": {"epochs": [1, 3, 5]}}
    )
    assert run(sweep, tmp_path / "a.zarr", workers=0).complete
    real, commits = TaskWriter.commit, []

    def dying(self, checkpoint):
        if len(commits) == 3:
            raise KeyboardInterrupt
        commits.append(checkpoint.index)
        return real(self, checkpoint)

    monkeypatch.setattr(TaskWriter, "commit", dying)
    with pytest.raises(KeyboardInterrupt):
        run(sweep, tmp_path / "b.zarr", workers=0)
    monkeypatch.undo()
    assert run(sweep, tmp_path / "b.zarr", workers=0).complete
    assert commits == [0, 1, 2]
    assert content_hash(tmp_path / "a.zarr") == content_hash(tmp_path / "b.zarr")
