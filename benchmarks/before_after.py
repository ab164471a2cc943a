"""Two checkouts of phasezoo in turn: training rates of one as a ratio of the other's.

    python benchmarks/before_after.py --before OLD_CHECKOUT [--after NEW_CHECKOUT] [--json out.json]

Each checkout has a process of its own, which trains a cohort by the public engine; the processes
take turns, one block of steps at a time, so that a change of the machine's speed meets both. A
row's ratio is the median over the rounds of after / before, in CPU-seconds: above 1 is slower.
One thread; compilation and the first block are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: (architecture, width, norm, optimizer)
CASES = [
    ("mlp", 16, "none", "sgd"), ("mlp", 64, "none", "sgd"), ("mlp", 128, "none", "sgd"),
    ("mlp", 64, "none", "adamw"), ("mlp", 16, "batch", "sgd"), ("mlp", 64, "batch", "sgd"),
    ("mlp", 64, "group", "sgd"), ("cnn", 16, "none", "sgd"), ("cnn", 16, "batch", "sgd"),
    ("cnn", 32, "batch", "adamw"),
]  # fmt: skip
BACKENDS = ("eager", "compiled")
MODELS = 64


def worker() -> None:
    """Answer each line of input, a case, with the CPU-seconds of its blocks, one per line read."""
    import torch

    from zoo.spec import RecordSpec, RunSpec
    from zoo.train.plan import Task
    from zoo.train.planner import plan
    from zoo.train.trainer import TaskTrainer

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        if "case" in order:
            kind, width, norm, optimizer = order["case"]
            block, rounds = order["block"], order["rounds"]
            torch._dynamo.reset()
            runs = [
                RunSpec(
                    data="digits", architecture=kind, width=width, norm=norm, optimizer=optimizer,
                    lr=0.01, batch_size=32, steps=block * (rounds + 1), seed=seed,
                )
                for seed in range(MODELS)
            ]  # fmt: skip
            marks = tuple(block * k for k in range(rounds + 1))
            planned = plan(_Sweep(runs, RecordSpec(steps=marks, probe_size=0)),
                           backend=order["backend"])  # fmt: skip
            (cohort,) = planned.cohorts
            points = TaskTrainer(planned, cohort, Task(cohort.id, 0, 0, MODELS)).run()
            next(points)
            next(points)
            print(json.dumps("ready"), flush=True)
            continue
        start = time.process_time()
        next(points)
        print(json.dumps(time.process_time() - start), flush=True)


class _Sweep:
    name, axes, paths = "before_after", {}, {}

    def __init__(self, runs: list[Any], record: Any) -> None:
        self._runs, self.record = tuple(runs), record
        self.options = {"task_models": MODELS}

    def runs(self) -> tuple[Any, ...]:
        return self._runs


class Checkout:
    """A process that trains with the package of one checkout."""

    def __init__(self, path: Path) -> None:
        env = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker"], cwd=path, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, order: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a worker ended: see its messages above")
        return json.loads(answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--block", type=int, default=100, help="steps between two turns")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true")
    args = parser.parse_args()
    if args.worker:
        worker()
        return
    sides = {"before": Checkout(args.before.absolute()), "after": Checkout(args.after.absolute())}
    from heading import heading

    print(heading(), flush=True)
    print(f"{'row':<28} {'before ms':>9} {'after ms':>9} {'after/before':>12}   per model-step")
    rows = []
    for backend in BACKENDS:
        for case in CASES:
            name = f"{case[0]}-{case[1]} {case[2]} {case[3]} {backend}"
            if args.only not in name:
                continue
            order = {"case": case, "backend": backend, "block": args.block, "rounds": args.rounds}
            for side in sides.values():
                side.ask(order)
            taken: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(args.rounds - 1):
                turn = list(sides) if number % 2 else list(sides)[::-1]
                for which in turn:
                    taken[which].append(sides[which].ask({}))
            pairs = zip(taken["after"], taken["before"], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            ms = {which: min(t) * 1e3 / args.block / MODELS for which, t in taken.items()}
            rows.append({"row": name, "ratio": ratio, **ms})
            print(f"{name:<28} {ms['before']:>9.4f} {ms['after']:>9.4f} {ratio:>12.3f}", flush=True)
    print(f"largest: {max(r['ratio'] for r in rows):.3f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
