"""Submitting, with a cluster that only keeps a queue: once, from anywhere, with whole scripts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tomli_w
from fake_slurm import FakeSlurm

from zoo.cli import main
from zoo.errors import SpecError, StoreError
from zoo.launch.batch_script import check_folder, command, parameters, script
from zoo.launch.profile import ClusterProfile
from zoo.launch.record_folder import record_folder
from zoo.launch.slurm import batch_of
from zoo.launch.submissions import Work, new_submission, read_submission, submissions
from zoo.spec import Sweep
from zoo.store import read_plan, verify_store
from zoo.store.leases import acquire_lease
from zoo.store.paths import StorePaths

SWEEP = {
    "name": "tiny",
    "base": {"data": "digits", "steps": 4},
    "grid": {"width": [4, 8], "seed": [0, 1]},
    "record": {"steps": [4], "probe_size": 0},
}
DIET = {
    **SWEEP,
    "base": {"data": "digits", "epochs": 2, "score": "el2n", "score_epoch": 1,
             "score_seeds": 2, "keep": 0.5},
    "diet": {"baseline": False},
    "record": {"epochs": [2], "probe_size": 0},
}  # fmt: skip


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}{os.pathsep}{os.environ['PATH']}")
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SBATCH_")):
            monkeypatch.delenv(name)
    return fake


@pytest.fixture
def place(tmp_path, monkeypatch):
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "s.toml").write_text(Sweep.from_dict(SWEEP).to_toml())
    (folder / "diet.toml").write_text(Sweep.from_dict(DIET).to_toml())
    (folder / "p.toml").write_text('time = "0:30:00"\n')
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def zoo(capsys):
    def call(*words, code=0):
        found = main([str(word) for word in words])
        said = capsys.readouterr()
        assert found == code, said.out + said.err
        return said.out + said.err

    return call


def profile_file(**settings):
    Path("q.toml").write_text(tomli_w.dumps({"time": "0:30:00", **settings}))
    return "q.toml"


def submit(zoo, *words, profile="p.toml", code=0):
    return zoo("submit", *words, "--cluster", profile, "--calibrate", 0, code=code)


# -- once, however the store is called ----------------------------------------------------


def test_a_store_is_one_store_by_whatever_name(zoo, slurm, place, monkeypatch):
    submit(zoo, "s.toml", "--out", "q.zarr")
    first = slurm.jobs
    assert first
    (place / "link.zarr").symlink_to("q.zarr")
    (place / "there").symlink_to(place, target_is_directory=True)
    for name in ("q.zarr", "./q.zarr/", "link.zarr", place / "q.zarr", "there/link.zarr"):
        assert "queued" in submit(zoo, name)
    submit(zoo, "s.toml", "--out", "link.zarr")
    monkeypatch.chdir("q.zarr")
    assert "queued" in submit(zoo, ".", profile="../p.toml")
    assert slurm.jobs == first
    assert sorted(p.name for p in place.glob("*.slurm")) == ["q.zarr.slurm"]
    assert verify_store(place / "q.zarr").problems == ()


@pytest.mark.parametrize("how", ["link left behind", "nothing left behind", "with its records"])
def test_a_store_that_was_moved_finds_its_jobs(zoo, slurm, place, how):
    submit(zoo, "s.toml", "--out", "q.zarr")
    first = slurm.jobs
    (place / "big").mkdir()
    shutil.move("q.zarr", "big/r.zarr")
    if how == "link left behind":
        (place / "q.zarr").symlink_to("big/r.zarr")
    if how == "with its records":
        shutil.move("q.zarr.slurm", "big/r.zarr.slurm")
    assert "queued" in submit(zoo, "big/r.zarr")
    assert slurm.jobs == first
    assert len(submissions("big/r.zarr")) == 1


def test_a_copy_of_a_store_has_no_jobs_of_the_original(zoo, slurm, place):
    submit(zoo, "s.toml", "--out", "q.zarr")
    first = slurm.jobs
    shutil.copytree("q.zarr", "copy.zarr")
    submit(zoo, "copy.zarr")
    assert len(slurm.jobs) == 2 * len(first)
    assert record_folder("copy.zarr") != record_folder("q.zarr")
    assert [s.store for s in submissions("copy.zarr")] == [place / "copy.zarr"]


def test_a_note_that_leads_astray_is_not_followed(zoo, slurm, place):
    submit(zoo, "s.toml", "--out", "q.zarr")
    submit(zoo, "s.toml", "--out", "other.zarr")
    note = place / "q.zarr" / "_zoo" / "submissions.json"
    good = json.loads(note.read_text())
    own = record_folder("q.zarr")
    for fields in (
        {"records": str(place / "other.zarr.slurm")},
        {"records": "/etc"},
        {"records": "q.zarr.slurm"},
        {"records": ["x"]},
        {"id": None},
    ):
        note.write_text(json.dumps({**good, **fields, "store": "/no/where"}))
        assert record_folder("q.zarr") == own, fields
    for text in ("[" * 50_000, "7" * 100_000, "[]", "", "{"):
        note.write_text(text)
        assert record_folder("q.zarr") == own
    assert "queued" in submit(zoo, "q.zarr")


@pytest.mark.parametrize(
    "word",
    ["PENDING", "RUNNING", "COMPLETING", "POWER_UP_NODE", "EXPEDITING", "UPDATE_DB", "REVOKED",
     "LAUNCH_FAILED", "RECONFIG_FAIL", "A_WORD_OF_NEXT_YEAR", "RUNNING,UPDATE_DB"],
)  # fmt: skip
def test_a_job_that_has_not_ended_for_certain_is_not_submitted_again(zoo, slurm, place, word):
    submit(zoo, "s.toml", "--out", "q.zarr")
    first = slurm.jobs
    slurm.state(word)
    submit(zoo, "q.zarr")
    zoo("retry", "q.zarr", "--calibrate", 0)
    assert slurm.jobs == first


@pytest.mark.parametrize("word", ["FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"])
def test_a_job_that_ended_is(zoo, slurm, place, word):
    submit(zoo, "s.toml", "--out", "q.zarr")
    first = slurm.jobs
    slurm.state(word)
    submit(zoo, "q.zarr")
    assert len(slurm.jobs) == 2 * len(first)


def test_scoring_is_submitted_once(zoo, slurm, place):
    submit(zoo, "diet.toml", "--out", "q.zarr", "--limit", 1)
    score, train = slurm.jobs
    assert f"--dependency=afterok:{score}" in slurm.script(train)
    profile = profile_file(target_minutes=1e-6)
    submit(zoo, "q.zarr", "--limit", 1, profile=profile)
    more = slurm.jobs[2:]
    assert all(f"--dependency=afterok:{score}" in slurm.script(job) for job in more)


def test_a_retry_asks_for_what_training_needs_not_for_what_the_last_stage_did(zoo, slurm, place):
    profile = profile_file(gpus=2, device="cuda", cpus=8)
    submit(zoo, "s.toml", "--out", "q.zarr", "--then", "label", profile=profile)
    train, label = slurm.jobs
    assert "--gpus-per-node=2\n" in slurm.script(train)
    assert "gpus" not in slurm.script(label)
    slurm.state("FAILED")
    zoo("retry", "q.zarr", "--calibrate", 0)
    assert "--gpus-per-node=2\n" in slurm.script(slurm.jobs[-1])


def test_a_stage_waits_for_what_is_in_the_queue_already(zoo, slurm, place):
    submit(zoo, "s.toml", "--out", "q.zarr")
    train = slurm.jobs
    submit(zoo, "q.zarr", "--then", "landscape", "--then", "label")
    first, second = slurm.jobs[len(train) :]
    ids = ":".join(map(str, train))
    assert f"--dependency=afterany:{ids}\n" in slurm.script(first)
    assert f"--dependency=afterany:{first}\n" in slurm.script(second)


# -- owners on other hosts ----------------------------------------------------------------


@pytest.mark.parametrize("ahead_s", [3600.0, 0.0])
def test_a_living_owner_elsewhere_is_seen_by_watching(zoo, slurm, place, monkeypatch, ahead_s):
    monkeypatch.setenv("ZOO_LEASE_S", "6")  # a heartbeat may be late on a busy machine
    submit(zoo, "s.toml", "--out", "q.zarr", "--limit", 0)
    (task, *others) = read_plan("q.zarr").tasks()
    monkeypatch.setenv("ZOO_HOST_ID", "a")
    lease = acquire_lease(
        StorePaths(place / "q.zarr").lock(task).with_suffix(".lease"), flock=False
    )
    monkeypatch.setenv("ZOO_HOST_ID", "b")
    real = time.time
    monkeypatch.setattr("zoo.store.lease_view.time.time", lambda: real() + ahead_s)
    assert "1 running" in submit(zoo, "q.zarr")
    taken = {key for one in submissions("q.zarr") for e in one.elements for key in e}
    assert taken == {(t.cohort, t.index) for t in others}
    lease.check()
    lease.release()


def test_an_owner_who_is_gone_is_seen_by_watching(zoo, slurm, place, monkeypatch):
    monkeypatch.setenv("ZOO_LEASE_S", "0.6")
    submit(zoo, "s.toml", "--out", "q.zarr", "--limit", 0)
    (task, *_) = read_plan("q.zarr").tasks()
    monkeypatch.setenv("ZOO_HOST_ID", "a")
    folder = StorePaths(place / "q.zarr").lock(task).with_suffix(".lease")
    lease = acquire_lease(folder, flock=False)
    lease.forget()  # no heartbeat any more
    os.utime(folder / str(lease.number), (4e9, 4e9))  # says a clock that is ahead
    monkeypatch.setenv("ZOO_HOST_ID", "b")
    said = submit(zoo, "q.zarr")
    assert "watching the heartbeats of 1 task" in said
    taken = {key for one in submissions("q.zarr") for e in one.elements for key in e}
    assert (task.cohort, task.index) in taken


# -- dry runs and scripts -----------------------------------------------------------------


def test_a_dry_run_shows_every_script_without_submitit_or_slurm(zoo, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setenv("PATH", "/nowhere")
    profile = profile_file(
        gpus=2, device="cuda", cpus=8, target_minutes=1e-6, max_array=1, gres="nvme:1",
        stages={"partition": "cpu", "memory": "3GB"},
    )  # fmt: skip
    words = ("diet.toml", "--out", "q.zarr", "--then", "landscape", "--then", "label", "--dry-run")
    shown = json.loads(submit(zoo, *words, "--json", profile=profile))
    titles = [one["title"] for one in shown["scripts"]]
    arrays = shown["arrays"]
    assert arrays > 1
    assert titles[0] == "stage score"
    assert titles[1 : 1 + arrays] == [
        f"training, array {n} of {arrays}" for n in range(1, arrays + 1)
    ]
    assert titles[1 + arrays :] == ["stage landscape", "stage label"]
    score, *training, landscape, label = shown["sbatch"]
    assert "--dependency" not in score
    for one in training:
        assert "--dependency=afterok:JOB_1\n" in one
        assert "--gpus-per-node=2\n" in one
    ids = ":".join(f"JOB_{n + 2}" for n in range(arrays))
    assert f"--dependency=afterany:{ids}\n" in landscape
    assert f"--dependency=afterany:JOB_{arrays + 2}\n" in label
    for one, cores in ((score, 8), (landscape, 8), (label, 1)):
        assert "gpu" not in one
        assert f"--cpus-per-task={cores}\n" in one
        assert "--partition=cpu\n" in one
        assert "--mem=3072M\n" in one
        assert "--gres=nvme:1\n" in one
    text = submit(zoo, *words, profile=profile)
    assert text.count("#!/bin/bash") == len(titles)
    assert not (place / "q.zarr").exists()
    assert not (place / "q.zarr.slurm").exists()
    assert "pip install 'phasezoo[slurm]'" in submit(
        zoo, *words[:-1], profile=profile_file(), code=1
    )
    assert not (place / "q.zarr.slurm").exists()


PROFILES = {
    "plain": {},
    "gpus": {"gpus": 4, "device": "cuda", "gpu_type": "a100", "cpus": 8, "memory": "64GB"},
    "gres": {"gres": "gpu:a100:2,nvme:1", "device": "cuda"},
    "words": {
        "partition": "a,b", "constraint": "[x|y]&z", "exclude": "n[1-3]", "account": "it's",
        "setup": ["module load 'a b'", "# note", "", "x=1 # why"], "environment": {"A": "1 '2'"},
        "sbatch": {"mail_type": "END", "comment": "two words", "exclusive": True, "nice": 5},
        "srun": ["--mpi=none", "--comment", "a b"], "requeue": False, "job_name": "my.run",
    },
    "container": {
        "container": "apptainer exec --nv '$HOME/my image.sif'", "binds": ["/data:/d:ro"],
    },
    "logs": {"logs": "LOGS", "parallelism": 2},
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("settings", PROFILES.values(), ids=PROFILES)
def test_what_a_dry_run_shows_is_what_submitit_submits(slurm, place, settings, size):
    from submitit.slurm.slurm import _make_sbatch_string

    from zoo.launch.slurm import submit_array

    if "logs" in settings:
        settings = {**settings, "logs": str(place / "other place" / "logs")}
    profile = ClusterProfile.from_raw(settings, name="p", source="p")
    elements = [(("c", i),) for i in range(size)]
    (place / "a b").mkdir()
    made = new_submission(place / "a b" / "q.zarr", profile, Work(elements, [1.0] * size, chunk=9))
    submit_array(made, 0, dependency="afterany:7")
    batch = batch_of(made, 0, dependency="afterany:7")
    text = script(batch)
    assert slurm.script(slurm.jobs[0]) == text
    folder = str(batch.folder)
    start = f"{command(profile)} -u -m submitit.core._submit {shlex.quote(folder)}"
    assert text == _make_sbatch_string(
        command=start, folder=folder, map_count=None if size == 1 else size, **parameters(batch)
    )
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert batch.folder.is_dir()


def ran(profile, folder):
    """Run the script of a profile with a srun that prints its words, one a line."""
    made = new_submission(folder / "q.zarr", profile, Work([()], [0.0], chunk=1))
    text = script(batch_of(made, 0))
    return subprocess.run(
        ["bash", "-c", 'srun() { printf "%s\\n" "$@"; }; ' + text], capture_output=True, text=True
    )


def test_a_line_of_the_setup_that_fails_ends_the_job_and_says_which(tmp_path):
    lines = ("export A=1", "true; false && true", "# a comment", "echo never")
    done = ran(ClusterProfile("p", setup=lines), tmp_path)
    assert done.returncode == 1
    assert "line 2 of the profile's setup failed with exit code 1" in done.stderr
    assert "true; false && true" in done.stderr
    assert done.stdout == ""


def test_functions_of_the_setup_may_fail_inside(tmp_path):
    """As ``module`` and ``conda`` do: a plain ``set -e`` would end the job there."""
    lines = ("module() { false; true; }", "module load cuda", "cd / && echo here")
    done = ran(ClusterProfile("p", setup=lines), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("here\n--unbuffered\n")


def test_values_are_words_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/p q")
    evil = "'; touch pwned; $(touch pwned) `touch pwned` \" \\"
    profile = ClusterProfile.from_raw(
        {
            "account": evil, "environment": {"A": evil}, "srun": [f"--comment={evil}"],
            "container": "run --at $PLACE/${PLACE} ~/x '$(touch pwned)' '`touch pwned`' ';' '$'",
            "sbatch": {"comment": evil},
        },
        name="p", source="p",
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    done = ran(profile, tmp_path)
    words = done.stdout.splitlines()
    assert f"--comment={evil}" in words
    at = words.index("run")
    assert words[at : at + 9] == [
        "run", "--at", "/p q//p q", f"{os.environ['HOME']}/x", "$(touch pwned)", "`touch pwned`",
        ";", "$", "python3",
    ]  # fmt: skip
    assert not list(tmp_path.rglob("pwned"))


def test_a_container_sees_the_store_and_the_binds(tmp_path):
    profile = ClusterProfile.from_raw(
        {"container": "env", "python": "printenv APPTAINER_BIND", "binds": ["/data:/d:ro"],
         "logs": "/some where/logs"},
        name="p", source="p",
    )  # fmt: skip
    made = new_submission(tmp_path / "q.zarr", profile, Work([()], [0.0], chunk=1))
    lines = [line for line in parameters(batch_of(made, 0))["setup"] if "APPTAINER" in line]
    shown = subprocess.run(
        ["bash", "-c", "\n".join([*lines, 'echo "$APPTAINER_BIND"'])],
        capture_output=True, text=True, env={**os.environ, "APPTAINER_BIND": "/own"},
    ).stdout  # fmt: skip
    folder = f"/some where/logs/q.zarr-{made.id}/array-0"
    assert shown == f"{tmp_path},{folder},/data:/d:ro,/own\n"


# -- from inside an allocation ------------------------------------------------------------


def test_an_allocation_hands_nothing_on_to_its_jobs(zoo, slurm, place, monkeypatch):
    inherited = {
        "SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_CPUS_PER_TASK": "3", "SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_MEM_PER_NODE": "9",
        "SLURM_EXPORT_ENV": "NONE", "SLURMD_NODENAME": "n9", "SRUN_CPUS_PER_TASK": "3",
        "PMI_RANK": "0", "PMIX_RANK": "0", "SUBMITIT_EXECUTOR": "slurm", "ZOO_JOB": "7_1",
        "SBATCH_TIMELIMIT": "1", "SBATCH_ARRAY_INX": "0-9", "SBATCH_JOB_NAME": "other",
        "SBATCH_PARTITION": "mine", "CUDA_VISIBLE_DEVICES": "2", "SQUEUE_PARTITION": "other",
    }  # fmt: skip
    kept = {"SLURM_CONF": "/x/slurm.conf", "SLURM_CLUSTERS": "c1", "SBATCH_ACCOUNT": "me"}
    for name, value in {**inherited, **kept, "MY_OWN": "1"}.items():
        monkeypatch.setenv(name, value)
    submit(zoo, "s.toml", "--out", "q.zarr", profile=profile_file(partition="cpu"))
    zoo("status", "q.zarr", code=2)
    found = slurm.environment(slurm.jobs[0])
    assert not inherited.keys() & found.keys()
    assert {name: found.get(name) for name in kept} == kept
    assert found["MY_OWN"] == "1"
    assert not {"SQUEUE_PARTITION", "SLURM_JOB_ID"} & slurm.environment("squeue").keys()
    assert {name: os.environ[name] for name in inherited} == inherited, "taken from the caller"


def test_outside_of_an_allocation_a_choice_of_gpus_stays(zoo, slurm, place, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    submit(zoo, "s.toml", "--out", "q.zarr")
    assert slurm.environment(slurm.jobs[0])["CUDA_VISIBLE_DEVICES"] == ""


# -- bad input ----------------------------------------------------------------------------


def test_a_path_that_would_break_the_script_is_refused_before_anything_is_made(zoo, slurm, place):
    for name in ("a\n#SBATCH --uid=0\nb.zarr", "a\rb.zarr", "a%jb.zarr", "a\\b.zarr", "a\x1b.zarr"):
        for more in ((), ("--dry-run",)):
            said = submit(zoo, "s.toml", "--out", name, *more, code=1)
            assert "rename the folder" in said
        with pytest.raises(SpecError):
            check_folder(place / name)
    assert slurm.jobs == []
    assert not list(place.glob("a*"))


CRAFTED = {
    "deep": b"[" * 100_000,
    "digits": b'{"number": ' + b"9" * 10_000 + b"}",
    "list": b"[]",
    "empty": b"",
    "bytes": bytes(range(256)),
    "chunk": {"chunk": 0},
    "chunk-type": {"chunk": "9"},
    "nan": {"seconds": [float("nan")]},
    "endless": {"created": float("inf")},
    "few": {"seconds": []},
    "number": {"number": 10**40},
    "element": {"elements": [[["c"]]]},
    "element-type": {"elements": [[["c", "0"]]]},
    "no-elements": {"elements": None},
    "id": {"id": "x\n#SBATCH --wrap"},
    "store": {"store": "relative.zarr"},
    "words": {"stage": {"name": "x", "words": "rm -rf"}},
    "profile": {"profile": {"name": "p", "time": "1\n#SBATCH -x", "cpus": -1}},
    "no-profile": {"profile": []},
    "failures": {"failures": [["c", 0, -1]]},
}


@pytest.mark.parametrize("broken", CRAFTED.values(), ids=CRAFTED)
def test_a_crafted_record_is_one_clear_error(zoo, slurm, place, broken):
    submit(zoo, "s.toml", "--out", "q.zarr")
    file = record_folder("q.zarr") / "0001" / "submission.json"
    if isinstance(broken, dict):
        broken = json.dumps({**json.loads(file.read_text()), **broken}).encode()
    file.write_bytes(broken)
    with pytest.raises(StoreError, match="no whole record of a submission") as caught:
        read_submission(file.parent)
    assert "move that folder away" in str(caught.value)
    first = slurm.jobs
    for words in ("status", "submit --cluster p.toml", "retry", "logs 1.0", "errors", "cancel"):
        verb, *rest = words.split()
        assert str(file.parent) in zoo(verb, "q.zarr", *rest, code=1)
    assert slurm.jobs == first
    shutil.move(file.parent, "away")  # the advice
    submit(zoo, "q.zarr")
    assert len(slurm.jobs) == 2 * len(first)


@pytest.mark.parametrize("text", ['{"array": 0, "job": "7"}', '{"array": -1, "job": 7}', "[]", "x"])
def test_a_crafted_job_id_is_one_clear_error(zoo, slurm, place, text):
    submit(zoo, "s.toml", "--out", "q.zarr")
    (record_folder("q.zarr") / "0001" / "job-0.json").write_text(text)
    assert "no whole record of a submission" in zoo("status", "q.zarr", code=1)


def test_long_jobs_for_little_work_are_pointed_out(zoo, slurm, place):
    profile = profile_file(time="12:00:00")
    said = submit(zoo, "s.toml", "--out", "q.zarr", profile=profile)
    assert re.search(r"expected to take .* s, and asks for 12 h 00 min", said)
    advised = re.search(r"write time = '([0-9:]+)'", said)[1]
    said = submit(zoo, "s.toml", "--out", "r.zarr", profile=profile_file(time=advised))
    assert "asks for 15 min" in said
    assert "write time" not in said


def test_two_submissions_at_once_are_one(slurm, place):
    """Both are told the truth; the tasks are in the queue once."""
    words = ["submit", "s.toml", "--out", "q.zarr", "--cluster", "p.toml", "--calibrate", "0"]
    codes = []

    def call():
        done = subprocess.run([sys.executable, "-P", "-m", "zoo.cli", *words], capture_output=True)
        codes.append(done.returncode)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 in codes
    assert len(slurm.jobs) == 1
