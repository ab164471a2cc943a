"""``zoo.run`` on one machine: again, further, elsewhere, with failures; always the same bits."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo.stages.train as worker_module
from zoo.cli.main import main
from zoo.errors import DataError, SpecError, StoreError, TrainError
from zoo.launch.gpus import gpu_seats
from zoo.launch.local import run
from zoo.launch.reproduce import reproduce
from zoo.launch.status import store_status
from zoo.spec import Sweep
from zoo.stages.plan import prepare_store
from zoo.store import StoreReader, content_hash, is_store, read_plan, task_states, verify_store
from zoo.store.locks import hold
from zoo.train.backends import can_compile
from zoo.train.trainer import TaskTrainer


def files(path):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(sweep, tmp_path, workers, clean_hash, tasks):
    summary = run(sweep, tmp_path / "z.zarr", workers=workers)
    assert summary.complete
    assert not summary.stopped
    assert (summary.models, summary.trained, summary.tasks) == (82, 82, tasks)
    assert summary.workers == workers
    assert summary.to_json()["status"] == {"done": 82}
    assert content_hash(tmp_path / "z.zarr") == clean_hash


def test_plan_says_how_many_files_there_will_be(sweep, sweep_file, clean, tmp_path, capsys):
    def there(path):
        found = list(path.rglob("*"))
        return sum(p.is_file() for p in found), 1 + sum(p.is_dir() for p in found)

    assert main(["plan", str(sweep_file), "--calibrate", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["files"]
    prepare_store(sweep, tmp_path / "new.zarr")
    assert there(tmp_path / "new.zarr") == (told["files"], told["folders"])
    assert there(clean) == (told["trained_files"], told["trained_folders"])
    assert main(["plan", str(sweep_file), "--calibrate", "0"]) == 0
    shown = capsys.readouterr().out
    assert f"{told['files']:,} in {told['folders']:,} folders; once trained" in shown


def test_again_does_nothing(sweep, sweep_file, clean):
    before = files(clean)
    for source in (sweep, sweep_file, clean):
        summary = run(source, None if source is clean else clean)
        assert summary.complete
        assert (summary.trained, summary.tasks, summary.workers) == (0, 0, 0)
    assert {p: v for p, v in files(clean).items() if p in before} == before


def test_again_clears_what_a_killed_extension_left(sweep, clean, tmp_path):
    path = shutil.copytree(clean, tmp_path / "z.zarr")
    staging, stray = path / "_zoo" / "staging", path / "_zoo" / f"plan-0001.json.{'a' * 32}.tmp"
    staging.mkdir()
    stray.touch()
    before = set(files(clean))
    with hold(path / "_zoo/locks/extend.lock"):  # somebody is at work, and it is his
        run(sweep, path, workers=0)
        assert staging.exists()
    run(sweep, path, workers=0)
    assert not staging.exists()
    assert not stray.exists()
    names = {file.relative_to(path) for file in files(path)}
    assert names - {file.relative_to(clean) for file in before} <= {Path("_zoo/locks/extend.lock")}


def test_progress_ends_at_all_models(sweep, tmp_path):
    told = []
    run(sweep, tmp_path / "z.zarr", workers=0, progress=told.append)
    done = [state.done for state in told]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == told[-1].models == 82
    assert len(set(done)) > 20  # it moves with checkpoints, not only with tasks
    assert [state.ended for state in told].count(True) == 1
    assert told[-1].ended


def test_limit_then_the_rest(sweep, tmp_path, clean_hash):
    path = tmp_path / "z.zarr"
    first = run(sweep, path, workers=0, limit=2)
    assert first.tasks == 2
    assert first.stopped
    assert not first.complete
    second = run(path, workers=0)
    assert second.complete
    assert first.trained + second.trained == 82
    assert content_hash(path) == clean_hash
    assert run(sweep, path, limit=0).complete


def test_more_runs_extend_and_move_nothing(tables, sweep, tmp_path):
    path = tmp_path / "z.zarr"
    run(sweep, path, workers=0)
    cohorts = [c.id for c in read_plan(path).cohorts]
    before = {p: v for p, v in files(path).items() if any(c in p.parts for c in cohorts)}
    more = copy.deepcopy(tables)
    more["block"][0]["grid"]["seed"] = [0, 1, 2, 3, 4]
    more["block"][0]["grid"]["width"] = [4, 8, 12]
    summary = run(Sweep.from_dict(more), path, workers=0)
    assert summary.complete
    assert summary.models == 3 * 2 * 5 + 70
    assert summary.trained == summary.models - 82
    after = files(path)
    assert {p: after[p] for p in before} == before
    assert [c.id for c in read_plan(path).cohorts][: len(cohorts)] == cohorts
    # the smaller sweep is in the store, and finds nothing to do
    assert run(sweep, path).trained == 0
    assert verify_store(path).problems == ()


def test_a_store_keeps_its_checkpoint_plan_and_backend(tables, sweep, clean):
    other = Sweep.from_dict({**tables, "record": {"steps": [0, 24], "probe_size": 8}})
    with pytest.raises(SpecError, match="checkpoint plan") as error:
        run(other, clean, backend="reference")
    assert len(error.value.problems) == 2
    assert "another backend" in str(error.value)
    with pytest.raises(SpecError, match="keeps the backend"):
        run(clean, backend="reference")
    with pytest.raises(SpecError, match="finished where it is"):
        run(clean, clean.with_name("other.zarr"))
    assert not is_store(clean.with_name("other.zarr"))


def test_a_store_keeps_its_device(sweep, clean):
    for source, out in ((sweep, clean), (clean, None)):
        with pytest.raises(SpecError, match=r"device.*'cuda'.*another type of device.*cpu"):
            run(source, out, device="cuda")
    assert run(sweep, clean, device="cpu").complete


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_no_gpu_is_said_before_anything_is_trained(sweep, tables, tmp_path):
    path = tmp_path / "z.zarr"
    for workers in (0, 2):
        with pytest.raises(TrainError, match="finds no GPU"):
            run(sweep, path, device="cuda", workers=workers)
    asked = Sweep.from_dict({**copy.deepcopy(tables), "run": {"device": "cuda"}})
    with pytest.raises(TrainError, match="finds no GPU"):
        run(asked, tmp_path / "asked.zarr")
    assert not path.exists()  # so that another device can be asked for


def test_each_worker_sees_one_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-1f")
    assert gpu_seats() == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "GPU-1f"}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_seats() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpu_seats() == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]


def test_bad_arguments_come_in_one_error(sweep, tmp_path):
    with pytest.raises(SpecError) as error:
        run(sweep, tmp_path / "z.zarr", workers=-1, limit=-2)
    assert [p.field for p in error.value.problems] == ["workers", "limit"]
    with pytest.raises(SpecError, match="give --out"):
        run(sweep)
    with pytest.raises(SpecError, match="unknown backend"):
        run(sweep, tmp_path / "z.zarr", backend="abacus")
    assert not (tmp_path / "z.zarr").exists()


def test_something_else_is_in_the_way(sweep, tmp_path):
    (tmp_path / "z.zarr").write_text("my thesis")
    with pytest.raises(StoreError, match="something else"):
        run(sweep, tmp_path / "z.zarr", workers=0)
    assert (tmp_path / "z.zarr").read_text() == "my thesis"


def own_data(path, seed):
    draw = np.random.default_rng(seed)
    arrays = {}
    for part, n in (("train", 64), ("test", 32)):
        arrays[f"{part}_x"] = draw.normal(size=(n, 5)).astype(np.float32)
        arrays[f"{part}_y"] = np.arange(n) % 3
    np.savez(path, **arrays)


def test_changed_data_are_refused(tmp_path):
    file = tmp_path / "own.npz"
    own_data(file, 0)
    tables = {
        "name": "own",
        "base": {"data": "npz:own", "steps": 4, "width": 4, "batch_size": 16},
        "grid": {"seed": [0, 1]},
        "record": {"steps": [0, 2, 4]},
        "paths": {"npz:own": str(file)},
    }
    sweep = Sweep.from_dict(tables)
    assert run(sweep, tmp_path / "z.zarr", workers=1).complete
    own_data(file, 1)
    before = content_hash(tmp_path / "z.zarr")
    with pytest.raises(DataError, match=r"(?s)z\.zarr.*npz:own.*not what the store"):
        run(sweep, tmp_path / "z.zarr")
    more = Sweep.from_dict({**tables, "grid": {"seed": [0, 1, 2]}})
    with pytest.raises(DataError, match="not what the store was planned with"):
        run(more, tmp_path / "z.zarr")
    assert content_hash(tmp_path / "z.zarr") == before


def test_a_failing_task_is_recorded_and_the_others_are_done(sweep, tmp_path, monkeypatch):
    path = tmp_path / "z.zarr"
    attempts = []

    class Broken(TaskTrainer):
        def run(self, *args, **options):
            if self.cohort.key["width"] == 8 and self.cohort.key["batch_size"] == 32:
                attempts.append(self.task)
                raise ValueError("the sky fell")
            return super().run(*args, **options)

    monkeypatch.setattr(worker_module, "TaskTrainer", Broken)
    summary = run(sweep, path, workers=0)
    assert len(attempts) == 3
    assert not summary.complete
    assert not summary.stopped
    assert summary.status == {"done": 79, "failed": 3}
    assert [f.task for f in summary.failures] == attempts[:1]
    assert summary.failures[0].reason == "ValueError: the sky fell"
    (failure,) = StoreReader(path).failures()
    assert failure.reason == "ValueError: the sky fell"
    assert "test_local_run.py" in failure.traceback
    found = store_status(path)
    assert found.counts["failed"] == 3
    (line,) = [t for t in found.tasks if t.state == "failed"]
    assert line.reason == "ValueError: the sky fell"
    monkeypatch.undo()
    assert run(sweep, path, workers=0).trained == 3
    assert store_status(path).complete


def test_what_lies_in_the_current_folder_does_not_matter(sweep, tmp_path, monkeypatch):
    for name in ("queue.py", "zoo.py", "torch.py"):
        (tmp_path / name).write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert run(sweep, "z.zarr", workers=1, limit=1).tasks == 1


def test_a_script_needs_no_main_guard(sweep_file, tmp_path, clean_hash):
    script = tmp_path / "script.py"
    script.write_text("import zoo\nprint(zoo.run('tiny.toml', 'z.zarr', workers=2).complete)\n")
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
    assert content_hash(tmp_path / "z.zarr") == clean_hash


@pytest.mark.compile
@pytest.mark.slow
def test_compiled_in_two_workers(tables, tmp_path):
    if not can_compile():
        pytest.skip("no C++ compiler")
    sweep = Sweep.from_dict({**tables, "block": tables["block"][:1]})
    hashes = set()
    for workers in (1, 2):
        path = tmp_path / f"{workers}.zarr"
        assert run(sweep, path, workers=workers, backend="compiled").complete
        hashes.add(content_hash(path))
    assert len(hashes) == 1
    assert {c.backend for c in read_plan(path).cohorts} == {"compiled"}
    assert reproduce(path, read_plan(path).cohorts[0].run_ids[1]).matches


def test_workers_that_cannot_start_say_why(sweep, tmp_path):
    command = (sys.executable, "-c", "raise SystemExit('no such luck')")
    with pytest.raises(TrainError, match="no such luck"):
        run(sweep, tmp_path / "z.zarr", workers=2, command=command)
    assert all(state.committed == 0 for state in task_states(tmp_path / "z.zarr"))


def test_what_a_worker_raises_reaches_the_record(sweep, tmp_path, misbehaving):
    task = next(read_plan_of(sweep).tasks())
    command = misbehaving.command(raise_at=2, before=True, task=[task.cohort, task.index])
    summary = run(sweep, tmp_path / "z.zarr", workers=2, command=command)
    # the first attempt made two checkpoints, then three made none
    assert [e[0] for e in misbehaving.events()].count("raise") == 4
    (failed,) = summary.failures
    assert failed.task == task
    assert failed.reason == "RuntimeError: broken on purpose at 2"
    (record,) = StoreReader(tmp_path / "z.zarr").failures()
    assert "broken on purpose" in record.traceback
    assert record.committed == 2


def read_plan_of(sweep):
    from zoo.train.planner import plan

    return plan(sweep)
