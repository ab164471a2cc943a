"""Every kernel beside torch: bytes a second, against the rate at which the card copies.

Bytes are those that the operation must move: each input read once, each output written once. A
rival that takes more passes shows as a lower rate, so that rates of one row compare. Rivals are the
plain-torch reference of the same name, eager and through torch.compile, and the operation as one
would put it together from kernels of one purpose each (torch.optim fused, one model after another;
torch's cross-entropy, softmax and norms; Liger's kernels where they are installed).

    python benchmarks/bench_kernels.py                    # the table
    python benchmarks/bench_kernels.py --json out.json
    python benchmarks/bench_kernels.py --record-conv      # times the forms of the convolution,
                                                          # writes zoo/kernels/conv_forms.json
    python benchmarks/bench_kernels.py --smoke            # runs the code once on a CPU, no figures
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gpu_timing import begin, copy_rate, seconds
from torch import Tensor
from torch.nn import functional as F

from zoo.architectures import build
from zoo.architectures.conv import Conv, Window
from zoo.architectures.op import Mode, Shape
from zoo.data import DataShape
from zoo.kernels.batch_norm import BatchNormForm, batch_norm, batch_norm_torch
from zoo.kernels.conv_forms import FORMS, TABLE
from zoo.kernels.cross_entropy import softmax_cross_entropy, softmax_cross_entropy_torch
from zoo.kernels.dropout import dropout, dropout_torch
from zoo.kernels.gather import Draw, Reading, gather, gather_torch
from zoo.kernels.ghost_norm import linear_square_norms, linear_square_norms_torch
from zoo.kernels.norm import Affine, NormSpec, norm, norm_backward, norm_torch
from zoo.kernels.optimizer_step import Update
from zoo.optim import OPTIMIZERS
from zoo.optim.fused import fused_step
from zoo.spec import RunSpec
from zoo.train.group import coefficient_table

#: (models, batch, spatial, inputs, outputs, stride) that ``--record-conv`` times.
CONVOLUTIONS = [
    (models, batch, (size, size), inputs, outputs, stride)
    for models in (64,)
    for batch in (32, 128)
    for size, inputs, outputs, stride in (
        (28, 1, 16, 2), (14, 16, 16, 2), (7, 16, 16, 2), (32, 3, 32, 1), (32, 32, 32, 1),
        (16, 32, 64, 2), (16, 64, 64, 1), (8, 64, 128, 2), (8, 128, 128, 1),
    )
]  # fmt: skip


@dataclass
class Case:
    """One operation at one size.

    Args:
        name: what the table calls it.
        bytes: that it must move.
        ours: the kernel.
        rivals: the same by other means.
    """

    name: str
    bytes: int
    ours: Callable[[], object]
    rivals: dict[str, Callable[[], object]] = field(default_factory=dict)


def nbytes(*tensors: Tensor) -> int:
    return sum(t.nbytes for t in tensors)


def compiled(function: Callable[..., object]) -> Callable[..., object]:
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def both(reference: Callable[[], object], device: str) -> dict[str, Callable[[], object]]:
    """The reference eager and, but for a smoke test, compiled."""
    return {"torch": reference} if device == "cpu" else {
        "torch": reference, "compiled": compiled(reference)
    }  # fmt: skip


# -- optimizer steps ----------------------------------------------------------------------


def optimizer_case(name: str, M: int, width: int, device: str) -> Case:
    """An MLP's slab; 64 to 256 wide gives about 1e5 parameters a model at width 256."""
    fields = {"momentum": 0.9} if name == "sgd" else {}
    run = RunSpec(
        data="digits", optimizer=name, width=width, depth=2, lr=1e-3, weight_decay=1e-4, **fields
    ).resolve(1437)
    layout = build(run, DataShape((1, 8, 8), 10)).layout
    optimizer = OPTIMIZERS[name]
    slabs = [torch.randn(M, layout.trained, device=device) for _ in range(2)]
    moments = [torch.rand(M, layout.trained, device=device) for _ in optimizer.moments]
    table = coefficient_table(optimizer, [run] * M, np.zeros((1, M), dtype=np.int64))[0].to(device)
    active = torch.ones(M, dtype=torch.bool, device=device)
    key = {"nesterov": False, "decay_mask": "all"}
    names = optimizer.names(clipped=False)
    coefficients = dict(zip(names, table.unbind(0), strict=True))

    def plain() -> None:
        new, moved = optimizer.step(*slabs, moments, coefficients, key, layout)
        slabs[0].copy_(new)
        for old, value in zip(moments, moved, strict=True):
            old.copy_(value)

    rivals = both(plain, device)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if name in kinds:
        more = {"momentum": 0.9} if name == "sgd" else {}
        rows = [torch.nn.Parameter(row.clone()) for row in slabs[0]]
        for row, grad in zip(rows, slabs[1], strict=True):
            row.grad = grad
        each = [kinds[name]([row], lr=1e-3, weight_decay=1e-4, fused=True, **more) for row in rows]
        rivals["torch.optim, a model at a time"] = lambda: [o.step() for o in each]
    update = Update(*slabs, moments, table, active)
    moved = nbytes(slabs[0], *moments) * 2 + nbytes(slabs[1])
    return Case(
        f"{name} M={M} P={layout.trained}", moved,
        lambda: fused_step(optimizer, update, key, layout), rivals,
    )  # fmt: skip


# -- cross-entropy ------------------------------------------------------------------------


def entropy_case(M: int, B: int, C: int, device: str, *, form: str = "online") -> Case:
    z = torch.randn(M, B, C, device=device)
    labels = torch.randint(0, C, (M, B), device=device)
    smoothing = torch.zeros(M, device=device)

    def passes() -> tuple[Tensor, ...]:
        """Loss and gradient by autograd, then each score by its own expression."""
        leaf = z.detach().requires_grad_()
        with torch.enable_grad():
            F.cross_entropy(leaf.flatten(0, 1), labels.flatten()).backward()
        p = z.softmax(-1)
        el2n = (p - F.one_hot(labels, C)).norm(dim=-1)
        correct = z.argmax(-1) == labels
        chosen = z.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        margin = chosen - z.scatter(-1, labels.unsqueeze(-1), -torch.inf).amax(-1)
        return leaf.grad, el2n, correct, margin, -(p * p.clamp(min=1e-30).log()).sum(-1)

    rivals = both(lambda: softmax_cross_entropy_torch(z, labels, smoothing, scores=True), device)
    rivals["torch, a pass a score"] = passes
    if importlib.util.find_spec("liger_kernel") is not None and device != "cpu":
        rivals["liger, loss and gradient alone"] = liger_loss(z, labels)
    name = f"cross-entropy + 4 scores [{M}, {B}, {C}]" + (" two-pass" if form != "online" else "")
    return Case(
        name, 2 * nbytes(z) + nbytes(labels) + 17 * M * B,
        lambda: softmax_cross_entropy(z, labels, smoothing, scores=True, form=form), rivals,
    )  # fmt: skip


def liger_loss(z: Tensor, labels: Tensor) -> Callable[[], object]:
    from liger_kernel.transformers.functional import liger_cross_entropy

    # Its forward pass writes the gradient over the logits: a copy that it may spoil.
    flat, target = z.flatten(0, 1).clone().requires_grad_(), labels.flatten()

    def call() -> object:
        with torch.enable_grad():
            return liger_cross_entropy(flat, target)

    return call


# -- norms, gather, dropout, ghost norms --------------------------------------------------


def norm_cases(kind: str, groups: int, shape: tuple[int, ...], device: str) -> list[Case]:
    x, dy = torch.randn(shape, device=device), torch.randn(shape, device=device)
    weight, bias = (torch.randn(shape[0], shape[3], device=device) for _ in range(2))
    affine = Affine(weight, None if kind == "rms" else bias)
    spec = NormSpec(kind, groups, "relu")
    _, saved = norm(x, affine, spec)
    title = f"{kind}{'' if groups == 1 else f'/{groups}'} + relu {list(shape)}"
    forward = Case(
        title, 2 * nbytes(x), lambda: norm(x, affine, spec),
        both(lambda: norm_torch(x, affine, spec), device),
    )  # fmt: skip
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        y = norm_torch(leaf, affine, spec)

    def backward() -> object:
        return torch.autograd.grad(y, leaf, dy, retain_graph=True)

    return [forward, Case(f"{title} backward", 3 * nbytes(x),
                          lambda: norm_backward(x, affine, spec, saved, dy),
                          {"torch, dx alone": backward})]  # fmt: skip


def batch_norm_case(shape: tuple[int, ...], device: str, *, virtual: int) -> Case:
    x = torch.randn(shape, device=device)
    weight, bias, mean, var = (torch.rand(shape[0], shape[3], device=device) for _ in range(4))
    given = (x, weight, bias, (mean, var), torch.full((shape[0],), 0.1, device=device))
    form = BatchNormForm(virtual, "relu")
    title = f"{'ghost ' if virtual < shape[1] else ''}batch norm + relu {list(shape)}"
    return Case(
        title, 2 * nbytes(x), lambda: batch_norm(*given, form),
        both(lambda: batch_norm_torch(*given, form), device),
    )  # fmt: skip


def gather_case(M: int, B: int, device: str, *, name: str) -> Case:
    x = torch.randint(0, 256, (50000 if device != "cpu" else 50, 3, 32, 32), dtype=torch.uint8)
    x = x.to(device)
    labels = torch.randint(0, 10, (M, len(x)), device=device)
    ids = torch.randint(0, len(x), (M, B), device=device)
    ints = torch.arange(M, device=device)
    draw = Draw(name, ints, ints, torch.full((M,), 4.0, device=device))
    stats = {"mean": torch.rand(3, device=device), "scale": torch.rand(3, device=device) + 1}
    how = Reading(**stats, draw=draw, flatten=False)
    moved = M * B * (3072 * 5 + 24)
    return Case(
        f"gather, normalise, {name} [{M}, {B}, 3, 32, 32] of bytes", moved,
        lambda: gather(x, labels, ids, how),
        both(lambda: gather_torch(x, labels, ids, how), device),
    )  # fmt: skip


def dropout_case(M: int, B: int, D: int, device: str) -> Case:
    x = torch.randn(M, B, 1, D, device=device)
    rate = torch.full((M,), 0.2, device=device)
    ints = torch.arange(M, device=device)
    rivals = both(lambda: dropout_torch(x, rate, ints, ints), device)
    rivals["torch's own generator"] = lambda: F.dropout(x, 0.2)
    return Case(
        f"dropout [{M}, {B}, {D}]", 2 * nbytes(x), lambda: dropout(x, rate, ints, ints), rivals
    )


def ghost_case(M: int, B: int, D: int, device: str) -> Case:
    a, d = torch.randn(M, B, D, device=device), torch.randn(M, B, D, device=device)
    rivals = both(lambda: linear_square_norms_torch(a, d), device)
    return Case(f"ghost norm, linear [{M}, {B}, {D}]", nbytes(a, d),
                lambda: linear_square_norms(a, d), rivals)  # fmt: skip


def cases(device: str) -> list[Callable[[], list[Case]]]:
    """Makers of cases, so that only one case's tensors are held at a time."""
    small = device == "cpu"
    M, width = (2, 8) if small else (256, 280)
    found: list[Callable[[], list[Case]]] = [
        lambda name=name: [optimizer_case(name, M, width, device)]
        for name in ("sgd", "adamw", "lion", "rmsprop", "lars", "lamb", "sgdp", "adamp")
    ]
    for shape in [(2, 3, 5)] if small else [(256, 128, 10), (64, 512, 1000), (8, 512, 32000)]:
        forms = ("online", "two_pass") if shape[2] > 2048 else ("online",)
        found += [lambda s=shape, f=f: [entropy_case(*s, device, form=f)] for f in forms]
    maps = (2, 4, 4, 8) if small else (64, 128, 64, 64)
    rows = (2, 3, 1, 8) if small else (256, 128, 1, 512)
    for kind, groups, shape in (("layer", 1, rows), ("rms", 1, rows), ("layer", 4, maps)):
        found.append(lambda k=kind, g=groups, s=shape: norm_cases(k, g, s, device))
    found += [
        lambda v=v: [batch_norm_case(maps, device, virtual=v)] for v in (maps[1], maps[1] // 2)
    ]
    M, B = (2, 3) if small else (64, 128)
    found += [lambda n=name: [gather_case(M, B, device, name=n)] for name in ("none", "shift")]
    found.append(lambda: [dropout_case(M, B, 16 if small else 4096, device)])
    found.append(lambda: [ghost_case(M, B, 16 if small else 1024, device)])
    return found


# -- the convolution's forms --------------------------------------------------------------


def convolution(form: str, case: tuple, device: str, dtype: torch.dtype) -> Callable[[], object]:
    models, batch, spatial, inputs, outputs, stride = case
    op = Conv("conv", Shape(spatial, inputs), outputs, Window(stride))
    x = torch.randn(models, batch, op.inputs.positions, inputs, device=device, dtype=dtype)
    p = {op.key(q.suffix): torch.randn(models, *q.shape, device=device) for q in op.params()}
    out = op.out_shape()
    dy = torch.randn(models, batch, out.positions, outputs, device=device, dtype=dtype)
    mode = Mode(training=True, conv=form, dtype=dtype)

    def call() -> object:
        _, saved = op.forward(p, x, mode)
        return op.backward(p, saved, dy, mode, need_dx=inputs > 3)

    return call


def time_convolutions(device: str) -> list[dict[str, object]]:
    rows = []
    shapes = [(2, 2, (4, 4), 3, 4, 1)] if device == "cpu" else CONVOLUTIONS
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name()
    for dtype in (torch.float32, torch.bfloat16):
        for case in shapes:
            calls = {form: convolution(form, case, device, dtype) for form in FORMS}
            found = {form: seconds(call, device=device) for form, call in calls.items()}
            _, batch, spatial, inputs, outputs, stride = case
            op = Conv("conv", Shape(spatial, inputs), outputs, Window(stride))
            rows.append({
                "device": name, "dtype": str(dtype).removeprefix("torch."), "inputs": inputs,
                "outputs": outputs, "positions": op.out_shape().positions, "batch": batch,
                "seconds": found,
            })  # fmt: skip
            times = "  ".join(f"{form} {t * 1e6:.0f} us" for form, t in found.items())
            print(f"{rows[-1]['dtype']} {case}: {times}", flush=True)
    return rows


def record_convolutions(device: str) -> None:
    """Put this device's rows in place of those it had; other devices keep theirs."""
    rows = time_convolutions(device)
    if device == "cpu":
        return
    kept = [r for r in json.loads(TABLE.read_text())["measured"]
            if r["device"] != rows[0]["device"]]  # fmt: skip
    lines = ",\n".join(json.dumps(row) for row in kept + rows)
    TABLE.write_text(f'{{"measured": [\n{lines}\n]}}\n')
    print(f"wrote {len(rows)} rows to {TABLE.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--record-conv", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    begun = begin(smoke=args.smoke)
    if begun is None:
        return
    device, env = begun
    if args.record_conv or args.smoke:
        record_convolutions(device)
        if args.record_conv:
            return
    rate = copy_rate(device)
    print(f"copy of 1 GiB: {rate / 1e9:.0f} GB/s")
    rows = []
    for make in cases(device):
        for case in make():
            with torch.no_grad():
                calls = {"kernel": case.ours, **case.rivals}
                times = {name: seconds(call, device=device) for name, call in calls.items()}
            rows.append({"case": case.name, "bytes": case.bytes, "seconds": times})
            print(case.name)
            for name, taken in times.items():
                moved = case.bytes / taken
                print(f"  {name:<32} {taken * 1e6:>10.1f} us {moved / 1e9:>8.0f} GB/s"
                      f" {moved / rate:>7.1%} of copy", flush=True)  # fmt: skip
    if args.json and not args.smoke:
        env["copy_bytes_per_s"] = rate
        args.json.write_text(json.dumps({"environment": env, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
