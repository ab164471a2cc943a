"""Training throughput: the stacked engine beside one-by-one PyTorch and torch.func.vmap.

Same specs, same machine, one thread, CPU-seconds of the process (and wall). Compilation is left out
of the rates and reported on its own. Every engine draws its own data order and gathers its own
batches; evaluation and storage are in none of them.

    python benchmarks/bench_train.py                  # the whole table
    python benchmarks/bench_train.py --quick          # a few rows
    python benchmarks/bench_train.py --modules        # a user's own modules, of docs/extend.md
    python benchmarks/bench_train.py --json out.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional as F

from zoo.architectures import build
from zoo.architectures.init import initial_row_of
from zoo.arithmetic import pinned
from zoo.data import load, prepare
from zoo.objectives import OBJECTIVES
from zoo.optim import OPTIMIZERS
from zoo.plugins import load_plugin
from zoo.spec import RunSpec
from zoo.train.backends import PRECISIONS, conv_form, step_function
from zoo.train.group import make_group
from zoo.train.memory import keep_freed_memory
from zoo.train.planner import OWN_GROUP, cohort_key, group_size
from zoo.train.segment import Stretch, stacked_segment
from zoo.train.step import Recipe, State
from zoo.train.task_data import ExampleSet, TaskData

BATCH = 32
#: Models that vmap takes at once of modules that are not ours.
VMAP_GROUP = 64


@dataclass(frozen=True)
class Case:
    architecture: str
    width: int
    norm: str
    optimizer: str

    def spec(self, seed: int = 0, lr: float = 0.01) -> RunSpec:
        return RunSpec(
            data="digits", architecture=self.architecture, width=self.width, norm=self.norm,
            optimizer=self.optimizer, lr=lr, weight_decay=1e-4, batch_size=BATCH, steps=10**6,
            momentum=0.9 if self.optimizer == "sgd" else None, seed=seed,
        ).resolve(1437)  # fmt: skip


@dataclass
class Timing:
    cpu: float = float("inf")
    wall: float = float("inf")
    compile: float = 0.0


def measure(take: Callable[[int], None], steps: int, rounds: int) -> Timing:
    """Best of several rounds; the first call, with compilation in it, is timed apart."""
    start = time.perf_counter()
    take(3)
    timing = Timing(compile=time.perf_counter() - start)
    for _ in range(rounds):
        cpu, wall = time.process_time(), time.perf_counter()
        take(steps)
        timing.cpu = min(timing.cpu, (time.process_time() - cpu) / steps)
        timing.wall = min(timing.wall, (time.perf_counter() - wall) / steps)
    return timing


class Data:
    def __init__(self) -> None:
        self.prepared = prepare(load("digits"), "standard")
        self.x = torch.from_numpy(self.prepared.train_x)
        self.y = torch.from_numpy(self.prepared.train_y)


def loop_engine(case: Case, data: Data) -> Callable[[int], None]:
    """One model, a plain module, torch.optim, a shuffled epoch drawn by torch."""
    run = case.spec()
    network = build(run, data.prepared.shape)
    module = network.module().train()
    optimizer = OPTIMIZERS[run.optimizer].torch(module.parameters(), run)
    per_epoch = len(data.y) // BATCH
    state = {"step": 0, "order": torch.empty(0)}

    def take(steps: int) -> None:
        for _ in range(steps):
            position = state["step"] % per_epoch
            if position == 0:
                state["order"] = torch.randperm(len(data.y))
            ids = state["order"][position * BATCH : (position + 1) * BATCH]
            optimizer.zero_grad()
            F.cross_entropy(module(data.x[ids]), data.y[ids]).backward()
            optimizer.step()
            state["step"] += 1

    return take


def stackable(case: Case, data: Data) -> nn.Module:
    """The module as vmap can take it: batch norm without running statistics (less work)."""
    module = build(case.spec(), data.prepared.shape).module()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return module.train()


def vmap_update(case: Case, p: dict, moments: list[dict], grads: dict, t: Tensor, h: dict) -> None:
    """SGD with momentum or AdamW with per-model vectors, the natural way to write it."""
    for name, value in p.items():
        shape = (-1, *(1,) * (value.dim() - 1))
        lr, wd = h["lr"].view(shape), h["wd"].view(shape)
        g, m = grads[name], moments[0][name]
        if case.optimizer == "sgd":
            m.copy_(h["momentum"].view(shape) * m + g + wd * value)
            value.sub_(lr * m)
        else:
            v = moments[1][name]
            b1, b2 = h["beta1"].view(shape), h["beta2"].view(shape)
            m.copy_(b1 * m + (1 - b1) * g)
            v.copy_(b2 * v + (1 - b2) * g * g)
            root = (v / (1 - b2**t)).sqrt() + 1e-8
            value.copy_(value * (1 - lr * wd) - lr * (m / (1 - b1**t)) / root)


def vmap_engine(case: Case, data: Data, G: int, *, compiled: bool) -> Callable[[int], None]:
    modules = [stackable(case, data) for _ in range(G)]
    stacked, _ = stack_module_state(modules)
    p = {k: v.detach().clone() for k, v in stacked.items()}
    moments = [{k: torch.zeros_like(v) for k, v in p.items()} for _ in range(2)]
    base = stackable(case, data).to("meta")
    ones = torch.ones(G)
    h = {"lr": ones * 0.01, "wd": ones * 1e-4, "momentum": ones * 0.9, "beta1": ones * 0.9,
         "beta2": ones * 0.999}  # fmt: skip

    def loss(params: dict, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, params, (x,)), y)

    def step(params: dict, moments: list[dict], ids: Tensor, t: Tensor) -> None:
        grads, _ = vmap(grad_and_value(loss))(params, data.x[ids], data.y[ids])
        vmap_update(case, params, moments, grads, t, h)

    go = torch.compile(step, dynamic=False, fullgraph=True) if compiled else step
    per_epoch = len(data.y) // BATCH
    state = {"step": 0, "order": torch.empty(0)}

    @torch.no_grad()
    def take(steps: int) -> None:
        for _ in range(steps):
            position = state["step"] % per_epoch
            if position == 0:
                state["order"] = torch.stack([torch.randperm(len(data.y)) for _ in range(G)])
            ids = state["order"][:, position * BATCH : (position + 1) * BATCH]
            go(p, moments, ids, torch.tensor(float(state["step"] + 1)))
            state["step"] += 1

    return take


def zoo_engine(case: Case, data: Data, G: int, backend: str) -> Callable[[int], None]:
    """The engine's own segment: data order, coefficients, steps and last-step norms."""
    from zoo.spec import RecordSpec

    runs = [case.spec(seed=s) for s in range(G)]
    prepared = data.prepared
    network = build(runs[0], prepared.shape)
    stacked = network.inputs(data.x)
    loss = OBJECTIVES["cross_entropy"]("class")
    sets = {"train": ExampleSet(stacked, data.y[None], None)}
    task = TaskData(prepared, data.x, stacked, sets, loss, None)
    key = cohort_key(runs[0], load("digits"), RecordSpec(steps=(1,)))
    recipe = Recipe(network, loss, OPTIMIZERS[case.optimizer], key, PRECISIONS["float32"],
                    conv_form(backend), dropout=False)  # fmt: skip
    group = make_group(runs, np.zeros((G, 1), dtype=np.int64), G, task, subset=False)
    take_step = step_function(recipe, backend)
    rows = [initial_row_of(network, run) for run in runs]
    slab = torch.from_numpy(np.stack(rows))
    trained = network.layout.trained
    moments = tuple(torch.zeros(G, trained) for _ in recipe.optimizer.moments)
    state = State(slab, moments, torch.ones(G, dtype=torch.bool), torch.full((G,), -1))
    position = {"step": 0}

    @torch.no_grad()
    def take(steps: int) -> None:
        start = np.full(G, position["step"], dtype=np.int64)
        stacked_segment(recipe, take_step, group, state, Stretch(start, start + steps))
        position["step"] += steps
        if not bool(state.active.all()):
            msg = "a model diverged: the timing would not count"
            raise RuntimeError(msg)

    return take


def matmul_engine(case: Case, data: Data, G: int) -> Callable[[int], None]:
    """Only the matrix products of a fully connected network's step: what no engine can beat."""
    network = build(case.spec(), data.prepared.shape)
    sizes = [s.shape for s in network.layout.segments if s.name.endswith("weight")]
    layers = [(torch.randn(G, BATCH, i), torch.randn(G, o, i), torch.randn(G, BATCH, o))
              for o, i in (shape for shape in sizes if len(shape) == 2)]  # fmt: skip

    def take(steps: int) -> None:
        for _ in range(steps):
            for n, (x, w, d) in enumerate(layers):
                torch.bmm(x, w.mT)
                torch.bmm(d.mT, x)
                if n:
                    torch.bmm(d, w)

    return take


def run_case(case: Case, data: Data, steps: int, rounds: int) -> dict[str, object]:
    network = build(case.spec(), data.prepared.shape)
    G = OWN_GROUP if network.bits_vary else group_size(network, BATCH)
    many = VMAP_GROUP if case.architecture.startswith("my_") else G
    loop = measure(loop_engine(case, data), steps, rounds)
    row: dict[str, object] = {**dataclasses.asdict(case), "params": network.layout.params, "G": G}
    row["loop_us"] = loop.cpu * 1e6
    engines: dict[str, Callable[[], Callable[[int], None]]] = {
        "zoo_eager": lambda: zoo_engine(case, data, G, "eager"),
        "zoo_compiled": lambda: zoo_engine(case, data, G, "compiled"),
        "vmap_eager": lambda: vmap_engine(case, data, many, compiled=False),
        "vmap_compiled": lambda: vmap_engine(case, data, many, compiled=True),
    }
    for name, make in engines.items():
        torch._dynamo.reset()
        with pinned():  # as training does; attention is plain products there
            timing = measure(make(), steps, rounds)
        count = many if name.startswith("vmap") else G
        row[f"{name}_x"] = loop.cpu / (timing.cpu / count)
        row[f"{name}_wall_x"] = loop.wall / (timing.wall / count)
        row[f"{name}_models_steps_per_s"] = count / timing.cpu
        row[f"{name}_compile_s"] = timing.compile
    row["limit_x"] = float("nan")
    if case.architecture == "mlp":
        limit = measure(matmul_engine(case, data, G), steps, rounds)
        row["limit_x"] = loop.cpu / (limit.cpu / G)
    return row


def cases(*, quick: bool) -> list[Case]:
    if quick:
        return [Case("mlp", 16, "none", "sgd"), Case("mlp", 64, "none", "sgd"),
                Case("cnn", 16, "batch", "sgd")]  # fmt: skip
    found = []
    for architecture, widths in (("mlp", (16, 64, 128, 256)), ("cnn", (16, 32))):
        for width in widths:
            for norm in ("none", "batch", "group"):
                found += [Case(architecture, width, norm, o) for o in ("sgd", "adamw")]
    return found


def own_modules() -> list[Case]:
    """Load the plug-in of docs/extend.md; return its networks."""
    page = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "my_zoo.py"
        file.write_text(page.split("```python\n")[1].split("```")[0])
        load_plugin(file)
    return [Case(name, 16, "none", o) for name in ("my_resnet", "my_attention")
            for o in ("sgd", "adamw")]  # fmt: skip


def environment() -> dict[str, object]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.processor(),
    )  # fmt: skip
    return {"cpu": model, "cores": os.cpu_count(), "torch": torch.__version__,
            "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}  # fmt: skip


HEADER = (
    f"{'model':<15} {'norm':<6} {'opt':<6} {'G':>3} {'loop us':>8} {'eager x':>8} {'comp x':>8} "
    f"{'vmap x':>8} {'vmapC x':>8} {'zoo/vmapC':>9} {'limit x':>8} {'compile s':>9}"
)


def format_row(r: dict) -> str:
    name = f"{r['architecture']}-{r['width']}"
    ahead = r["zoo_compiled_x"] / r["vmap_compiled_x"]
    return (
        f"{name:<15} {r['norm']:<6} {r['optimizer']:<6} {r['G']:>3} {r['loop_us']:>8.0f} "
        f"{r['zoo_eager_x']:>8.1f} {r['zoo_compiled_x']:>8.1f} {r['vmap_eager_x']:>8.1f} "
        f"{r['vmap_compiled_x']:>8.1f} {ahead:>9.2f} {r['limit_x']:>8.1f} "
        f"{r['zoo_compiled_compile_s']:>9.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--modules", action="store_true", help="the networks of docs/extend.md")
    parser.add_argument("--only", default="", help="rows whose name has this text")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    data = Data()
    env = environment()
    print("  ".join(f"{k}={v}" for k, v in env.items()))
    print("x = CPU-seconds of the one-by-one loop over CPU-seconds of the engine, per model-step")
    print("limit = the same for the matrix products of an MLP's step alone, by torch.bmm")
    print(HEADER)
    rows = []
    for case in own_modules() if args.modules else cases(quick=args.quick):
        if args.only not in f"{case.architecture}-{case.width} {case.norm} {case.optimizer}":
            continue
        rows.append(run_case(case, data, args.steps, args.rounds))
        print(format_row(rows[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps({"environment": env, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
