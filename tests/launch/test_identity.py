"""Files of the user's are known by their content: in run ids, on extension, and on the workers."""

from __future__ import annotations

import numpy as np
import pytest
from own_files import TRAIN, sweep_of, write_data

import zoo
from zoo.errors import DataError, SpecError
from zoo.launch.local import run
from zoo.spec import RunSpec, Sweep
from zoo.stages.kept import MASK
from zoo.stages.plan import prepare_store
from zoo.stages.train import run_task
from zoo.store import content_hash, derived_columns, read_plan, task_states
from zoo.train.contents import Contents
from zoo.train.planner import plan

RANK = np.arange(float(TRAIN))


@pytest.fixture
def files(tmp_path):
    """Return a function that writes data (by its seed) and scores, and their paths."""
    paths = {"npz:wells": str(tmp_path / "w.npz"), "file:s.npy": str(tmp_path / "s.npy")}

    def write(seed=0, scores=RANK):
        write_data(tmp_path / "w.npz", seed)
        np.save(tmp_path / "s.npy", scores)
        return paths

    return write


def ids(sweep, **kwargs):
    return [i for c in plan(sweep, **kwargs).cohorts for i in c.run_ids]


def on_scores(paths, keep=(0.5,), **base):
    return Sweep(
        name="own",
        base={"data": "npz:wells", "epochs": 1, "width": 4, "batch_size": 20,
              "score": "file:s.npy", **base},
        grid={"keep": list(keep)}, paths=paths, record={"probe_size": 4},
        diet={"baseline": False},
    )  # fmt: skip


def test_runs_on_data_of_the_package_have_no_hash_and_no_column_for_one():
    (cohort,) = plan(Sweep(name="d", base={"epochs": 20}, grid={"seed": [0]})).cohorts
    assert cohort.run_ids == (RunSpec().resolve(1437).run_id,)
    assert "data_sha256" not in cohort.fields


def test_other_content_is_another_run_and_another_path_is_not(files, tmp_path):
    first = ids(sweep_of(paths=files(0)))
    moved = {"npz:wells": str(write_data(tmp_path / "elsewhere.npz", 0))}
    assert ids(sweep_of(paths=moved)) == first
    assert not set(ids(sweep_of(paths=files(1)))) & set(first)


def test_other_scores_are_another_run_and_another_path_is_not(files, tmp_path):
    first = ids(on_scores(files()))
    np.savetxt(tmp_path / "other.txt", RANK)
    other = {**files(), "file:other.txt": str(tmp_path / "other.txt")}
    assert ids(on_scores(other, score="file:other.txt")) == first
    assert not set(ids(on_scores(files(scores=-RANK)))) & set(first)


def test_extending_with_changed_files_is_refused_in_one_error(files, tmp_path):
    store = tmp_path / "z.zarr"
    assert run(on_scores(files()), store, workers=0, backend="eager").complete
    before = content_hash(store)
    files(1, -RANK)
    more = on_scores(files(1, -RANK), keep=(0.5, 0.4))
    with pytest.raises(DataError) as refused:
        run(more, store, workers=0)
    text = str(refused.value)
    assert "2 problems" in text
    for part in ("data = 'npz:wells'", "score = 'file:s.npy'", "put the original back",
                 "data = 'npz:OTHER'", "score = 'file:OTHER'", "another --out"):  # fmt: skip
        assert part in text
    assert content_hash(store) == before


def test_the_advice_works_new_scores_under_a_name_of_their_own(files, tmp_path):
    store = tmp_path / "z.zarr"
    run(on_scores(files()), store, workers=0, backend="eager")
    np.save(tmp_path / "t.npy", -RANK)
    paths = {**files(), "file:t.npy": str(tmp_path / "t.npy")}
    assert run(on_scores(paths, score="file:t.npy"), store, workers=0).trained == 1
    kept = {}
    for cohort in zoo.open(store).source.cohorts:
        mask = np.unpackbits(cohort.read_derived("kept_mask"), axis=1)
        kept |= {r.score: np.flatnonzero(mask[i]) for i, r in enumerate(cohort.cohort.runs)}
    assert kept["file:s.npy"].tolist() == list(range(30, 60))  # the highest scores
    assert kept["file:t.npy"].tolist() == list(range(30))


def test_data_that_change_after_planning_are_not_trained_on(files, tmp_path):
    store = tmp_path / "z.zarr"
    planned = prepare_store(sweep_of(paths=files(0)), store)
    files(1)
    with pytest.raises(DataError, match="has changed since the zoo was planned"):
        run(store, workers=0)  # one error, before any task
    for task in planned.tasks():
        with pytest.raises(DataError, match="has changed"):  # as a worker meets it
            run_task(store, planned, task, paths=files(1))
    assert not any(state.committed for state in task_states(store))
    files(0)
    assert run(store, workers=0).complete


def test_scores_that_change_after_planning_choose_nothing(files, tmp_path):
    store = tmp_path / "z.zarr"
    planned = prepare_store(on_scores(files()), store)
    files(0, -RANK)
    with pytest.raises(DataError, match=r"score 'file:s\.npy' has changed since"):
        run(store, workers=0)
    assert all(MASK not in derived_columns(store, c.id) for c in planned.cohorts)
    files()
    assert run(store, workers=0).complete


def test_data_that_change_after_planning_do_not_choose_either(files, tmp_path):
    """The masks of a diet come from labels; a store's labels are those that it was planned with."""
    from zoo.launch.stages import run_stage
    from zoo.stages.score import OWN

    store = tmp_path / "z.zarr"
    prepare_store(on_scores(files(0), balance="class"), store)
    with pytest.raises(DataError, match="has changed"):
        run_stage(store, "scoring", OWN, workers=0, paths=files(1))


def test_a_process_that_saw_the_old_file_trains_on_the_new_one(files, tmp_path):
    """Two stores, one path, one process: nothing of the first file is left in its memory."""
    stores = []
    for seed in (0, 1):
        stores.append(tmp_path / f"{seed}.zarr")
        run(sweep_of(paths=files(seed)), stores[-1], workers=0, backend="eager")
    alone = tmp_path / "alone.npz"
    write_data(alone, 1)
    run(sweep_of(paths={"npz:wells": str(alone)}), tmp_path / "c.zarr", workers=0, backend="eager")
    a, b, c = (zoo.open(s).query(epoch=-1).weights() for s in (*stores, tmp_path / "c.zarr"))
    np.testing.assert_array_equal(b, c)
    assert not np.array_equal(a, b)


def test_a_store_older_than_the_hashes_is_extended_and_not_trained_again(
    files, tmp_path, monkeypatch
):
    store = tmp_path / "z.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(Contents, "hashes", lambda self, run: {})
        run(on_scores(files()), store, workers=0, backend="eager")
    old = read_plan(store)
    assert all(r.data_sha256 is r.score_sha256 is None for c in old.cohorts for r in c.runs)
    assert run(on_scores(files()), store, workers=0).trained == 0
    with pytest.raises(DataError) as refused:
        run(on_scores(files(1, -RANK), keep=(0.5, 0.4)), store, workers=0)
    assert "2 problems" in str(refused.value)
    assert run(on_scores(files(), keep=(0.5, 0.4)), store, workers=0).trained == 1
    assert read_plan(store).cohorts[0].run_ids == old.cohorts[0].run_ids


def test_a_sweep_may_pin_what_a_file_holds(files):
    paths = files()
    found = plan(sweep_of(paths=paths)).cohorts[0].runs[0].data_sha256
    pinned = ids(sweep_of(paths=paths, data_sha256=found))
    assert pinned == ids(sweep_of(paths=paths))
    with pytest.raises(SpecError, match=r"data_sha256.*not the content that the file has"):
        plan(sweep_of(paths=files(1), data_sha256=found))
    with pytest.raises(SpecError, match=r"no run reads it.*data = 'npz'"):
        Sweep(name="d", base={"data_sha256": found}, grid={"seed": [0]})


def test_everything_missing_is_in_one_error(tmp_path):
    sweep = Sweep(
        name="m", base={"epochs": 1},
        block=[{"base": {"data": "npz:a"}, "grid": {"seed": [0]}},
               {"base": {"data": "npz:b"}, "grid": {"seed": [0]}},
               {"base": {"score": "file:s.npy"}, "grid": {"seed": [0]}}],
    )  # fmt: skip
    with pytest.raises(FileNotFoundError) as missing:
        plan(sweep)
    for part in ("'npz:a'", "'npz:b'", "'file:s.npy'", "ZOO_DATA_NPZ_A", "--data 'npz:b=PATH'"):
        assert part in str(missing.value)
