"""A cluster with small arrays and no sacct; a scheduler that is away; disks that refuse."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from clustered import (
    ask,
    kill,
    processes,
    profile_file,
    slow,
    slurm,
    sweep_file,
    wait_for,
    wait_until_done,
    zoo,
)

from zoo.launch.local import run
from zoo.launch.submissions import record_folder
from zoo.store import content_hash, verify_store

pytestmark = [pytest.mark.usefixtures("bare_cluster"), pytest.mark.timeout(900)]


def test_more_elements_than_an_array_may_have_and_no_sacct(tmp_path):
    """Six elements are two arrays where five is the most; a killed job is known all the same."""
    sweep = sweep_file(tmp_path, grid={"width": [4, 8, 12], "batch_size": [32, 64], "seed": [0, 1]})
    store, local = tmp_path / "z.zarr", tmp_path / "local.zarr"
    assert "disabled" in slurm("sacct")
    profile = profile_file(tmp_path, gpus=0, environment=slow(0.1))
    made = ask("submit", sweep, "--out", store, "--cluster", profile, "--calibrate", 0)
    assert (made["elements"], made["arrays"]) == (6, 2)
    assert len(made["submitted"][0]["jobs"]) == 2
    first = f"{made['submitted'][0]['jobs'][0]}_0"
    wait_for(lambda: any(role == "worker" for _, role in processes(first)), what="the first worker")
    assert kill(first, "element")
    status = wait_until_done(store)
    states = {e["job"]: (e["state"], e["source"]) for e in status["cluster"]["elements"]}
    assert states.pop(first)[0] == "FAILED"
    assert {state for state, _ in states.values()} == {"COMPLETED"}
    assert [t["state"] for t in status["tasks"]].count("done") == 5
    assert "ended FAILED" in zoo("errors", store, code=2)
    assert ask("retry", store)["tasks"] == 1
    assert wait_until_done(store)["complete"]
    run(str(sweep), local, workers=2)
    assert content_hash(store) == content_hash(local)


def test_what_nobody_remembers_is_unknown_and_can_be_retried(tmp_path):
    sweep, store = sweep_file(tmp_path), tmp_path / "z.zarr"
    ask("submit", sweep, "--out", store, "--cluster", profile_file(tmp_path), "--limit", 1)
    wait_until_done(store)
    # a job that no controller ever heard of, as after an upgrade that lost its state
    record = record_folder(store) / "0001" / "job-0.json"
    record.write_text('{"array": 0, "job": 900000}')
    record = record_folder(store) / "0001" / "submission.json"
    record.write_text(record.read_text().replace('"id": "', '"id": "f'))
    (element,) = ask("status", store, code=2)["cluster"]["elements"]
    assert (element["state"], element["source"], element["live"]) == ("UNKNOWN", "", False)
    ask("retry", store, "--missing")
    assert wait_until_done(store)["complete"]


def test_a_scheduler_that_is_away(tmp_path, monkeypatch, bare_cluster):
    """Status goes on from the files; whatever needs the scheduler says so, and changes nothing."""
    sweep, store = sweep_file(tmp_path), tmp_path / "z.zarr"
    profile = profile_file(tmp_path)
    ask("submit", sweep, "--out", store, "--cluster", profile, "--limit", 1)
    wait_until_done(store)
    conf = tmp_path / "slurm.conf"
    text = bare_cluster.conf.read_text()
    port = next(line for line in text.splitlines() if line.startswith("SlurmctldPort="))
    conf.write_text(text.replace(port, "SlurmctldPort=1\nMessageTimeout=2"))
    shutil.copy(bare_cluster.conf.parent / "gres.conf", tmp_path)
    monkeypatch.setenv("SLURM_CONF", str(conf))
    records = sorted(p.name for p in record_folder(store).iterdir())
    assert "cannot be reached" in zoo("submit", store, "--cluster", profile, code=1)
    assert "cannot be reached" in zoo("cancel", store, code=1)
    assert "cannot be reached" in zoo("doctor", profile, code=2)
    other = tmp_path / "other.zarr"
    assert "cannot be reached" in zoo("submit", sweep, "--out", other, "--cluster", profile, code=1)
    assert not other.exists()
    assert sorted(p.name for p in record_folder(store).iterdir()) == records
    status = ask("status", store, code=2)
    assert "cannot be reached" in status["cluster"]["trouble"]
    assert sorted(t["state"] for t in status["tasks"]) == ["done", "waiting", "waiting", "waiting"]
    assert "cannot be asked" in zoo("status", store, code=2)
    # what can be said without a scheduler is said
    assert "#SBATCH" in zoo("submit", sweep, "--out", other, "--cluster", profile, "--dry-run")


def test_a_partition_that_is_not_there_is_refused_and_leaves_no_litter(tmp_path):
    sweep, store = sweep_file(tmp_path), tmp_path / "z.zarr"
    bad = profile_file(tmp_path, partition="nowhere")
    said = zoo("submit", sweep, "--out", store, "--cluster", bad, code=1)
    assert "did not take" in said
    assert "nowhere" in said or "partition" in said.lower()
    assert list(record_folder(store).rglob("*.pkl")) == []
    assert {t["state"] for t in ask("status", store, code=2)["tasks"]} == {"waiting"}
    ask("submit", store, "--cluster", profile_file(tmp_path, "good"))
    assert wait_until_done(store)["complete"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 24 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    ballast = place / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(65536))
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(512))
    return ballast


def test_a_full_disk(tmp_path, small_disk):
    """Before submitting it is one error; in a job it costs nothing that was committed."""
    sweep, store = sweep_file(tmp_path, grid={"seed": [0, 1]}), small_disk / "z.zarr"
    profile = profile_file(tmp_path, environment=slow(0.3))
    ask("submit", sweep, "--out", store, "--cluster", profile)

    def committed():
        return ask("status", store, code=None)["checkpoints"]["committed"]

    wait_for(committed, what="the first commit")
    ballast = fill(small_disk)
    status = wait_until_done(store)
    kept = status["checkpoints"]["committed"]
    assert not status["complete"], "it was through before the disk was full"
    assert kept
    assert status["cluster"]["elements"][0]["state"] == "FAILED"
    said = zoo("submit", store, "--cluster", profile, code=1)
    assert "No space left on device" in said
    assert said.count("zoo:") == 1
    ballast.unlink()
    assert committed() == kept
    ask("retry", store)
    assert wait_until_done(store)["complete"]
    assert verify_store(store).problems == ()


def test_a_read_only_store(tmp_path, small_disk):
    sweep, store = sweep_file(tmp_path, grid={"seed": [0, 1]}), small_disk / "z.zarr"
    profile = profile_file(tmp_path)
    slurm("scontrol", "update", "partitionname=main", "state=down")
    try:
        ask("submit", sweep, "--out", store, "--cluster", profile)
        ask("cancel", store)
        wait_for(lambda: not slurm("squeue", "-h").strip(), what="the end of cancelled jobs")
    finally:
        slurm("scontrol", "update", "partitionname=main", "state=up")
    time.sleep(0.2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = zoo("submit", store, "--cluster", profile, code=1)
    assert "Read-only file system" in said
    assert said.count("zoo:") == 1
    assert {t["state"] for t in ask("status", store, code=2)["tasks"]} == {"waiting"}
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    ask("submit", store, "--cluster", profile)
    assert wait_until_done(store)["complete"]
