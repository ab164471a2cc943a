"""The scoring stage: resumable, deduplicated, the same bits however it ran; and training by it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr

import zoo
from zoo.data import load, noisy_labels, prepare
from zoo.diets.demand import make_job
from zoo.diets.keep import kept_examples
from zoo.diets.ranks import noise_precision, rank_correlation, score_correlations, seed_agreement
from zoo.diets.scoring import score_block
from zoo.diets.selection import Choosing, select
from zoo.errors import DataError, MissingDataError, SpecError, TrainError
from zoo.launch.diets import score_first
from zoo.launch.local import run
from zoo.launch.reproduce import reproduce
from zoo.spec import RunSpec, Sweep
from zoo.stages import open_stage
from zoo.stages.kept import MASK, kept_of_task
from zoo.stages.plan import prepare_store
from zoo.stages.score import OWN, SCORING, jobs_of
from zoo.store import (
    content_hash,
    derived_columns,
    publish,
    read_derived,
    read_plan,
    read_table,
    table_names,
)
from zoo.train.trainer import TaskTrainer

BASE = {
    "data": "digits", "width": 8, "epochs": 4, "lr": 0.05, "momentum": 0.9, "score_epoch": 2,
    "score_seeds": 6, "batch_size": 64,
}  # fmt: skip
TABLES = {
    "name": "diet",
    "base": BASE,
    "block": [
        {"grid": {"score": ["el2n", "grand"], "keep": [0.25, 0.5], "seed": [0, 1]}},
        {"base": {"score": "memorization", "keep": 0.5, "budget": "epochs"}},
        {"base": {"score": "input_norm", "keep": 0.5, "balance": "class", "train_size": 800}},
        {"base": {"score": "forgetting", "scorer": "width=4", "keep": 0.5, "select": "stratified",
                  "label_noise": 0.2, "noise_seed": 3}},
    ],
    "record": {"every_epochs": 2, "probe_size": 4},
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("diets") / "diet.zarr"
    summary = run(Sweep.from_dict(TABLES), path, workers=0)
    assert summary.complete
    return path


def masks(path):
    """Return run id -> bool ``[N]``."""
    out = {}
    for cohort in read_plan(path).cohorts:
        if MASK in derived_columns(path, cohort.id):
            bits = np.unpackbits(read_derived(path, cohort.id, MASK), axis=1)
            out |= {r: bits[i, :1437] > 0 for i, r in enumerate(cohort.run_ids)}
    return out


def test_each_scoring_model_is_trained_once(store):
    jobs = jobs_of(read_plan(store), OWN)
    assert len(jobs) == 3  # el2n and grand share theirs; subsets; the noisy small one
    assert {f"scores-{job.id}" for job in jobs} == {n for n in table_names(store) if "scores" in n}
    parts = SCORING.parts(store, OWN)
    assert len(parts) == 6
    assert sum(part.models for part in parts) == 18


def test_tables_say_what_they_are(store):
    for job in jobs_of(read_plan(store), OWN):
        arrays, facts = read_table(store, f"scores-{job.id}")
        assert facts["data"] == load("digits").fingerprint
        assert facts["scorer"] == job.scorer.identity()
        assert "torch" in facts["fingerprint"]["versions"]
        assert arrays["epochs"].tolist() == [2.0]
        if not job.subsets:
            assert arrays["el2n"].shape == (6, 1, 1437)
            assert 0 <= arrays["el2n"].min() <= arrays["el2n"].max() <= np.sqrt(2) + 1e-6


def test_masks_are_what_the_specs_and_the_scores_say(store):
    plan, found = read_plan(store), masks(store)
    tables = {t[1]["family"]: t for t in (read_table(store, n) for n in table_names(store))}
    assert len(found) == sum(c.models for c in plan.cohorts)
    for cohort in plan.cohorts:
        for spec in cohort.runs:
            kept = np.flatnonzero(found[spec.run_id])
            assert len(kept) == spec.examples
            if spec.score not in ("el2n", "grand"):
                continue
            (arrays,) = [a for a, _ in tables.values() if "grand" in a]
            mean = arrays[spec.score][:, 0].astype(np.float64).mean(0)
            rule = Choosing(keep=spec.keep, seed=spec.diet_seed)
            wanted = select(mean, load("digits").train_y, rule)
            np.testing.assert_array_equal(kept, wanted)


def test_a_pool_and_its_noise_come_before_the_choice(store):
    (spec,) = [r for c in read_plan(store).cohorts for r in c.runs if r.score == "input_norm"]
    dataset = load("digits")
    kept = np.flatnonzero(masks(store)[spec.run_id])
    pool = set(kept_examples(RunSpec(train_size=800).resolve(1437), dataset, None))
    assert len(pool) == 800
    assert set(kept) <= pool
    counts = np.bincount(dataset.train_y[kept], minlength=10)
    assert (abs(counts - np.bincount(dataset.train_y[list(pool)]) / 2) < 1).all()


def test_what_is_measured_on_kept_and_dropped(store):
    """Held against an evaluation of the plain module, image by image."""
    opened = zoo.open(store)
    view = opened.query("epoch == -1 and score == 'forgetting'")
    (run_id,) = view.column("run_id").tolist()
    spec = opened.run(run_id).spec
    dataset = load("digits")
    labels = noisy_labels(dataset.train_y, 10, noise=0.2, seed=3)
    assert (labels != dataset.train_y).sum() == 287
    kept = masks(store)[run_id]
    module = view.model(0).double().eval()
    x = torch.from_numpy(np.array(prepare(dataset, spec.normalization).train_x)).double()
    with torch.no_grad():
        logits = module(x)
    right = logits.argmax(1).numpy() == labels
    losses = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(labels), reduction="none"
    ).numpy()
    for name, wanted in {
        "train_accuracy": right[kept].mean(), "dropped_accuracy": right[~kept].mean(),
        "full_train_accuracy": right.mean(), "train_loss": losses[kept].mean(),
        "dropped_loss": losses[~kept].mean(), "full_train_loss": losses.mean(),
    }.items():  # fmt: skip
        assert float(view.column(name)[0]) == pytest.approx(wanted, rel=1e-4), name


def test_histograms_and_queries(store):
    opened = zoo.open(store)
    view = opened.query("kept_smallest_class < 5 and step == 0")
    for cohort in read_plan(store).cohorts:
        counts = read_derived(store, cohort.id, "kept_classes")
        examples = read_derived(store, cohort.id, "kept_examples")
        np.testing.assert_array_equal(counts.sum(1), examples)
        np.testing.assert_array_equal(examples, [r.examples for r in cohort.runs])
    assert len(view) == sum(
        int((read_derived(store, c.id, "kept_smallest_class") < 5).sum())
        for c in read_plan(store).cohorts
    )
    cohort = read_plan(store).cohorts[0]
    group = xr.open_zarr(store / cohort.id, chunks=None)
    assert group[MASK].dims == ("model", "mask_byte")
    assert group[MASK].attrs["examples"] == 1437


def test_workers_and_interruptions_change_no_bit(store, tmp_path, monkeypatch):
    """Scoring dies in its third part and training in its first; again, with processes."""
    path = tmp_path / "diet.zarr"
    done = []
    real = SCORING.run_part

    def dying(*args):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(*args)

    monkeypatch.setattr(type(SCORING), "run_part", lambda self, *args: dying(*args))
    with pytest.raises(KeyboardInterrupt):
        run(Sweep.from_dict(TABLES), path, workers=0)
    monkeypatch.undo()
    assert table_names(path) == ()
    assert masks(path) == {}
    # nobody trains on a diet that has not been chosen
    cohort = read_plan(path).cohorts[0]
    with pytest.raises(TrainError, match="have not been chosen"):
        kept_of_task(path, cohort, next(iter(cohort.tasks())))
    summary = run(Sweep.from_dict(TABLES), path, workers=2)
    assert summary.complete
    assert content_hash(path) == content_hash(store)
    assert {r: m.tobytes() for r, m in masks(path).items()} == {
        r: m.tobytes() for r, m in masks(store).items()
    }
    for name in table_names(store):
        a, b = read_table(store, name)[0], read_table(path, name)[0]
        assert {k: v.tobytes() for k, v in a.items()} == {k: v.tobytes() for k, v in b.items()}


def test_running_again_does_nothing(store, monkeypatch):
    before = content_hash(store)
    monkeypatch.setattr(type(SCORING), "run_part", lambda *args: pytest.fail("scored again"))
    assert run(Sweep.from_dict(TABLES), store, workers=0).trained == 0
    assert content_hash(store) == before


def test_extending_scores_only_what_is_new_and_moves_no_mask(store, tmp_path, monkeypatch):
    path = tmp_path / "diet.zarr"
    shutil.copytree(store, path)
    before = masks(path)
    parts = []
    real = type(SCORING).run_part

    def counted(self, where, settings, key, paths):
        parts.append(key)
        return real(self, where, settings, key, paths)

    monkeypatch.setattr(type(SCORING), "run_part", counted)
    more = {**TABLES, "block": [*TABLES["block"], {"base": {"score": "el2n", "keep": 0.4}}]}
    assert run(Sweep.from_dict(more), path, workers=0).complete
    assert parts == []  # the same models, epochs and seeds: all there
    wider = {**more, "block": [*more["block"], {"base": {"score": "loss", "width": 6}}]}
    assert run(Sweep.from_dict(wider), path, workers=0).complete
    assert len(parts) == 2
    after = masks(path)
    assert len(after) == len(before) + 4  # with their random baselines
    assert all(np.array_equal(after[r], before[r]) for r in before)


def test_reproduce_trains_on_the_same_examples(store):
    run_id = next(iter(masks(store)))
    assert reproduce(store, run_id).matches


def test_a_trainer_without_the_choice_refuses():
    from zoo.train.plan import Task
    from zoo.train.planner import plan

    found = plan(Sweep.from_dict({"name": "a", "base": {**BASE, "score": "el2n"}}))
    cohort = next(c for c in found.cohorts if c.runs[0].score == "el2n" or c.models > 1)
    with pytest.raises(TrainError, match="zoo score STORE"):
        TaskTrainer(found, cohort, Task(cohort.id, 0, 0, cohort.models))


def job_of(scores=("el2n",), epochs=(2,), seeds=5, **fields):
    spec = RunSpec(**{k: v for k, v in {**BASE, **fields}.items() if "score" not in k})
    (job,) = make_job(spec.resolve(1437), 1437, scores, epochs, seeds)
    return job


def test_scores_hang_on_the_model_alone():
    """Not on how many models, scores or epochs are asked for."""
    a = score_block(job_of(), 0, paths={})
    b = score_block(job_of(("el2n", "grand", "forgetting"), (1, 2, 4), seeds=2), 0, paths={})
    assert a["el2n"].shape == (5, 1, 1437)
    assert b["el2n"].shape == (2, 3, 1437)
    assert a["el2n"][:2, 0].tobytes() == b["el2n"][:, 1].tobytes()
    assert np.isnan(b["forgetting"][:, 0]).all()  # one epoch has no transition
    assert np.isfinite(b["forgetting"][:, 1:]).all()


def test_a_model_that_diverges_does_not_count(caplog):
    from zoo.diets.keep import mean_score

    values = np.array([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]])
    np.testing.assert_array_equal(mean_score(values, 3), [2, 3])
    with pytest.raises(DataError, match="all 1 scoring models diverged"):
        mean_score(values[1:2], 1)


def test_a_score_from_a_file(tmp_path):
    values = np.random.default_rng(0).normal(size=1437)
    np.save(tmp_path / "mine.npy", values)
    name = f"file:{tmp_path / 'mine.npy'}"
    base = {k: v for k, v in BASE.items() if not k.startswith("score")}
    sweep = Sweep.from_dict({"name": "f", "base": {**base, "score": name, "keep": 0.3}})
    path = tmp_path / "f.zarr"
    assert run(sweep, path, workers=0).complete
    found = {r.run_id: r for c in read_plan(path).cohorts for r in c.runs if r.score == name}
    (run_id,) = found
    kept = np.flatnonzero(masks(path)[run_id])
    assert values[kept].min() >= np.sort(values)[-431]
    attributes = [derived_columns(path, c.id)[MASK]["attributes"] for c in read_plan(path).cohorts]
    assert any(len(a["score-files"].get(name, "")) == 64 for a in attributes)
    missing = Sweep.from_dict({"name": "f", "base": {**base, "score": "file:no.npy"}})
    with pytest.raises(MissingDataError, match="no such file"):
        run(missing, tmp_path / "g.zarr", workers=0)


def test_a_bad_demand_shows_before_a_store_is_made(tmp_path):
    bad = Sweep.from_dict({"name": "b", "base": {**BASE, "score": "el2n", "score_epoch": 9}})
    with pytest.raises(SpecError, match="0 to 4"):
        run(bad, tmp_path / "b.zarr", workers=0)
    assert not (tmp_path / "b.zarr").exists()


def test_the_stage_is_one_of_the_stages(tmp_path):
    assert open_stage("scoring", tmp_path, OWN, {}).stage is SCORING
    assert open_stage("diet-metrics", tmp_path, {}, {}).name == "diet-metrics"


# --- agreement -----------------------------------------------------------------------------------


def test_rank_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 200).astype(float), rng.normal(size=200)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b)[0])
    assert np.isnan(rank_correlation(np.zeros(200), b))
    both = score_correlations({"a": a, "b": b, "c": -b})
    assert both["b", "c"] == pytest.approx(-1)
    rows = np.stack([b + 0.1 * rng.normal(size=200) for _ in range(4)])
    rows = np.concatenate([rows, np.full((1, 200), np.nan)])
    said = seed_agreement(rows)
    assert 0.9 < said["one"] < said["halves"] < 1


def test_noise_precision_is_a_count():
    wrong = np.zeros(100, dtype=bool)
    wrong[:10] = True
    score = np.arange(100.0)
    assert noise_precision(-score, wrong) == {"base": 0.1, "precision": 1.0, "lift": 10.0}
    assert noise_precision(score, wrong)["precision"] == 0


def test_masks_of_all_cohorts_are_published_in_one_go(tmp_path, monkeypatch):
    """Each publication reads the whole plan: one per cohort took 203 s for 128 of them."""
    swept = {
        "name": "wide",
        "base": {"steps": 0, "width": 4, "depth": 1, "score": "input_norm", "keep": 0.9},
        "grid": {"batch_size": [2, 3, 4]},
        "diet": {"baseline": False},
    }
    path = tmp_path / "wide.zarr"
    prepare_store(Sweep.from_dict(swept), path)
    calls = []
    monkeypatch.setattr(
        "zoo.stages.score.publish", lambda *args, **kw: calls.append(1) or publish(*args, **kw)
    )
    plan = read_plan(path)
    assert len(plan.cohorts) == 3
    score_first(path, plan, workers=0)
    assert len(calls) == 1
    assert len(masks(path)) == plan.models
