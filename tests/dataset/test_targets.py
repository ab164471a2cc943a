"""What a data set is to predict: nothing missing unasked, and class numbers that stay."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan, make_store

from zoo.architectures import NORMS
from zoo.dataset import Zoo
from zoo.errors import QueryError
from zoo.optim import OPTIMIZERS
from zoo.phases import PHASES
from zoo.spec.run import RunSpec


def zoo_of(*fields, phases=None):
    """Return a zoo with a cohort of two runs for each dict of fields."""
    rng = np.random.default_rng(0)
    cohorts = []
    for number, values in enumerate(fields):
        specs = [RunSpec(width=8, epochs=2, **{"seed": s, **values}) for s in range(2)]
        cohort = make_cohort(specs, checkpoints=2, name=f"c{number}")
        source = MemoryCohort(cohort, np.ones((2, 2), bool), rng)
        if phases is not None:
            column = np.array(phases[number])
            source.derived = {
                "phase": {
                    "dimension_names": ["model"],
                    "data_type": "string",
                    "attributes": {"long_name": "phase"},
                }
            }
            source.read_derived = {"phase": column}.__getitem__
        cohorts.append(source)
    return Zoo(MemoryStore(make_plan(tuple(c.cohort for c in cohorts)), cohorts))


@pytest.fixture
def holed():
    """A zoo whose test accuracy is unknown in five rows, and infinite in one of them."""
    zoo = Zoo(make_store(3, cuts=False))
    table = zoo.tables[0]["test_accuracy"]
    table[0, :] = np.nan
    table[1, 0] = np.inf
    return zoo


def test_numbers_that_are_missing_are_refused_with_their_count(holed):
    view = holed.query()
    with pytest.raises(QueryError) as caught:
        view.torch_dataset(targets=["test_accuracy", "width"])
    text = str(caught.value)
    assert f"5 of {len(view)} rows have no finite 'test_accuracy' (1 of them infinite" in text
    assert "test_accuracy is not None" in text
    assert "missing='drop'" in text
    # what the message advises works
    known = holed.query("test_accuracy is not None and test_accuracy < 2")
    assert len(known.torch_dataset(targets="test_accuracy")) == len(view) - 5
    dropped = view.torch_dataset(targets="test_accuracy", missing="drop")
    assert dropped.view["run_id"].tolist() == known["run_id"].tolist()
    assert all(y.isfinite().all() for _, y in dropped.loader(4))
    kept = view.torch_dataset(targets="test_accuracy", missing="keep")
    assert len(kept) == len(view)
    assert sum(int((~y.isfinite()).sum()) for _, y in kept.loader(4)) == 5


def test_pairs_without_a_target_on_either_side_are_dropped(holed):
    pairs = holed.query().pairs("epoch", "run")
    with pytest.raises(QueryError, match="rows have no finite"):
        pairs.torch_dataset(targets="test_accuracy")
    data = pairs.torch_dataset(targets="test_accuracy", missing="drop")
    sides = [view["test_accuracy"] for view in (pairs.left, pairs.right)]
    assert len(data) == int(np.isfinite(sides).all(0).sum()) < len(pairs)
    for (_, a), (_, b) in data.loader(3):
        assert torch.isfinite(torch.cat([a, b])).all()


@pytest.mark.parametrize(
    ("field", "registry", "old", "new"),
    [
        ("norm", NORMS, "none", ["batch", "layer", "rms"]),
        ("optimizer", OPTIMIZERS, "sgd", ["adam", "lion", "yogi"]),
    ],
)
def test_class_numbers_stay_when_the_zoo_grows(field, registry, old, new):
    small = zoo_of({field: old})
    grown = zoo_of({field: old}, *({field: name} for name in new))
    first = small.query().torch_dataset(targets=field)
    later = grown.query().torch_dataset(targets=field)
    assert first.classes == later.classes == tuple(sorted(registry.names()))
    number = int(first[0][1])
    assert first.classes[number] == old
    values = grown.query()[field].tolist()
    for i, name in enumerate(values):
        assert later.classes[int(later[i][1])] == name
    assert {int(later[i][1]) for i in range(len(values)) if values[i] == old} == {number}


def test_values_that_no_list_has_keep_their_numbers_in_the_order_of_the_plan():
    small = zoo_of({"score": "file:z", "keep": 0.5}, {"score": "file:y", "keep": 0.5})
    grown = zoo_of(*({"score": f"file:{name}", "keep": 0.5} for name in "zya"))
    first, later = (z.query().torch_dataset(targets="score") for z in (small, grown))
    assert first.classes[-2:] == ("file:z", "file:y")
    assert later.classes == (*first.classes, "file:a")
    cohorts = grown.query().torch_dataset(targets="cohort")
    assert cohorts.classes == ("c0", "c1", "c2")


def test_phases_and_states_have_fixed_numbers():
    small = zoo_of({}, phases=[["IV-A", "I"]])
    grown = zoo_of({}, {"lr": 0.2}, phases=[["IV-A", "I"], ["X", "II"]])
    first, later = (z.query().torch_dataset(targets="phase") for z in (small, grown))
    assert first.classes == later.classes == (*PHASES, "undetermined")
    assert [int(first[i][1]) for i in range(4)] == [4, 4, 1, 1]
    assert [int(later[i][1]) for i in range(4)] == [4, 4, 1, 1]
    status = small.query().torch_dataset(targets="status")
    assert status.classes == ("planned", "running", "done", "diverged", "failed")
    assert {int(y) for _, y in (status[i] for i in range(4))} == {2}


def test_truth_values_are_classes_also_where_other_cohorts_have_none():
    zoo = zoo_of({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, {"optimizer": "adam"})
    view = zoo.query()
    assert view["nesterov"].dtype.kind == "f"
    with pytest.raises(QueryError, match="4 of 8 rows have no finite 'nesterov'"):
        view.torch_dataset(targets="nesterov")
    data = view.torch_dataset(targets="nesterov", missing="drop")
    assert data.classes == (False, True)
    assert [y.item() for _, y in (data[i] for i in range(4))] == [1] * 4
    assert data[0][1].dtype == torch.int64


def test_a_text_column_without_a_fixed_list_warns_and_can_be_pinned():
    zoo = zoo_of({}, phases=[["IV-A", "later"]])
    with pytest.warns(UserWarning, match=r"'phase' has values that are in no fixed list") as seen:
        data = zoo.query().torch_dataset(targets="phase")
    assert seen[0].filename == __file__
    assert data.classes == (*PHASES, "undetermined", "later")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pinned = zoo.query().torch_dataset(targets="phase", classes=["later", "IV-A"])
    assert pinned.classes == ("later", "IV-A")
    assert [int(pinned[i][1]) for i in range(4)] == [1, 1, 0, 0]


def test_classes_that_no_row_has_are_warned_of():
    zoo = zoo_of({"norm": "none"}, {"norm": "batch"})
    with pytest.warns(UserWarning, match=r"no row here has norm = 'none'.*classes=\['batch'\]"):
        data = zoo.query(norm="batch").torch_dataset(targets="norm")
    assert data.classes[int(data[0][1])] == "batch"
    only = zoo.query(norm="batch").torch_dataset(targets="norm", classes=["batch"])
    assert (only.classes, int(only[0][1])) == (("batch",), 0)
    both = zoo.query().torch_dataset(targets="norm", classes=["none", "batch"])
    assert [int(both[i][1]) for i in (0, 7)] == [0, 1]


def test_numbers_with_classes_are_classes():
    zoo = zoo_of({"batch_size": 8}, {"batch_size": 16})
    data = zoo.query().torch_dataset(targets="batch_size", classes=[16, 8])
    assert [int(data[i][1]) for i in (0, 7)] == [1, 0]
    assert data[0][1].dtype == torch.int64
    two = zoo.query().torch_dataset(
        targets=["batch_size", "status"],
        classes={"batch_size": [16, 8], "status": ["done"]},
    )
    assert two.classes == {"batch_size": (16, 8), "status": ("done",)}
    assert two[0][1].tolist() == [1, 0]


def test_missing_text_is_refused_dropped_or_ignored_by_losses():
    zoo = zoo_of({}, phases=[["", "II"]])
    with pytest.raises(
        QueryError, match=r"2 of 4 rows have no 'phase'; leave them out.*phase != ''"
    ):
        zoo.query().torch_dataset(targets="phase")
    assert len(zoo.query("phase != ''").torch_dataset(targets="phase")) == 2
    dropped = zoo.query().torch_dataset(targets="phase", missing="drop")
    assert [dropped.classes[int(y)] for _, y in (dropped[0], dropped[1])] == ["II", "II"]
    kept = zoo.query().torch_dataset(targets="phase", missing="keep")
    (_, y) = next(iter(kept.loader(4)))
    logits = torch.randn(4, len(kept.classes), generator=torch.Generator().manual_seed(0))
    want = torch.nn.functional.cross_entropy(logits[2:], y[2:])
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, y), want)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"targets": "norm", "classes": ["batch"]}, "8 of 8 rows have a 'norm' that is not among"),
        ({"targets": "norm", "classes": "none"}, "give a list of classes"),
        ({"targets": "norm", "classes": ["none", "none"]}, "each class once"),
        ({"targets": "norm", "classes": {"nrom": ["none"]}}, "'nrom' is not a target"),
        ({"targets": ["norm", "status"], "classes": ["none"]}, "with 2 targets give a dict"),
        ({"targets": "norm", "missing": "skip"}, "allowed: 'error', 'drop', 'keep'"),
        ({"targets": [3]}, "3 is not the name of a column"),
        ({"targets": ["norm", "width"]}, "numbers and classes cannot share one tensor"),
    ],
)
def test_options_that_have_no_sense_are_refused(options, says):
    zoo = zoo_of({"lr": 0.1}, {"lr": 0.2})
    with pytest.raises(QueryError, match=says):
        zoo.query().torch_dataset(**options)
