"""Helpers of the SLURM tests: sweeps, profiles, the command line, and looking at processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import tomli_w

from zoo.cli import main
from zoo.spec import Sweep

SLOW = Path(__file__).parent / "slow"


def sweep_file(folder: Path, **tables) -> Path:
    base = {
        "name": "tiny",
        "base": {"data": "digits", "momentum": 0.9, "steps": 30},
        "grid": {"width": [4, 8], "batch_size": [32, 64], "seed": [0, 1]},
        "record": {"steps": [10, 20], "probe_size": 8},
    }
    path = folder / f"{tables.get('name', 'tiny')}.toml"
    path.write_text(Sweep.from_dict({**base, **tables}).to_toml())
    return path


def profile_file(folder: Path, name: str = "p", **settings) -> Path:
    base = {
        "partition": "main", "time": "0:30:00", "cpus": 1, "gpus": 1, "device": "cpu",
        "memory": "600MB", "parallelism": 4, "target_minutes": 1e-6, "signal_s": 60,
    }  # fmt: skip
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps({**base, **settings}))
    return path


def slow(sync_s: float, **more: str) -> dict[str, str]:
    """Return the environment of jobs whose disk is slow."""
    path = [str(SLOW), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "TEST_SYNC_S": str(sync_s), **more}


def zoo(*words: object, code: int | None = 0) -> str:
    """Run the command line in this process; return what it prints."""
    return "".join(_call(words, code))


def _call(words: tuple[object, ...], code: int | None) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main([str(word) for word in words])
    assert code is None or found == code, f"exit {found}\n{out.getvalue()}{err.getvalue()}"
    return out.getvalue(), err.getvalue()


def ask(*words: object, code: int | None = 0):
    """Run a verb with --json; return the document on standard output."""
    return json.loads(_call((*words, "--json"), code)[0])


def wait_for(condition, seconds: float = 90.0, what: str = "it"):
    """Wait until a condition holds; return its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true in {seconds:g} s"
        time.sleep(0.2)


def wait_until_done(store: Path, seconds: float = 300.0) -> dict:
    def ended():
        status = ask("status", store, code=None)
        live = [e for e in status["cluster"]["elements"] if e["live"]]
        return None if live or status["cluster"]["trouble"] else status

    return wait_for(ended, seconds, f"the jobs of {store}")


def processes(job: str) -> list[tuple[int, str]]:
    """Return (process id, role) of an array element's processes on this machine.

    The role is ``element`` for the process that SLURM started, ``worker`` for those that train.
    """
    array, _, index = job.partition("_")
    wanted = [f"SLURM_CONF={os.environ['SLURM_CONF']}"]
    if index:
        wanted += [f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={index}"]
    else:
        wanted += [f"SLURM_JOB_ID={array}"]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if not set(wanted) <= set(environment) or "python" not in words[0]:
            continue
        role = "element" if "submitit.core._submit" in words else "worker"
        found.append((int(folder.name), role))
    return found


def kill(job: str, role: str, number: int = signal.SIGKILL) -> bool:
    """Send a signal to the processes of a role; return whether there was one."""
    hit = False
    for pid, found in processes(job):
        if found == role:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                hit = True
    return hit


def slurm(*words: object) -> str:
    """Run one of SLURM's commands; return what it prints, or an error if it does not answer."""
    command = [str(word) for word in words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "error: no answer"
    return done.stdout + done.stderr


def tree(*roots: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return name → (mode, time of change, content) of everything under some folders."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            facts = path.stat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (facts.st_mode, facts.st_mtime_ns, data)
    return found
