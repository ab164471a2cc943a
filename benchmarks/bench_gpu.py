"""Models trained a second on a GPU: the engine beside what one would write without it.

One step is gather, forward, loss, backward and update; every engine gets the same ids, drawn
before the clock starts. The table gives model-steps a second, for M models trained together (the
one-by-one loops do not depend on M), and how many times the loop's.

    python benchmarks/bench_gpu.py                        # the whole table, some minutes
    python benchmarks/bench_gpu.py --models 1 64 1024     # some of it
    python benchmarks/bench_gpu.py --json out.json
    python benchmarks/bench_gpu.py --smoke                # runs the code once on a CPU, no figures
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from gpu_timing import begin, seconds
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional as F

from zoo.architectures import build, initial_row
from zoo.data import DataShape
from zoo.kernels.language import without_kernels
from zoo.objectives import OBJECTIVES
from zoo.optim import OPTIMIZERS
from zoo.spec import RunSpec
from zoo.train import backends
from zoo.train.backends import conv_form, step_function
from zoo.train.group import coefficient_table
from zoo.train.span import Span
from zoo.train.step import Inputs, Recipe, State

EXAMPLES = 8192
BLOCK = 16


@dataclass(frozen=True)
class Workload:
    """What is trained. ``small_cnn`` is the Small CNN Zoo's net, 4,970 parameters (Unterthiner et
    al. 2020, arXiv 2002.11448), on pictures of its size.
    """

    name: str
    shape: tuple[int, ...]
    fields: dict[str, object]
    batch: int

    def run(self, seed: int = 0) -> RunSpec:
        base = {"data": "digits", "lr": 0.01, "steps": 10**6, "weight_decay": 1e-4, "seed": seed}
        return RunSpec(**base, batch_size=self.batch, **self.fields).resolve(1437)


SGD = {"optimizer": "sgd", "momentum": 0.9}
WORKLOADS = [
    Workload("small_cnn", (1, 28, 28), {"architecture": "cnn", "width": 16, "depth": 3, **SGD}, 64),
    Workload("mlp-64", (1, 8, 8), {"width": 64, "depth": 2, **SGD}, 32),
    Workload("mlp-64-adamw", (1, 8, 8), {"width": 64, "depth": 2, "optimizer": "adamw"}, 32),
    Workload("mlp-256-layer", (1, 28, 28), {"width": 256, "depth": 2, "norm": "layer", **SGD}, 128),
]


class Data:
    """Random pictures, labels, and ids for a block of steps: content does not change the time."""

    def __init__(self, work: Workload, models: int, device: str) -> None:
        random = torch.Generator().manual_seed(0)
        self.x = torch.randn(EXAMPLES, *work.shape, generator=random).to(device)
        self.y = torch.randint(0, 10, (EXAMPLES,), generator=random).to(device)
        shape = (BLOCK, models, work.batch)
        self.ids = torch.randint(0, EXAMPLES, shape, generator=random).to(device)


def cycle(step: Callable[[int], None]) -> Callable[[], None]:
    """Return a call that takes the next step of the block."""
    at = {"n": 0}

    def call() -> None:
        step(at["n"] % BLOCK)
        at["n"] += 1

    return call


def loop(work: Workload, data: Data, device: str, *, graph: bool) -> Callable[[], None]:
    """One model: a plain module and torch.optim, launched op by op or captured whole."""
    run = work.run()
    module = build(run, DataShape(work.shape, 10)).module().train().to(device)
    kind = torch.optim.SGD if run.optimizer == "sgd" else torch.optim.AdamW
    more = {"momentum": 0.9} if run.optimizer == "sgd" else {"capturable": graph}
    optimizer = kind(module.parameters(), lr=run.lr, weight_decay=run.weight_decay, **more)
    ids = data.ids[0, 0].clone()

    def body() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(data.x[ids]), data.y[ids]).backward()
        optimizer.step()

    run_body = captured(body) if graph else body

    def step(n: int) -> None:
        ids.copy_(data.ids[n, 0])
        run_body()

    return cycle(step)


def captured(body: Callable[[], None]) -> Callable[[], None]:
    """Return the replay of a CUDA graph of ``body``, warmed up on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            body()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        body()
    return graph.replay


def stacked_vmap(
    work: Workload, data: Data, models: int, device: str, *, compiled: bool
) -> Callable[[], None]:
    """torch.func: vmap over stacked modules, hyper-parameters of each model in tensors."""
    run = work.run()
    network = build(run, DataShape(work.shape, 10))
    stacked, _ = stack_module_state([network.module() for _ in range(models)])
    p = {k: v.detach().clone().to(device) for k, v in stacked.items()}
    first = {k: torch.zeros_like(v) for k, v in p.items()}
    second = {k: torch.zeros_like(v) for k, v in p.items()}
    base = network.module().train().to("meta")
    lr = torch.full((models,), run.lr, device=device)
    t = torch.ones((), device=device)

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, params, (x,)), y)

    def step(ids: Tensor) -> None:
        grads, _ = vmap(grad_and_value(loss))(p, data.x[ids], data.y[ids])
        for name, value in p.items():
            rate = lr.view(-1, *(1,) * (value.dim() - 1))
            g, m = grads[name], first[name]
            if run.optimizer == "sgd":
                m.mul_(0.9).add_(g + run.weight_decay * value)
                value.sub_(rate * m)
                continue
            v = second[name]
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            root = (v / (1 - 0.999**t)).sqrt() + 1e-8
            value.copy_(value * (1 - rate * run.weight_decay) - rate * m / (1 - 0.9**t) / root)

    torch._dynamo.reset()
    go = torch.compile(step, dynamic=False, fullgraph=True) if compiled else step
    guard = torch.no_grad()

    def one(n: int) -> None:
        with guard:
            go(data.ids[n])

    return cycle(one)


def engine(
    work: Workload, data: Data, models: int, device: str, *, backend: str
) -> Callable[[], None]:
    """The engine's own step function on a group of M models."""
    runs = [work.run(seed) for seed in range(models)]
    network = build(runs[0], DataShape(work.shape, 10))
    shared = {"augmentation": "none", "nesterov": False, "has_dropout": False}
    loss = OBJECTIVES["cross_entropy"]("class")
    recipe = Recipe(
        network, loss, OPTIMIZERS[runs[0].optimizer], shared, torch.float32,
        conv_form(backend, device=device), dropout=False,
    )  # fmt: skip
    rows = [initial_row(network.layout, init="default", scale=1.0, seed=s) for s in range(models)]
    slab = torch.from_numpy(np.stack(rows)).to(device)
    shape = (models, network.layout.trained)
    moments = tuple(torch.zeros(shape, device=device) for _ in recipe.optimizer.moments)
    ones = torch.ones(models, dtype=torch.bool, device=device)
    ints = torch.zeros(models, dtype=torch.int64, device=device)
    state = State(slab, moments, ones, ints - 1)
    zeros = torch.zeros(models, device=device)
    labels = data.y.expand(models, -1).contiguous()
    settings = loss.settings(runs)
    settings = {name: values.to(device) for name, values in settings.items()}
    inputs = Inputs(network.inputs(data.x), labels, zeros, ints, ints, zeros, settings=settings)
    numbers = np.repeat(np.arange(BLOCK)[:, None], models, 1)
    table = coefficient_table(recipe.optimizer, runs, numbers).to(device)
    torch._dynamo.reset()
    take = step_function(recipe, backend, device=device)
    guard = torch.no_grad()

    live, steps = ones.expand(BLOCK, -1), torch.from_numpy(numbers).to(device)
    block = Span(data.ids, table, live, steps, 0, BLOCK)

    def one(n: int) -> None:
        with guard:
            take(state, inputs, block.between(n, n + 1))

    return cycle(one)


@contextmanager
def launched() -> Iterator[None]:
    """Steps launched op by op: no CUDA graph."""
    before, backends.graphed = backends.graphed, lambda take: take
    try:
        yield
    finally:
        backends.graphed = before


def plain(call: Callable[[], None]) -> Callable[[], None]:
    def without() -> None:
        with without_kernels():
            call()

    return without


def engines(work: Workload, data: Data, models: int, device: str) -> dict[str, Callable]:
    """Makers of one timed call each, that trains ``models`` models by a step."""

    def ours(*, graph: bool) -> Callable[[], None]:
        if graph:
            return engine(work, data, models, device, backend="eager")
        with launched():
            return engine(work, data, models, device, backend="eager")

    def torch_alone() -> Callable[[], None]:
        with launched():
            return plain(engine(work, data, models, device, backend="eager"))

    found: dict[str, Callable] = {
        "kernels + graph": lambda: ours(graph=True),
        "kernels": lambda: ours(graph=False),
        "stacked torch": torch_alone,
        "vmap": lambda: stacked_vmap(work, data, models, device, compiled=False),
    }
    if device != "cpu":
        found["stacked, compiled"] = lambda: engine(work, data, models, device, backend="compiled")
        found["vmap, compiled"] = lambda: stacked_vmap(work, data, models, device, compiled=True)
    return found


def measure(work: Workload, models: list[int], device: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    data = Data(work, 1, device)
    base = {}
    for name, graph in (("loop", False), ("loop + graph", True)):
        if graph and device == "cpu":
            continue
        base[name] = 1 / seconds(loop(work, data, device, graph=graph), device=device)
        rows.append({"workload": work.name, "M": 1, "engine": name, "rate": base[name]})
    for M in models:
        data = Data(work, M, device)
        for name, make in engines(work, data, M, device).items():
            row: dict[str, object] = {"workload": work.name, "M": M, "engine": name}
            try:
                rate = M / seconds(make(), device=device)
                rows.append({**row, "rate": rate, "times_loop": rate / base["loop"]})
            except torch.OutOfMemoryError:
                rows.append({**row, "rate": None, "why": "out of memory"})
            print(format_row(rows[-1]), flush=True)
    return rows


def format_row(row: dict) -> str:
    rate = row["rate"]
    text = f"{rate:>14,.0f}" if rate is not None else f"{row['why']:>14}"
    ratio = row.get("times_loop")
    end = f" {ratio:>8.1f}" if ratio is not None else ""
    return f"{row['workload']:<14} {row['M']:>5} {row['engine']:<18}{text}{end}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--workloads", nargs="+", choices=[w.name for w in WORKLOADS])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    begun = begin(smoke=args.smoke)
    if begun is None:
        return
    device, env = begun
    print(f"{'workload':<14} {'M':>5} {'engine':<18}{'model-steps/s':>14} {'x loop':>8}")
    rows = []
    for work in WORKLOADS:
        if args.workloads is None or work.name in args.workloads:
            rows += measure(work, [2] if args.smoke else args.models, device)
    if args.json and not args.smoke:
        args.json.write_text(json.dumps({"environment": env, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
