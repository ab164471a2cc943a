"""GraNd of a stacked cohort: ghost norms beside torch.func's per-sample gradients.

    python -m benchmarks.bench_grand [--out FILE]

CPU-seconds of the process and peak memory, one thread. The rival is ``vmap(grad)`` over the plain
module of each model in turn, as its documentation has it, in the same chunks; also over all models
at once where that fits. Both give the same norms, which is checked.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from zoo.architectures import build, initial_row
from zoo.architectures.network import row_to_state_dict
from zoo.data import DataShape
from zoo.diets.scoring import score_models
from zoo.objectives import OBJECTIVES
from zoo.provenance import fingerprint
from zoo.spec import RunSpec

MODELS, EXAMPLES = 10, 512
CASES = {
    "mlp-64, 8x8": (RunSpec(width=64), (1, 8, 8)),
    "mlp-256, 8x8": (RunSpec(width=256), (1, 8, 8)),
    "mlp-100, 40": (RunSpec(width=100, data="mnist1d"), (1, 40)),
    "mlp-256, 28x28": (RunSpec(width=256), (1, 28, 28)),
    "cnn-16, 8x8": (RunSpec(architecture="cnn", width=16), (1, 8, 8)),
    "cnn-16, 28x28": (RunSpec(architecture="cnn", width=16), (1, 28, 28)),
}
#: Examples of a chunk for the rival: all where P is small, less where [N, P] would not fit.
CHUNK = {"mlp": 256, "cnn": 64}


def setting(case):
    run, shape = CASES[case]
    network = build(run, DataShape(shape, 10))
    rows = [initial_row(network.layout, init="default", scale=1.0, seed=s) for s in range(MODELS)]
    x = torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(0))
    return network, torch.from_numpy(np.stack(rows)), x, torch.arange(EXAMPLES) % 10


def ghost(case):
    network, slab, x, labels = setting(case)
    stacked, loss = network.inputs(x), OBJECTIVES["cross_entropy"]("class")
    return lambda: score_models(network, loss, slab, stacked, labels[None], ["grand"])["grand"]


def per_sample(case, *, together):
    network, slab, x, labels = setting(case)
    modules = []
    for row in slab:
        module = network.module()
        module.load_state_dict(row_to_state_dict(network.layout, row.numpy()))
        modules.append(module)
    base = modules[0]
    size = CHUNK[case[:3]]

    def loss(params, one, label):
        return F.cross_entropy(functional_call(base, params, (one[None],)), label[None])

    norms = vmap(grad(loss), (None, 0, 0))

    def square(grads, first):
        return torch.stack([g.flatten(first).square().sum(-1) for g in grads.values()]).sum(0)

    def loop():
        rows = []
        for module in modules:
            params = {k: p.detach() for k, p in module.named_parameters()}
            parts = [
                square(norms(params, x[i : i + size], labels[i : i + size]), 1)
                for i in range(0, EXAMPLES, size)
            ]
            rows.append(torch.cat(parts))
        return torch.stack(rows).sqrt()

    def at_once():
        params, _ = stack_module_state(modules)
        params = {k: p.detach() for k, p in params.items()}
        every = vmap(norms, (0, None, None))
        few = max(size // MODELS, 8)
        parts = [
            square(every(params, x[i : i + few], labels[i : i + few]), 2)
            for i in range(0, EXAMPLES, few)
        ]
        return torch.cat(parts, 1).sqrt()

    return at_once if together else loop


WAYS = {
    "ghost": ghost,
    "vmap a model": lambda case: per_sample(case, together=False),
    "vmap at once": lambda case: per_sample(case, together=True),
}


def measure(case, way):
    """Return CPU-seconds (best of two) and the megabytes that the peak grew by."""
    torch.set_num_threads(1)
    act = WAYS[way](case)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    norms = act()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    seconds = []
    for _ in range(2):
        start = time.process_time()
        act()
        seconds.append(time.process_time() - start)
    return min(seconds), grown, float(norms.double().sum())


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.case:  # a process of its own, so that peak memory is that of one way
        print(*measure(args.case, args.way))
        return
    machine = fingerprint()
    lines = [
        f"GraNd of {MODELS} models on {EXAMPLES} examples, one thread, float32;"
        f" {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine['cpu']}, torch"
        f" {machine['versions']['torch']}.",
        "CPU ms, best of two; MB: growth of peak memory in the first call. vmap in chunks of"
        f" {CHUNK['mlp']} (mlp), {CHUNK['cnn']} (cnn).",
        "",
        f"{'model':<16}{'params':>9}{'ghost ms':>10}{'MB':>7}{'vmap ms':>10}{'MB':>7}"
        f"{'at once':>10}{'MB':>7}{'ratio':>8}{'memory':>8}",
    ]
    for case in CASES:
        found = {}
        for way in WAYS:
            words = [sys.executable, "-m", "benchmarks.bench_grand", "--case", case, "--way", way]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found[way] = tuple(map(float, done.stdout.split()))
        sums = [total for *_, total in found.values()]
        assert np.ptp(sums) < 1e-4 * sums[0], sums
        params = setting(case)[0].layout.trained
        (g, gm, _), (v, vm, _), (o, om, _) = found.values()
        best, memory = min(v, o), vm if v < o else om
        lines.append(
            f"{case:<16}{params:>9}{1e3 * g:>10.1f}{gm:>7.0f}{1e3 * v:>10.1f}{vm:>7.0f}"
            f"{1e3 * o:>10.1f}{om:>7.0f}{best / g:>7.1f}x{gm / max(memory, 1):>7.2f}x"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        Path(args.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
