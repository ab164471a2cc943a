"""The audit: every planted leak is found, and an honest split is not accused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan

from zoo.dataset import Zoo
from zoo.dataset.audit import CHECKS, audit
from zoo.dataset.augment import FlipSigns, Permute, Rescale, RowBatch, apply_transforms
from zoo.dataset.normalization import fit_normalization
from zoo.dataset.structure import structure_of
from zoo.errors import QueryError
from zoo.spec.run import RunSpec

RUNS, K = 8, 3


def make_store(activation="relu"):
    """Return a store of 8 runs of independent weights and answers: seeds 0-3 train, 4-7 test."""
    rng = np.random.default_rng(1)
    specs = [RunSpec(width=8, activation=activation, epochs=2, seed=s) for s in range(RUNS)]
    cohort = make_cohort(specs, checkpoints=K)
    source = MemoryCohort(cohort, np.ones((RUNS, K), bool), rng)
    source._weights *= 0.3
    return MemoryStore(make_plan((cohort,)), [source])


def parts_of(store):
    zoo = Zoo(store)
    return {"train": zoo.query("seed < 4"), "test": zoo.query("seed >= 4")}


def leaks(report):
    return {f.check for f in report.findings if f.leak}


def test_an_honest_split_is_clean():
    report = audit(parts_of(make_store()))
    assert report.clean
    assert leaks(report) == set()
    # the same hyper-parameters on both sides are said, and are no leak
    assert [f.check for f in report.findings] == ["same_cell"]
    assert "no leak found" in str(report)


def disguised(store, transforms, *, row=1):
    structure = structure_of(store.plan.cohorts[0])
    rows = torch.from_numpy(store.cohorts[0]._weights[row].copy())
    batch = RowBatch(rows, torch.zeros(K), structure, 3, 0, np.arange(K))
    return apply_transforms(batch, transforms).rows.numpy()


def same_row(store, parts):
    return {
        **parts,
        "test": parts["test"].zoo.query("seed >= 4 or (seed == 2 and checkpoint == 1)"),
    }


def trajectory(store, parts):
    zoo = parts["test"].zoo
    return {
        "train": zoo.query("seed < 4 and checkpoint != 1"),
        "test": zoo.query("seed >= 4 or (seed == 2 and checkpoint == 1)"),
    }


def same_init(store, parts):
    weights = store.cohorts[0]._weights
    weights[6, 0] = weights[1, 0]
    # the biases may differ and the kernels still be the same drawing
    bias = store.plan.cohorts[0].layout["hidden.0.linear.bias"]
    weights[6, 0, bias.offset : bias.stop] += 1
    return parts


def copy(store, parts):
    store.cohorts[0]._weights[5, 2] = store.cohorts[0]._weights[1, 2]
    return parts


def near_copy(store, parts):
    weights = store.cohorts[0]._weights
    noise = np.random.default_rng(0).normal(size=weights.shape[2]).astype(np.float32)
    weights[5, 2] = weights[1, 2] + 0.01 * 0.3 * noise
    return parts


def hidden_copy(store, parts):
    later = disguised(store, [Permute(), Rescale(3), Permute()])[1:]
    store.cohorts[0]._weights[5, 1:] = later  # its own start, and then another run's weights
    return parts


def same_answers(store, parts):
    logits = store.cohorts[0]._probe[1, 2]
    store.cohorts[0]._probe[7, 1] = logits + np.float16(0.5)  # softmax does not see a shift
    return parts


PLANTED = {
    f.__name__: f
    for f in (same_row, trajectory, same_init, copy, near_copy, hidden_copy, same_answers)
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_leak_is_found_under_its_own_name(name):
    store = make_store()
    report = audit(PLANTED[name](store, parts_of(store)))
    assert not report.clean
    assert leaks(report) == {name}
    (found,) = [f for f in report.findings if f.leak]
    assert found.count == (2 if name == "hidden_copy" else 1)
    (run_a, _), (run_b, _) = found.examples[0]
    ids = store.plan.cohorts[0].run_ids
    shared = {"same_row": (2, 2), "trajectory": (2, 2), "same_init": (1, 6), "same_answers": (1, 7)}
    assert (ids.index(run_a), ids.index(run_b)) == shared.get(name, (1, 5))
    assert CHECKS[name] in str(report)
    assert name in json.dumps(report.to_json(), allow_nan=False)


def test_signs_of_tanh_units_hide_nothing():
    store = make_store("tanh")
    store.cohorts[0]._weights[5, 1:] = disguised(store, [FlipSigns(), Permute()])[1:]
    assert leaks(audit(parts_of(store))) == {"hidden_copy"}


def test_a_normalisation_that_saw_the_test_part_is_found():
    parts = parts_of(make_store())
    honest = fit_normalization(parts["train"])
    assert audit(parts, normalization=honest).clean
    everything = fit_normalization(parts["train"].zoo.query())
    report = audit(parts, normalization=everything)
    assert leaks(report) == {"normalization"}
    (found,) = [f for f in report.findings if f.leak]
    assert (found.count, found.share) == (4, 1.0)


def test_copies_are_found_between_any_two_parts_and_structures_apart():
    store = make_store()
    zoo = Zoo(store)
    parts = {
        "train": zoo.query("seed < 3"),
        "val": zoo.query("seed in [3, 4]"),
        "test": zoo.query("seed > 4"),
    }
    store.cohorts[0]._weights[6, 1] = store.cohorts[0]._weights[4, 1]
    report = audit(parts)
    (found,) = [f for f in report.findings if f.leak]
    assert (found.check, found.parts) == ("copy", ("val", "test"))


def test_a_limit_is_said_and_a_lonely_part_refused():
    parts = parts_of(make_store())
    report = audit(parts, limit=5)
    assert dict(report.compared) == {"train": 5, "test": 5}
    assert "only 5 rows of 'test'" in str(report)
    with pytest.raises(QueryError, match="at least two parts"):
        audit({"train": parts["train"]})


def test_without_a_probe_the_other_checks_go_on():
    store = make_store()
    plan = store.plan
    store.plan = type(plan)(
        plan.name, plan.axes, type(plan.record)(probe_size=0), plan.data, plan.cohorts
    )
    report = audit(copy(store, parts_of(store)))
    assert leaks(report) == {"copy"}
    assert set(report.skipped) == {"same_answers"}
