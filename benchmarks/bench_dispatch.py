"""What SLURM costs beside training: 1,000 small runs, submitted to whatever cluster answers.

    slurm/devcluster up; eval "$(slurm/devcluster env)"
    python benchmarks/bench_dispatch.py --cluster devcluster

Prints seconds of submitting, of queueing, of starting an element, and of everything but training
per task. A rival that runs one job a model pays the start once a model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from heading import heading

from zoo.launch.slurm_client import slurm_config
from zoo.launch.submissions import submissions
from zoo.spec import Sweep
from zoo.store import StoreReader
from zoo.store.commits import read_seal
from zoo.store.paths import StorePaths


def sweep(runs: int) -> Sweep:
    return Sweep.from_dict(
        {
            "name": "dispatch",
            "base": {"data": "digits", "momentum": 0.9, "steps": 10, "width": 4},
            "grid": {"seed": {"range": [0, runs]}},
            "record": {"steps": [10], "probe_size": 0},
        }
    )


def zoo(*words: object) -> dict:
    command = [sys.executable, "-m", "zoo.cli", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 1:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def log_times(store: Path) -> list[tuple[float, float]]:
    """Return when each element's program started and ended, from its log."""
    found = []
    for submission in submissions(store):
        for number in range(len(submission.elements)):
            out, _ = submission.logs(number)
            lines = out.read_text().replace("submitit INFO (", "").splitlines()
            stamps = [
                time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S"))
                for line in lines
                if line[:2] == "20"
            ]
            found.append((stamps[0], stamps[-1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cluster", default="devcluster", help="profile")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the nodes can write; default: a new one")
    args = parser.parse_args()
    slurm_config()  # one clear error where there is no scheduler
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        file, store = Path(folder, "dispatch.toml"), Path(folder, "dispatch.zarr")
        file.write_text(sweep(args.runs).to_toml())
        begin = time.time()
        made = zoo("submit", file, "--out", store, "--cluster", args.cluster)
        submitted = time.time()
        while not (status := zoo("status", store))["complete"]:
            live = [e for e in status["cluster"]["elements"] if e["live"]]
            if not live:
                raise SystemExit(json.dumps(status["cluster"], indent=1))
            time.sleep(0.5)
        ended = time.time()
        time.sleep(3)  # the last log line
        paths, plan = StorePaths(store), StoreReader(store).plan
        tasks = list(plan.tasks())
        trained = sum(read_seal(paths, task).wall_s for task in tasks)
        spans = log_times(store)
        busy = sum(stop - start for start, stop in spans)
        rows = {
            "runs": args.runs,
            "tasks": len(tasks),
            "array elements": made["elements"],
            "submit, s": submitted - begin,
            "until all done, s": ended - begin,
            "training, worker s": trained,
            "first start after submitting, s": min(start for start, _ in spans) - submitted,
            "besides training, s an element": busy / len(spans) - trained / len(spans),
            "besides training, s a task": (busy - trained) / len(tasks),
            "besides training, ms a run": (busy - trained) / args.runs * 1000,
        }
    print(heading("submitit"))
    for name, value in rows.items():
        print(f"{name:<34} {value:,.4g}")


if __name__ == "__main__":
    main()
