"""Splits: never a run on two sides, nothing that depends on order, and files that are checked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan
from hypothesis import given
from hypothesis import strategies as st

from zoo.dataset import Zoo
from zoo.dataset.splits import Split, group_keys, split_by, split_where
from zoo.errors import QueryError, SpecError, StoreCorruptError, StoreError
from zoo.spec.run import RunSpec
from zoo.train.cells import cells_of


def make_zoo(seeds=range(6), *, axes=True):
    """Return a zoo of 2 widths × 2 batch sizes × seeds; both widths share initialisation seeds."""
    rng = np.random.default_rng(0)
    cohorts = []
    for width in (8, 16):
        specs = [
            RunSpec(width=width, batch_size=b, epochs=2, seed=s) for b in (4, 8) for s in seeds
        ]
        cohort = make_cohort(specs, checkpoints=3)
        cohorts.append(MemoryCohort(cohort, np.ones((len(specs), 3), bool), rng))
    fields = {"load": "width", "temperature": "batch_size"} if axes else {}
    return Zoo(MemoryStore(make_plan(tuple(c.cohort for c in cohorts), axes=fields), cohorts))


@pytest.fixture(scope="module")
def zoo():
    return make_zoo()


BY = {
    "run": ("run_id",),
    "seed": ("init_seed",),
    "cell": ("cell",),
    "architecture": ("width",),
    ("batch_size", "seed"): ("batch_size", "seed"),
}


@pytest.mark.parametrize("by", list(BY), ids=str)
def test_what_shares_a_value_stays_together(zoo, by):
    fractions = {"train": 0.5, "test": 0.5}
    views = split_by(zoo.query(), by, fractions=fractions).views(zoo.query())
    sides = [
        {tuple(row[c] for c in BY[by]) for row in view} for view in (views["train"], views["test"])
    ]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert len(views["train"]) + len(views["test"]) == len(zoo.query())
    runs = [set(view["run_id"]) for view in views.values()]
    assert not runs[0] & runs[1]


def test_two_kinds_of_groups_are_held_apart(zoo, tmp_path):
    fractions = {"train": 0.5, "test": 0.5}
    split = split_by(zoo.query(), "cell", apart="seed", fractions=fractions)
    views = split.views(zoo.query())
    for columns in (("width", "batch_size"), ("init_seed",)):
        sides = [{tuple(row[c] for c in columns) for row in v} for v in views.values()]
        assert sides[0]
        assert sides[1]
        assert not sides[0] & sides[1]
    assert {k: len(v) for k, v in split.parts.items()} == {"train": 6, "test": 6}
    assert len(split.unused) == 12
    assert "unused 12" in str(split)
    split.save(tmp_path / "s.json")
    assert Split.load(tmp_path / "s.json") == split
    # runs that came later are still an error
    with pytest.raises(QueryError, match="are not in the split"):
        split_by(zoo.query("seed < 5"), "cell", apart="seed").views(zoo.query())
    # of two runs that differ in both, both or none fit, as the hashes fall
    two = zoo.query("width == 8 and batch_size == 4 and seed == 0 or load == 16 and seed == 1")
    two = two[(two["width"] == 8) | (two["batch_size"] == 8)]
    wrong = []
    for seed in range(12):
        try:
            split_by(two, "cell", apart="seed", fractions=fractions, seed=seed)
        except SpecError as error:
            wrong.append(str(error))
    assert 0 < len(wrong) < 12
    assert all("no run is left for 'test'" in text for text in wrong)


def test_shares_are_met_and_every_part_has_something(zoo):
    split = split_by(zoo.query(), "run", fractions={"train": 0.75, "val": 0.125, "test": 0.125})
    assert {k: len(v) for k, v in split.parts.items()} == {"train": 18, "val": 3, "test": 3}
    three = split_by(zoo.query("width == 8"), "cell", fractions={"train": 0.99, "test": 0.01})
    assert {k: len(v) for k, v in three.parts.items()} == {"train": 6, "test": 6}


@given(order=st.permutations(range(24)), seed=st.integers(0, 5))
def test_the_assignment_is_a_function_of_runs_and_seed_alone(order, seed):
    view = make_zoo.zoo.query(epoch=-1)
    first = split_by(view, "seed", seed=seed)
    assert split_by(view.take(list(order)), "seed", seed=seed) == first
    assert split_by(view.take(list(order)), "seed", seed=seed).hash == first.hash


make_zoo.zoo = make_zoo()


def test_seeds_give_different_splits(zoo):
    assert len({split_by(zoo.query(), seed=s).hash for s in range(8)}) == 8


def test_regions_are_held_out_whole(zoo):
    split = split_where(zoo.query(), test="width >= 16", val="width < 16 and seed == 5")
    views = split.views(zoo.query())
    assert set(views["test"]["width"]) == {16}
    assert set(views["val"]["seed"]) == {5}
    assert set(views["train"]["width"]) == {8}
    assert set(views["train"]["seed"]) == {0, 1, 2, 3, 4}
    with pytest.raises(QueryError, match="no run of the view meets"):
        split_where(zoo.query(), test="width == 99")
    with pytest.raises(SpecError, match="is in 'a' and in 'b'"):
        split_where(zoo.query(), a="width == 8", b="batch_size == 4")


def test_a_split_goes_through_a_file_and_any_change_of_it_is_seen(zoo, tmp_path):
    split = split_by(zoo.query(), "seed", seed=3)
    split.save(tmp_path / "s.json")
    assert Split.load(tmp_path / "s.json") == split
    text = (tmp_path / "s.json").read_text()
    run = split.parts["test"][0]
    (tmp_path / "s.json").write_text(text.replace(run, run[::-1], 1))
    with pytest.raises(StoreCorruptError, match="checksum; remove it, and make it again with"):
        Split.load(tmp_path / "s.json")
    (tmp_path / "s.json").unlink()
    with pytest.raises(StoreError, match=r"cannot read .*s\.json: No such file"):
        Split.load(tmp_path / "s.json")
    split_by(zoo.query(), "seed", seed=3).save(tmp_path / "s.json")
    assert Split.load(tmp_path / "s.json") == split
    assert json.loads(text)["hash"] == split.hash


def test_runs_that_came_later_are_not_guessed_at(zoo):
    split = split_by(zoo.query("seed < 5"), "seed")
    with pytest.raises(QueryError, match="4 runs of the view are not in the split"):
        split.views(zoo.query())
    views = split.views(zoo.query(), drop_unknown=True)
    assert sum(map(len, views.values())) == len(zoo.query("seed < 5"))


def test_impossible_splits_say_all_that_is_wrong(zoo):
    with pytest.raises(SpecError) as error:
        split_by(zoo.query("width == 8"), "architecture", fractions={"train": 0.5, "test": 0.6})
    assert len(error.value.problems) == 2
    with pytest.raises(SpecError, match="is in 'a' and in 'b'"):
        Split({"a": ("x", "y"), "b": ("x",)})
    with pytest.raises(QueryError, match="unknown column 'widht'"):
        split_by(zoo.query(), "widht")


def test_a_cell_is_the_same_in_splits_audits_and_phases(zoo):
    """Runs that differ in a field which is no axis are of different cells."""
    view = zoo.query()
    keys = group_keys(view, "cell")
    of_run = dict(zip(view["run_id"].tolist(), keys.tolist(), strict=True))
    cells = cells_of(zoo.plan)
    assert len(cells) == len(set(keys.tolist()))
    for cell in cells:
        assert len({of_run[run] for run in cell.run_ids}) == 1
        assert set(zoo.query(cell=cell.id)["run_id"].tolist()) == set(cell.run_ids)
    assert len(group_keys(zoo.query("width == 99"), "cell")) == 0
