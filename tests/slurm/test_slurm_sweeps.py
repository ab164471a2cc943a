"""Sweeps through a real SLURM: the bits of a local run, and every verb on the way."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clustered import (
    ask,
    profile_file,
    slow,
    slurm,
    sweep_file,
    tree,
    wait_for,
    wait_until_done,
    zoo,
)

from zoo.launch.local import run
from zoo.launch.submissions import submissions
from zoo.plugins import unload_plugin
from zoo.store import StoreReader, content_hash, verify_store
from zoo.store.commits import read_seal
from zoo.store.paths import StorePaths

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(900)]

REPO = Path(__file__).parents[2]


def test_quickstart_through_gpu_arrays_has_the_bits_of_a_local_run(tmp_path):
    # every one of its 432 models, for 4 epochs of 20; `make demo-slurm` has them all
    text = (REPO / "sweeps" / "quickstart.toml").read_text()
    sweep = tmp_path / "quickstart.toml"
    sweep.write_text(text.replace("epochs = 20", "epochs = 4"))
    profile = profile_file(tmp_path, gpus=2, cpus=2, workers=2, parallelism=2, target_minutes=0.03)
    local, store = tmp_path / "local.zarr", tmp_path / "slurm.zarr"
    made = ask("submit", sweep, "--out", store, "--cluster", profile, "--then", "verify --hash")
    assert made["models"] == 432
    (job,), (last,) = (one["jobs"] for one in made["submitted"])
    assert f"Dependency=afterany:{job}" in slurm("scontrol", "show", "job", last)
    assert "gres/gpu=2" in slurm("scontrol", "show", "job", job)
    status = wait_until_done(store, 600)
    assert status["complete"], status["counts"]
    assert len(status["cluster"]["elements"]) > 2, "no array"
    assert {e["state"] for e in status["cluster"]["elements"]} == {"COMPLETED"}
    assert run(str(sweep), local, workers=2).complete
    assert content_hash(store) == content_hash(local)
    assert verify_store(store).problems == ()
    assert content_hash(local) in zoo("logs", store, "2.0", "--out")


def test_every_stage_waits_for_the_one_before(tmp_path):
    # score, train, landscape, label: four jobs, each a dependency of the next
    sweep = sweep_file(
        tmp_path,
        axes={"load": "width", "temperature": "batch_size"},
        base={"data": "digits", "momentum": 0.9, "epochs": 2, "score": "el2n", "score_epoch": 1,
              "score_seeds": 2, "keep": 0.5},
        diet={"baseline": False},
        record={"epochs": [2], "probe_size": 8},
    )  # fmt: skip
    store, local = tmp_path / "z.zarr", tmp_path / "local.zarr"
    profile = profile_file(tmp_path, memory="2GB", target_minutes=10)
    made = ask("submit", sweep, "--out", store, "--cluster", profile,
               "--then", "landscape", "--then", "label")  # fmt: skip
    jobs = [one["jobs"][0] for one in made["submitted"]]
    assert len(jobs) == 4
    for before, after in itertools.pairwise(jobs):
        assert f":{before}" in slurm("scontrol", "show", "job", after).split("Dependency=")[1]
    status = wait_until_done(store)
    assert status["complete"], status["counts"]
    assert {e["state"] for e in status["cluster"]["elements"]} == {"COMPLETED"}
    assert run(str(sweep), local, workers=2).complete
    assert content_hash(store) == content_hash(local)
    for words in (["landscape", local], ["label", local]):
        zoo(*words)
    shown = [ask("query", path, "epoch == -1", "--columns", "run_id,phase,hessian_trace")
             for path in (store, local)]  # fmt: skip
    assert shown[0] == shown[1]
    rows = shown[0]["rows"] if isinstance(shown[0], dict) else shown[0]
    assert len(rows) == 8
    assert all(row["phase"] for row in rows)


def test_a_thousand_runs_in_sixteen_tasks(tmp_path, capsys):
    sweep = sweep_file(
        tmp_path,
        name="thousand",
        grid={"seed": {"range": [0, 1000]}, "width": [4]},
        base={"data": "digits", "momentum": 0.9, "steps": 10},
        record={"steps": [10], "probe_size": 0},
    )
    store = tmp_path / "z.zarr"
    profile = profile_file(tmp_path, target_minutes=0.05, parallelism=2)
    begin = time.monotonic()
    made = ask("submit", sweep, "--out", store, "--cluster", profile, "--calibrate", 2)
    submitted = time.monotonic() - begin
    assert (made["models"], made["tasks"]) == (1000, 16)
    assert wait_until_done(store)["complete"]
    paths, reader = StorePaths(store), StoreReader(store)
    trained = sum(read_seal(paths, c, t).wall_s for c in reader.plan.cohorts for t in c.tasks())
    elements = submissions(store)[0].elements
    spans = _spans(store)
    facts = {
        "elements": len(elements),
        "submit_s": round(submitted, 2),
        "dispatch_s_per_task": round((sum(spans) - trained) / 16, 2),
        "start_s_per_element": round((sum(spans) - trained) / len(elements), 2),
    }
    with capsys.disabled():
        sys.stdout.write(f"\n1,000 runs in 16 tasks: {facts}\n")
    assert len(elements) <= 16


def _spans(store):
    """Return the seconds that each element's log covers, from submitit's first line to its last."""
    found = []
    for submission in submissions(store):
        for number in range(len(submission.elements)):
            out, _ = submission.logs(number)
            stamps = [
                time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S"))
                for line in out.read_text().replace("submitit INFO (", "").splitlines()
                if line[:2] == "20"
            ]
            found.append(stamps[-1] - stamps[0])
    return found


def test_submitting_is_idempotent_and_jobs_can_be_held_cancelled_and_retried(tmp_path):
    sweep, store = sweep_file(tmp_path), tmp_path / "z.zarr"
    profile = profile_file(tmp_path, environment=slow(0.05))
    made = ask("submit", sweep, "--out", store, "--cluster", profile, "--dry-run")
    assert not store.exists(), "a dry run wrote"
    assert "#SBATCH --array=0-3" in made["sbatch"][0]
    assert "#SBATCH --gpus-per-node=1" in made["sbatch"][0]
    asked = ask("submit", sweep, "--out", store, "--cluster", profile, "--test-only")
    assert "to start at" in asked["scheduler"][0]
    assert not store.exists(), "--test-only wrote"

    # nothing starts while every node is taken
    slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        made = ask("submit", sweep, "--out", store, "--cluster", profile)
        assert len(made["submitted"]) == 1
        again = ask("submit", store, "--cluster", profile)
        assert (again["submitted"], again["skipped"]) == ([], {"queued": 4})
        assert [t["state"] for t in ask("status", store, code=2)["tasks"]] == ["queued"] * 4
        assert len(ask("hold", store)["jobs"]) == 4
        words = [t["state"] for t in ask("status", store, code=2)["tasks"]]
        assert words == ["held"] * 4
        assert ask("retry", store, "--missing")["submitted"] == [], "held jobs were doubled"
        assert ask("cancel", store, "--dry-run")["jobs"]
        assert len(ask("cancel", store)["jobs"]) == 4
        wait_for(lambda: not slurm("squeue", "-h").strip(), what="the end of cancelled jobs")
        status = ask("status", store, code=2)
        assert [t["state"] for t in status["tasks"]] == ["waiting"] * 4
        assert {e["state"] for e in status["cluster"]["elements"]} == {"CANCELLED"}
        assert "ended CANCELLED" in zoo("errors", store, code=2)
        assert ask("retry", store, "--failed")["submitted"] == []
        one = ask("status", store, code=2)["tasks"][0]
        name = f"{one['cohort']}/{one['task']}"
        more = ask("retry", store, "--task", name, "--mem", "x2", "--time", "x2")
        (job,) = more["submitted"][0]["jobs"]
        shown = slurm("scontrol", "show", "job", job)
        assert "MinMemoryNode=1200M" in shown
        assert "TimeLimit=01:00:00" in shown
        assert len(ask("hold", store)["jobs"]) == 1
        assert len(ask("release", store)["jobs"]) == 1
        assert ask("retry", store)["tasks"] == 3
    finally:
        slurm("scontrol", "update", "partitionname=main", "state=up")
    assert wait_until_done(store)["complete"]
    assert "No task failed" in zoo("errors", store)
    assert "begins" in zoo("logs", store, name, "--out")
    assert Path(zoo("logs", store, "3.0", "--path").strip()).is_file()

    # the same sweep with more seeds
    wider = sweep_file(
        tmp_path, name="tiny", grid={"width": [4, 8], "batch_size": [32], "seed": [0, 1, 2]}
    )
    before = content_hash_of_cohorts(store)
    made = ask("submit", wider, "--out", store, "--cluster", profile)
    assert made["models"] == 2
    assert wait_until_done(store)["complete"]
    assert {**content_hash_of_cohorts(store), **before} == content_hash_of_cohorts(store)


def content_hash_of_cohorts(store):
    return {
        path.name: json.dumps([str(k) + repr(v[2]) for k, v in tree(path).items()])
        for path in store.iterdir()
        if path.is_dir() and not path.name.startswith("_")
    }


AUDITED = """
import os, sys
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
           "os.chmod", "os.utime", "shutil.rmtree"}
def watch(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(flags, int) and flags & WRITES and sys.argv[1] in str(path):
            raise AssertionError(f"status opens {path} for writing")
    elif event in CHANGES and sys.argv[1] in str(args[0]):
        raise AssertionError(f"status changes {args}")
    elif event == "subprocess.Popen" and "squeue" not in str(args[1][0]):
        if not any(w in str(args[1][0]) for w in ("sacct", "scontrol")):
            raise AssertionError(f"status runs {args}")
sys.dont_write_bytecode = True
from zoo.cli import main
sys.addaudithook(watch)
code = main(["status", sys.argv[1], "--json"])
sys.exit(0 if code in (0, 2) else 1)
"""


def test_status_never_writes(tmp_path):
    sweep, store = sweep_file(tmp_path), tmp_path / "z.zarr"
    ask("submit", sweep, "--out", store, "--cluster", profile_file(tmp_path), "--limit", 2)
    wait_until_done(store)
    records = tmp_path / "z.zarr.slurm"
    before = tree(store, records)
    command = [sys.executable, "-c", AUDITED, str(store)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    words = [t["state"] for t in json.loads(done.stdout)["tasks"]]
    assert sorted(words) == ["done", "done", "waiting", "waiting"]
    assert tree(store, records) == before


def test_a_task_that_gets_nowhere_is_failed_with_its_traceback_and_then_retried(tmp_path):
    sweep, store = sweep_file(tmp_path, grid={"seed": [0, 1], "width": [4]}), tmp_path / "z.zarr"
    # the disk "breaks" at the first commit record in every worker, and works again for the retry
    bad = profile_file(tmp_path, "bad", environment=slow(0.01, TEST_BREAK="/0.json"))
    ask("submit", sweep, "--out", store, "--cluster", bad)
    status = wait_until_done(store)
    assert [t["state"] for t in status["tasks"]] == ["failed"]
    assert {e["state"] for e in status["cluster"]["elements"]} == {"FAILED"}
    (fault,) = ask("errors", store, code=2)["faults"]
    assert "the test broke this" in fault["reason"]
    assert "in _broken" in fault["traceback"]
    assert "the test broke this" in zoo("errors", store, "--traceback", code=2)
    assert ask("submit", store, "--cluster", bad)["skipped"] == {"failed": 1}
    good = profile_file(tmp_path, "good")
    ask("retry", store, "--failed", "--cluster", good)
    assert wait_until_done(store)["complete"]
    assert ask("errors", store)["faults"] == []


def test_the_doctor_knows_this_cluster(tmp_path):
    found = ask("doctor", profile_file(tmp_path))
    by_topic = {finding["topic"]: finding for finding in found}
    assert by_topic["test"]["level"] == "ok"
    assert "without the warning signal" in by_topic["preemption"]["text"]
    bad = profile_file(tmp_path, "bad", partition="nowhere", cpus=99, gpus=9, time="0:05:00")
    levels = {(f["level"], f["topic"]) for f in ask("doctor", bad, code=2)}
    assert {("error", "partition"), ("error", "test"), ("warning", "time")} <= levels


PLUGIN = '''
import torch
from torch import nn

from zoo import plugin


@plugin.architecture("small")
class Small(nn.Module):
    """A linear map behind a batch norm."""

    def __init__(self, example_shape, outputs, rows: int = 2):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.first = nn.Linear(64, rows)
        self.head = nn.Linear(rows, outputs)

    def forward(self, x):
        return self.head(torch.tanh(self.first(self.norm(x.flatten(1)))))


@plugin.metric("largest")
def largest(model):
    """Largest weight."""
    return max(float(p.abs().max()) for p in model.module.parameters())
'''


def test_jobs_load_the_plugins_of_a_submission(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    plugin = ("--plugin", file)
    sweep = tmp_path / "small.toml"
    sweep.write_text(
        'name = "small"\n[base]\ndata = "digits"\narchitecture = "small"\nsteps = 6\n'
        "[grid]\nrows = [2, 3]\nseed = [0, 1]\n[record]\nsteps = [6]\n"
    )
    store, local = tmp_path / "z.zarr", tmp_path / "local.zarr"
    profile = profile_file(tmp_path, memory="2GB")
    ask("submit", sweep, "--out", store, "--cluster", profile, *plugin,
        "--then", "landscape --metrics largest")  # fmt: skip
    status = wait_until_done(store)
    assert status["complete"], status["counts"]
    assert {e["state"] for e in status["cluster"]["elements"]} == {"COMPLETED"}
    zoo("run", sweep, "--out", local, "-q", *plugin)
    zoo("landscape", local, "--metrics", "largest", "-q", *plugin)
    assert content_hash(store) == content_hash(local)
    shown = [ask("query", path, "epoch > 0", "--columns", "run_id,rows,largest")
             for path in (store, local)]  # fmt: skip
    assert shown[0] == shown[1]
    unload_plugin(file)
