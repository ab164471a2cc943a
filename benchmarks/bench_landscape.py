"""Curvature of stacked models beside the usual ways, and all metrics beside training.

The recipe is λ_max and the trace of the Hessian. Every rival computes the same Hessian (mean
cross-entropy on one probe, evaluation mode, float32) of the same trained models, on one thread;
errors are against the dense float64 Hessian of some of them. Seconds are CPU-seconds.

    python benchmarks/bench_landscape.py recipe            # whole recipe, 64 models
    python benchmarks/bench_landscape.py products          # one Hessian-vector product
    python benchmarks/bench_landscape.py zoo SWEEP.toml    # every metric against training
    python benchmarks/bench_landscape.py recipe --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from heading import heading
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from zoo.architectures import build, initial_row, row_to_state_dict
from zoo.architectures.network import Network
from zoo.data import DataShape, load, prepare
from zoo.landscape.base import MODEL_METRICS, ModelBlock
from zoo.landscape.blocks import block_rows
from zoo.landscape.curvature import curvature
from zoo.landscape.hessian import Hessian
from zoo.landscape.stacked import Probe, mean_gradient
from zoo.objectives import OBJECTIVES
from zoo.spec import RunSpec
from zoo.train.memory import keep_freed_memory

Recipe = Callable[["World"], tuple[list[float], list[float]]]


class World:
    """Trained models of one architecture and a probe of n training examples."""

    def __init__(self, models: int, width: int, examples: int, norm: str) -> None:
        run = RunSpec(data="digits", architecture="mlp", width=width, norm=norm)
        self.network: Network = build(run, DataShape((1, 8, 8), 10))
        data = prepare(load("digits"), "standard")
        self.x = torch.from_numpy(data.train_x[:examples].copy())
        self.y = torch.from_numpy(data.train_y[:examples].copy())
        self.probe = Probe(
            self.network.inputs(self.x)[None],
            self.y[None],
            torch.full((1, examples), 1 / examples),
            OBJECTIVES["cross_entropy"]("class"),
        )
        layout = self.network.layout
        rows = [initial_row(layout, init="default", scale=1.0, seed=s) for s in range(models)]
        self.slab = torch.from_numpy(np.stack(rows))
        velocity = torch.zeros(models, layout.trained)
        with torch.no_grad():
            for _ in range(150):
                velocity = 0.9 * velocity + mean_gradient(self.network, self.slab, self.probe)[1]
                self.slab[:, : layout.trained] -= 0.1 * velocity
        self.modules = [self._module(row) for row in self.slab]

    def _module(self, row: Tensor) -> nn.Module:
        module = self.network.module()
        module.load_state_dict(row_to_state_dict(self.network.layout, row.numpy()))
        return module.eval()

    def exact(self, index: int) -> tuple[float, float]:
        """λ_max and trace of one model from its dense Hessian."""
        module = self._module(self.slab[index]).double()
        named = dict(module.named_parameters())
        flat = torch.cat([p.detach().flatten() for p in named.values()])
        sizes = [p.numel() for p in named.values()]

        def loss(w: Tensor) -> Tensor:
            parts = [v.view(p.shape) for v, p in zip(w.split(sizes), named.values(), strict=True)]
            state = dict(zip(named, parts, strict=True))
            return F.cross_entropy(functional_call(module, state, (self.x.double(),)), self.y)

        dense = torch.autograd.functional.hessian(loss, flat, vectorize=True)
        return float(torch.linalg.eigvalsh(dense)[-1]), float(dense.trace())


def ours(world: World) -> tuple[list[float], list[float]]:
    """Batched Lanczos and deflated Hutchinson, by blocks, as the stage does it."""
    size = block_rows(world.network, world.probe.size)
    found: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for start in range(0, len(world.slab), size):
            slab = world.slab[start : start + size]
            block = ModelBlock(
                network=world.network, slab=slab, initial=slab, train=world.probe,
                test=world.probe, seeds=torch.arange(start, start + len(slab)),
                edge=torch.ones(len(slab), dtype=torch.float64), classes=10,
            )  # fmt: skip
            values = curvature(block, MODEL_METRICS["curvature"].options)
            found[0].extend(values["lambda_max"].tolist())
            found[1].extend(values["hessian_trace"].tolist())
    return found


def pyhessian(world: World) -> tuple[list[float], list[float]]:
    """Model by model: power iteration and Hutchinson with PyHessian's defaults and stops.

    Its definitions (100 iterations at most, relative tolerance 1e-3, Rademacher vectors), without
    the fault that a negative running mean ends the trace at once.
    """
    tops, traces = [], []
    generator = torch.Generator().manual_seed(0)
    for module in world.modules:
        params = list(module.parameters())
        loss = F.cross_entropy(module(world.x), world.y)
        grads = torch.autograd.grad(loss, params, create_graph=True)

        def product(v: list[Tensor], grads=grads, params=params) -> list[Tensor]:
            return list(torch.autograd.grad(grads, params, grad_outputs=v, retain_graph=True))

        v = [torch.randn(p.shape, generator=generator) for p in params]
        value: float | None = None
        for _ in range(100):
            length = sum(float((t * t).sum()) for t in v) ** 0.5
            v = [t / length for t in v]
            hv = product(v)
            new = sum(float((a * b).sum()) for a, b in zip(hv, v, strict=True))
            v = hv
            if value is not None and abs(value - new) / (abs(value) + 1e-6) < 1e-3:
                value = new
                break
            value = new
        tops.append(float(value or 0.0))
        draws: list[float] = []
        for _ in range(100):
            z = [torch.randint(0, 2, p.shape, generator=generator).float() * 2 - 1 for p in params]
            before = np.mean(draws) if draws else 0.0
            draws.append(sum(float((a * b).sum()) for a, b in zip(product(z), z, strict=True)))
            if abs(np.mean(draws) - before) / (abs(before) + 1e-6) < 1e-3:
                break
        traces.append(float(np.mean(draws)))
    return tops, traces


def curvlinops_recipe(world: World) -> tuple[list[float], list[float]]:
    """Model by model: eigsh to 1e-4 and Hutch++ with 60 products, on curvlinops' operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from curvlinops import HessianLinearOperator, hutchpp_trace
    from scipy.sparse.linalg import eigsh

    tops, traces = [], []
    for module in world.modules:
        operator = HessianLinearOperator(
            module, nn.CrossEntropyLoss(), list(module.parameters()), [(world.x, world.y)],
            check_deterministic=False,
        )  # fmt: skip
        (top,) = eigsh(operator.to_scipy(), k=1, which="LA", tol=1e-4, return_eigenvectors=False)
        tops.append(float(top))
        traces.append(float(hutchpp_trace(operator, 60)))
    return tops, traces


def stacked_jvp(world: World, repeats: int) -> float:
    """CPU-seconds of a product for every model by vmap(jvp(grad))."""
    names = [s.name for s in world.network.layout.segments]
    module = world.network.module()
    stacked = {k: v.clone() for k, v in world.network.views(world.slab).items()}

    def loss(state: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(module, state, (world.x,)), world.y)

    def product(state: dict[str, Tensor], v: dict[str, Tensor]) -> dict[str, Tensor]:
        return jvp(grad(loss), (state,), (v,))[1]

    v = {k: torch.randn_like(stacked[k]) for k in names}
    run = vmap(product)
    run(stacked, v)
    start = time.process_time()
    for _ in range(repeats):
        run(stacked, v)
    return (time.process_time() - start) / repeats


def double_backward(world: World, repeats: int) -> float:
    """CPU-seconds of a product for every model through a cached graph of the stacked loss."""
    network = world.network
    w = world.slab.clone().requires_grad_()
    from zoo.landscape.stacked import EVAL

    z, _ = network.forward(network.views(w), world.probe.inputs(len(w)), EVAL)
    each = F.cross_entropy(z.mT, world.probe.targets(len(w)), reduction="none") * world.probe.weight
    (g,) = torch.autograd.grad(each.sum(), w, create_graph=True)
    v = torch.randn_like(w)
    torch.autograd.grad(g, w, grad_outputs=v, retain_graph=True)
    start = time.process_time()
    for _ in range(repeats):
        torch.autograd.grad(g, w, grad_outputs=v, retain_graph=True)
    return (time.process_time() - start) / repeats


def second_pass(world: World, repeats: int) -> float:
    """CPU-seconds of a product for every model by our second linear pass, by blocks."""
    size = block_rows(world.network, world.probe.size)
    spent = 0.0
    with torch.no_grad():
        for start in range(0, len(world.slab), size):
            hessian = Hessian(world.network, world.slab[start : start + size], world.probe)
            v = torch.randn(hessian.models, hessian.size)
            hessian.product(v)
            begin = time.process_time()
            for _ in range(repeats):
                hessian.product(v)
            spent += time.process_time() - begin
    return spent / repeats


def bench_recipe(args: argparse.Namespace) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    rivals: dict[str, Recipe] = {
        "ours": ours,
        "pyhessian-style loop": pyhessian,
        "curvlinops": curvlinops_recipe,
    }
    # Wider ones have no dense Hessian that fits in memory to hold the values against.
    for width, examples, norm in ((16, 640, "none"), (16, 1024, "none"), (16, 1024, "batch")):
        world = World(args.models, width, examples, norm)
        known = range(0, args.models, max(1, args.models // args.exact))
        exact = {i: world.exact(i) for i in known}
        base = None
        for name, recipe in rivals.items():
            best = np.inf
            for _ in range(args.repeats if name == "ours" else 1):
                start = time.process_time()
                tops, traces = recipe(world)
                best = min(best, time.process_time() - start)
            base = best if base is None else base
            top = max(abs(tops[i] / value[0] - 1) for i, value in exact.items())
            trace = np.sqrt(np.mean([(traces[i] / v[1] - 1) ** 2 for i, v in exact.items()]))
            rows.append(
                {
                    "case": f"{args.models} x mlp w{width} n{examples} {norm}",
                    "method": name,
                    "cpu_s": round(best, 2),
                    "times_ours": round(best / base, 1),
                    "lambda_max_worst": f"{top:.1e}",
                    "trace_rms": f"{trace:.1%}",
                }
            )
            show(rows[-1])
    return rows


def bench_products(args: argparse.Namespace) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for width, examples in ((8, 200), (16, 640), (16, 1024), (32, 1024), (64, 1024)):
        world = World(args.models, width, examples, "none")
        found = {
            "second pass (ours)": second_pass(world, args.repeats),
            "cached double backward": double_backward(world, args.repeats),
            "vmap(jvp(grad))": stacked_jvp(world, args.repeats),
        }
        base = found["second pass (ours)"]
        for name, seconds in found.items():
            rows.append(
                {
                    "case": f"{args.models} x mlp w{width} n{examples}",
                    "method": name,
                    "cpu_ms_a_product": round(1e3 * seconds, 2),
                    "times_ours": round(seconds / base, 1),
                }
            )
            show(rows[-1])
    return rows


def bench_zoo(args: argparse.Namespace) -> list[dict[str, object]]:
    """Train a sweep and measure it, in this process, and compare CPU-seconds."""
    from zoo.launch.local import run
    from zoo.launch.stages import run_stage
    from zoo.stages.landscape_settings import NAME, landscape_settings

    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "zoo.zarr"
        start = cpu_seconds()
        summary = run(args.sweep, path, workers=0)
        training = cpu_seconds() - start
        case = f"{Path(args.sweep).stem}, {summary.models} models"
        rows.append({"case": case, "what": "training", "cpu_s": round(training, 1)})
        show(rows[-1])
        start = cpu_seconds()
        run_stage(path, NAME, landscape_settings(), workers=0)
        spent = cpu_seconds() - start
        row = {"case": case, "what": "every metric, published", "cpu_s": round(spent, 1)}
        rows.append({**row, "times_training": round(spent / training, 2)})
        show(rows[-1])
    return rows


def cpu_seconds() -> float:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def show(row: dict[str, object]) -> None:
    print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("recipe", "products", "zoo"))
    parser.add_argument("sweep", nargs="?", default="sweeps/phases_digits.toml")
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--exact", type=int, default=8, help="models with a dense Hessian")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(heading("curvlinops-for-pytorch"), flush=True)
    found = {"recipe": bench_recipe, "products": bench_products, "zoo": bench_zoo}[args.what](args)
    if args.json:
        facts = {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "rows": found,
        }
        args.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
