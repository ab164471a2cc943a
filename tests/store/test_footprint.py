"""What a plan says about files and folders is what is there, and it is little."""

from __future__ import annotations

import dataclasses

import fabricated_store as fab
import pytest

from zoo.store import create_store, extend_store, footprint


def there(path):
    found = list(path.rglob("*"))
    return sum(p.is_file() for p in found), 1 + sum(p.is_dir() for p in found)


def narrow(count, **options):
    """Cohorts of one model, which have the most files for what they hold."""
    cohorts = []
    for n in range(count):
        one = fab.make_cohort(f"mlp-{n}", models=1, seed=n)
        facts = {"steps": one.steps[:, :2], "epochs": one.epochs[:, :2]}
        cohorts.append(dataclasses.replace(one, **facts))
    return fab.make_plan(*cohorts, **options)


def made(tmp_path, plan):
    create_store(tmp_path / "x.zarr", plan, sweep_toml=fab.SWEEP, provenance={})
    return tmp_path / "x.zarr"


@pytest.mark.parametrize(
    ("plan", "probe"),
    [
        (fab.make_plan(), fab.Q),
        (fab.make_plan(probe=0), 0),
        (narrow(3), fab.Q),
        (narrow(2, probe=0), 0),
    ],
    ids=["tasks", "no probe", "one model", "one model, no probe"],
)
def test_the_announcement_is_true(tmp_path, monkeypatch, plan, probe):
    monkeypatch.setattr(fab, "diverges_at", lambda cohort, row: -1)
    told = footprint(plan)
    path = made(tmp_path, plan)
    assert there(path) == (told.files, told.folders)
    fab.fill(path, plan, probe=probe)
    assert there(path) == (told.trained_files, told.trained_folders)
    slabs = [p for name in ("weights", "probe_logits") for p in path.glob(f"*/{name}/c.*")]
    assert len(slabs) == told.shards


def test_what_an_extension_adds(tmp_path, monkeypatch):
    monkeypatch.setattr(fab, "diverges_at", lambda cohort, row: -1)
    small, large = narrow(2), narrow(5)
    path = made(tmp_path, small)
    fab.fill(path, small)
    before = there(path)
    new = dataclasses.replace(large, cohorts=large.cohorts[2:])
    told = footprint(new, extends=True)
    extend_store(path, large, sweep_toml="more")
    files, folders = there(path)
    assert (files - before[0], folders - before[1]) == (told.files, told.folders)
    fab.fill(path, new)
    files, folders = there(path)
    assert (files - before[0], folders - before[1]) == (told.trained_files, told.trained_folders)
    assert footprint(dataclasses.replace(large, cohorts=()), extends=True).files == 0


def test_a_cohort_has_few_small_files(tmp_path, monkeypatch):
    """40 models in 40 cohorts were 3,806 files and 3,883 folders before anything was trained."""
    monkeypatch.setattr(fab, "diverges_at", lambda cohort, row: -1)
    plan = narrow(40)
    path = made(tmp_path, plan)
    files, folders = there(path)
    assert files <= 40 * 6 + 7
    assert folders <= 40 * 6 + 3
    fab.fill(path, plan)
    files, folders = there(path)
    shards, commits = 40 * 2 * 2, 40 * 2
    assert files - shards - commits <= 40 * 12 + 7
    assert folders <= 40 * 13 + 4
