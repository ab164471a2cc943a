"""A sequential network of ops: layout, stacked forward and backward, plain module, FLOPs."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures.fused import fused_ops
from zoo.architectures.layout import BUFFER, Layout, Segment
from zoo.architectures.op import Mode, Op, Params
from zoo.kernels.language import on_device

__all__ = ["Network", "row_to_state_dict", "state_dict_to_row"]


class Network:
    """One architecture, described once.

    Args:
        family: name of the architecture family.
        ops: the layers, in order.
        example_shape: shape of one input example as the plain module takes it (channels first).
        flatten: whether the input is read as one vector.
    """

    def __init__(
        self, family: str, ops: list[Op], example_shape: tuple[int, ...], *, flatten: bool
    ) -> None:
        self.family = family
        self.ops = tuple(ops)
        self.example_shape = example_shape
        self.flatten = flatten
        self.layout = _layout(self.ops)
        self._fused = fused_ops(self.ops)

    # -- the stacked network --------------------------------------------------------------

    def inputs(self, x: Tensor) -> Tensor:
        """Return examples ``[N, *example_shape]`` in the stacked form ``[N, T, C]``."""
        if self.flatten:
            return x.reshape(x.shape[0], 1, -1)
        return x.flatten(2).mT.contiguous()

    def views(self, slab: Tensor) -> dict[str, Tensor]:
        """Return every tensor of ``slab [G, P]`` as a view ``[G, *shape]``."""
        G = slab.shape[0]
        return {s.name: slab[:, s.offset : s.stop].view(G, *s.shape) for s in self.layout.segments}

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, list[Any]]:
        """Return float32 logits ``[G, B, C]`` of x ``[G, B, T, C_in]``, and the saved values."""
        saved = []
        for op in self._running(x):
            x, kept = op.forward(p, x, mode)
            saved.append(kept)
        return x.squeeze(2).float(), saved

    def _running(self, like: Tensor) -> tuple[Op, ...]:
        """Return the ops that forward and backward go through on the device of ``like``."""
        return self._fused if on_device(like) else self.ops

    def backward(
        self, p: Params, saved: list[Any], dlogits: Tensor, mode: Mode
    ) -> dict[str, Tensor]:
        """Return the gradient of every trained tensor, given that of the logits ``[G, B, C]``."""
        grads: dict[str, Tensor] = {}
        d: Tensor | None = dlogits.unsqueeze(2)
        ops = self._running(dlogits)
        first = next(i for i, op in enumerate(ops) if op.params())
        for index in range(len(ops) - 1, first - 1, -1):
            if d is None:
                break
            op = ops[index]
            d, own = op.backward(p, saved[index], d, mode, need_dx=index > first)
            grads.update(own)
        return grads

    def flat_gradient(self, grads: dict[str, Tensor]) -> Tensor:
        """Return gradients as a float32 slab ``[G, trained]``."""
        rows = [grads[s.name].float().flatten(1) for s in self.layout.segments if s.role != BUFFER]
        return torch.cat(rows, 1)

    def flat_buffers(self, p: Params, new: dict[str, Tensor]) -> Tensor | None:
        """Return the buffers as a slab ``[G, P − trained]``, or None where there are none."""
        rows = [
            new.get(s.name, p[s.name]).flatten(1) for s in self.layout.segments if s.role == BUFFER
        ]
        return torch.cat(rows, 1) if rows else None

    # -- what follows from the description ------------------------------------------------

    def module(self) -> nn.Module:
        """Return the plain module of one model, freshly initialised by torch, in eval mode."""
        tree: OrderedDict[str, Any] = OrderedDict()
        if self.flatten:
            tree["flatten"] = nn.Flatten()
        for op in self.ops:
            node = tree
            *parents, leaf = op.path.split(".")
            for name in parents:
                node = node.setdefault(name, OrderedDict())
            node[leaf] = op.module()
        return _sequential(tree).eval()

    def flops(self) -> int:
        """Return forward floating-point operations of one example."""
        return sum(op.flops() for op in self.ops)

    def activations(self) -> int:
        """Return how many values one example's forward pass keeps, roughly."""
        return sum(op.out_shape().positions * op.out_shape().channels for op in self.ops)


def _layout(ops: tuple[Op, ...]) -> Layout:
    """Lay trained tensors first and buffers last, so that ``[0, trained)`` is what steps."""
    owned = [(op.key(param.suffix), param) for op in ops for param in op.params()]
    ordered = [o for o in owned if o[1].role != BUFFER] + [o for o in owned if o[1].role == BUFFER]
    segments = []
    offset = 0
    for name, param in ordered:
        segment = Segment(name, param.shape, offset, param.role, param.fan_in)
        segments.append(segment)
        offset = segment.stop
    return Layout(tuple(segments))


def _sequential(tree: OrderedDict[str, Any]) -> nn.Sequential:
    children = OrderedDict(
        (name, _sequential(node) if isinstance(node, OrderedDict) else node)
        for name, node in tree.items()
    )
    return nn.Sequential(children)


def row_to_state_dict(
    layout: Layout, row: NDArray[np.float32], *, batches: int = 0
) -> dict[str, Tensor]:
    """Return the state dict of one slab row ``[P]``, as copies.

    Args:
        layout: the row's layout.
        row: ``[P]`` float32.
        batches: the step, for torch's ``num_batches_tracked``, which no computation here reads.
    """
    flat = torch.from_numpy(np.array(row, dtype=np.float32))
    state = {}
    for s in layout.segments:
        state[s.name] = flat[s.offset : s.stop].view(s.shape).clone()
        if s.name.endswith(".running_var"):
            counter = s.name.removesuffix("running_var") + "num_batches_tracked"
            state[counter] = torch.tensor(batches)
    return state


def state_dict_to_row(layout: Layout, state: dict[str, Tensor]) -> NDArray[np.float32]:
    """Return the slab row ``[P]`` of a state dict.

    Raises:
        KeyError: a tensor of the layout is missing; nothing is ever filled in.
    """
    row = np.empty(layout.params, dtype=np.float32)
    for s in layout.segments:
        row[s.offset : s.stop] = state[s.name].detach().cpu().numpy().reshape(-1)
    return row
