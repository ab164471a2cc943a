"""Two processes that name, label or extend one store at once: both get theirs, nothing is lost."""

from __future__ import annotations

import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import zoo
import zoo.dataset.snapshots as snapshots
import zoo.phases.publish as publish
import zoo.stages.plan as prepare
from zoo.errors import StoreError
from zoo.phases import label_store, thresholds
from zoo.spec import Sweep
from zoo.stages.plan import prepare_store
from zoo.store import derived_columns, read_plan, read_table, table_names, verify_store

sys.path.insert(0, str(Path(__file__).parents[1] / "phases"))


@pytest.fixture
def store(tmp_path, clean):
    return shutil.copytree(clean, tmp_path / "x.zarr")


def meet(monkeypatch, module, name, count=2):
    """Let the calls of a function wait for each other, so that all of them have looked before."""
    real, barrier = getattr(module, name), threading.Barrier(count)
    met = threading.local()

    def wait(*args, **kwargs):
        found = real(*args, **kwargs)
        main = threading.current_thread() is threading.main_thread()
        if not main and not getattr(met, "once", False):
            met.once = True
            barrier.wait(60)
        return found

    monkeypatch.setattr(module, name, wait)


def at_once(*jobs):
    """Run jobs side by side; return what each returned or raised."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
        return [f.exception(120) or f.result() for f in futures]


def test_one_name_of_a_snapshot_has_one_owner(store, monkeypatch):
    views = [zoo.open(store).query(f"checkpoint == {k}") for k in (0, 1)]
    meet(monkeypatch, snapshots, "snapshot_hash")
    found = at_once(*(lambda v=v: v.snapshot("paper") for v in views))
    lost = [f for f in found if isinstance(f, StoreError)]
    (kept,) = (f for f in found if not isinstance(f, Exception))
    assert len(lost) == 1
    assert "choose another name" in str(lost[0])
    assert [s.hash for s in snapshots.list_snapshots(zoo.open(store))] == [kept.hash]
    assert len(zoo.open(store).snapshot("paper")) == kept.rows
    assert not list(store.rglob("*.tmp"))


def test_the_same_snapshot_twice_at_once_is_one(store, monkeypatch):
    view = zoo.open(store).query("checkpoint == 0")
    meet(monkeypatch, snapshots, "snapshot_hash")
    one, other = at_once(*[lambda: view.snapshot("paper")] * 2)
    assert one == other


def test_labels_number_themselves(store, monkeypatch):
    from test_label_store import publish_cells

    publish_cells(store)
    meet(monkeypatch, publish, "labels_of_store", 3)
    limits = [thresholds(values={"connected": m}) for m in (2.0, 3.0, 5.0)]
    found = at_once(*(lambda x=x: label_store(store, x) for x in limits))
    assert sorted(f.table for f in found) == ["phases-v1", "phases-v2", "phases-v3"]
    for made, wanted in zip(found, limits, strict=True):
        assert read_table(store, made.table)[1]["thresholds"] == wanted.to_json()
    assert sum(n.startswith("phases-") for n in table_names(store)) == 3
    current = {
        derived_columns(store, c.id)["phase"]["attributes"]["table"]
        for c in read_plan(store).cohorts
    }
    assert len(current) == 1  # not one version in some cohorts, and another in others
    for cohort in read_plan(store).cohorts:
        assert {"phase_v1", "phase_v2", "phase_v3"} <= derived_columns(store, cohort.id).keys()
    assert verify_store(store).problems == ()


def grown(tables, block):
    return Sweep.from_dict({**tables, "block": [*tables["block"], block]})


@pytest.mark.parametrize(
    "blocks",
    [
        ({"grid": {"width": [6], "batch_size": [32], "seed": [0, 1]}},
         {"grid": {"width": [12], "batch_size": [32], "seed": [0, 1]}}),
        # the same computation with other seeds, some of them in both
        ({"grid": {"width": [4], "batch_size": [32], "seed": [5, 6, 7]}},
         {"grid": {"width": [4], "batch_size": [32], "seed": [6, 7, 8]}}),
    ],
    ids=["other cohorts", "the same cohort"],
)  # fmt: skip
def test_extensions_add_up(store, tables, blocks, monkeypatch):
    before = {i for c in read_plan(store).cohorts for i in c.run_ids}
    sweeps = [grown(tables, block) for block in blocks]
    meet(monkeypatch, prepare, "plan_extension")
    found = at_once(*(lambda s=s: prepare_store(s, store) for s in sweeps))
    assert not [f for f in found if isinstance(f, Exception)]
    runs = [i for c in read_plan(store).cohorts for i in c.run_ids]
    assert len(runs) == len(set(runs)), "a run is planned twice"
    wanted = {run.run_id for plan in found for c in plan.cohorts for run in c.runs}
    assert before < wanted
    assert set(runs) == wanted
    assert len(wanted - before) == 4
    assert verify_store(store).problems == ()
    assert not (store / "_zoo" / "staging").exists()
