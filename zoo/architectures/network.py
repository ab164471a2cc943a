"""A network: layout, every pass over its graph, plain module, FLOPs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.architectures.fused import fused_nodes
from zoo.architectures.graph import Graph, Node
from zoo.architectures.layout import BUFFER, Layout, Segment
from zoo.architectures.mode import Gradients, Mode, Params, Values, wide
from zoo.architectures.op import Op
from zoo.architectures.plain import plain_module
from zoo.arithmetic import pinned
from zoo.kernels.language import on_device

__all__ = [
    "FORMS", "Network", "Saved", "load_row", "row_to_state_dict", "state_dict_to_row",
]  # fmt: skip

#: How examples ``[N, *example_shape]`` are read: as one vector ``[N, 1, D]``, as channels at
#: positions ``[N, T, C]``, as tokens at positions ``[N, T, 1]``, or as they are.
FORMS = ("vector", "positions", "tokens", "as it is")

#: What the nodes keep for the backward pass.
Saved = list[Any]
#: Called with a node's index, its op and the values that it reads.
Before = Callable[[int, Op, Values], None]
#: Called with a node's index, its op, the values that it read, and its own.
After = Callable[[int, Op, Values, Tensor], None]
T = TypeVar("T", bound=Op)


class Source(Protocol):
    """A module of a user's own that a network stands for."""

    def module(self) -> nn.Module:
        """Return a new module, initialised by torch."""

    def initial(self, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Return the initial value of each tensor."""


class Network:
    """One architecture, described once.

    Args:
        family: name of the architecture family.
        nodes: the ops and what they read, in topological order.
        example_shape: shape of one input example as the plain module takes it (channels first).
        form: how an example is read, one of :data:`FORMS`.
        tokens: how many values an example of integers may have; None for one of floats.
        source: the module that the nodes were read from, which is then the plain module; its
            tensors have the same names.

    Raises:
        ValueError: the nodes are no graph, or two of them claim a tensor with different shapes.
    """

    def __init__(
        self, family: str, nodes: Sequence[Node], example_shape: tuple[int, ...], *,
        form: str, tokens: int | None = None, source: Source | None = None,
    ) -> None:  # fmt: skip
        if form not in FORMS:
            msg = f"form = {form!r} is none of {', '.join(map(repr, FORMS))}"
            raise ValueError(msg)
        self.family = family
        self.graph = Graph(nodes)
        self.example_shape = example_shape
        self.form = form
        self.tokens = tokens
        self.source = source
        self.ops = tuple({id(node.op): node.op for node in nodes}.values())
        self.layout = _layout(self.graph)
        fused = fused_nodes(self.graph.nodes)
        self._fused = self.graph if fused == self.graph.nodes else Graph(fused)

    @property
    def flatten(self) -> bool:
        """Whether an example is read as one vector."""
        return self.form == "vector"

    @property
    def head(self) -> Op:
        """The op that makes the output."""
        return self.graph.nodes[-1].op

    @property
    def bits_vary(self) -> bool:
        """Whether a model's bits depend on how many run together; see :class:`Op`."""
        return any(op.bits_vary for op in self.ops)

    @property
    def outputs(self) -> int:
        """C: values of the output, over all of its positions."""
        shape = self.head.out_shape()
        return shape.positions * shape.channels

    def ops_of(self, kind: type[T]) -> tuple[T, ...]:
        """Return the ops of a type, in order, an op of several nodes once."""
        return tuple(op for op in self.ops if isinstance(op, kind))

    # -- the stacked network --------------------------------------------------------------

    def inputs(self, x: Tensor) -> Tensor:
        """Return examples ``[N, *example_shape]`` in the stacked form, ``[N, T, C]``."""
        if self.form == "vector":
            return x.reshape(x.shape[0], 1, -1)
        if self.form == "positions":
            return x.flatten(2).mT.contiguous()
        return x.unsqueeze(-1) if self.form == "tokens" else x

    def examples(self, x: Tensor) -> Tensor:
        """Return examples in the stacked form as the plain module takes them."""
        if self.form == "positions":
            return x.mT.reshape(x.shape[0], *self.example_shape)
        return x if self.form == "as it is" else x.reshape(x.shape[0], *self.example_shape)

    def views(self, slab: Tensor) -> dict[str, Tensor]:
        """Return every tensor of ``slab [G, P]`` as a view ``[G, *shape]``."""
        G = slab.shape[0]
        return {s.name: slab[:, s.offset : s.stop].view(G, *s.shape) for s in self.layout.segments}

    def forward(self, p: Params, x: Tensor, mode: Mode) -> tuple[Tensor, Saved]:
        """Return float32 logits of x ``[G, B, T, C_in]``, and the saved values.

        The logits are ``[G, B, C]``; where the output has positions, those of the first come first.
        """
        graph = self._running(x)
        saved: Saved = []

        def visit(index: int, op: Op, xs: Values) -> Tensor:
            y, kept = op.run(p, xs, mode, graph.needs[index])
            saved.append(kept)
            return y

        return wide(graph.forward(x, visit).flatten(2)), saved

    def _running(self, like: Tensor) -> Graph:
        """Return the graph that forward and backward go through on the device of ``like``."""
        return self._fused if on_device(like) else self.graph

    def backward(self, p: Params, saved: Saved, dlogits: Tensor, mode: Mode) -> dict[str, Tensor]:
        """Return the gradient of every trained tensor, given that of the logits."""
        return self._pulled(p, saved, dlogits, mode)[0]

    def input_gradient(self, p: Params, saved: Saved, dlogits: Tensor, mode: Mode) -> Tensor:
        """Return the gradient of the examples ``[G, B, T, C_in]``, given that of the logits."""
        found = self._pulled(p, saved, dlogits, mode, to_example=True)[1]
        if found is None:
            msg = "the output does not depend on the example, or the example is of integers"
            raise ValueError(msg)
        return found

    def _pulled(
        self, p: Params, saved: Saved, dlogits: Tensor, mode: Mode, *, to_example: bool = False
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        grads: dict[str, Tensor] = {}

        def visit(index: int, op: Op, d: Tensor, needs: tuple[bool, ...]) -> Gradients:
            dxs, own = op.pull(p, saved[index], d, mode, needs)
            for key, grad in own.items():
                grads[key] = grads[key] + grad if key in grads else grad
            return dxs

        d = self.output_gradient(dlogits)
        dx = self._running(dlogits).backward(d, visit, to_example=to_example)
        return grads, dx

    def output_gradient(self, dlogits: Tensor) -> Tensor:
        """Return a gradient of the logits as one of the last value, ``[G, B, T, C]``."""
        shape = self.head.out_shape()
        return dlogits.reshape(*dlogits.shape[:2], shape.positions, shape.channels)

    def trace(
        self, p: Params, x: Tensor, mode: Mode, *,
        before: Before | None = None, after: After | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the logits, as :meth:`forward` does, showing every value on the way.

        Args:
            p: parameters.
            x: ``[G, B, T, C_in]``.
            mode: how to run it.
            before: called before an op is run; it may still change the op's tensors in place.
            after: called after it.
        """

        def visit(index: int, op: Op, xs: Values) -> Tensor:
            if before is not None:
                before(index, op, xs)
            y, _ = op.run(p, xs, mode, (False,) * len(xs))
            if after is not None:
                after(index, op, xs, y)
            return y

        return wide(self.graph.forward(x, visit).flatten(2))

    def flat_gradient(self, grads: dict[str, Tensor]) -> Tensor:
        """Return gradients as a float32 slab ``[G, trained]``."""
        rows = [wide(grads[s.name]).flatten(1) for s in self.layout.segments if s.role != BUFFER]
        return torch.cat(rows, 1)

    def flat_buffers(self, p: Params, new: dict[str, Tensor]) -> Tensor | None:
        """Return the buffers as a slab ``[G, P − trained]``, or None where there are none."""
        rows = [
            new.get(s.name, p[s.name]).flatten(1) for s in self.layout.segments if s.role == BUFFER
        ]
        return torch.cat(rows, 1) if rows else None

    # -- what follows from the description ------------------------------------------------

    @pinned()
    def module(self) -> nn.Module:
        """Return the plain module of one model, freshly initialised by torch, in eval mode."""
        if self.source is not None:
            return self.source.module().eval()
        return plain_module(self.graph, flatten=self.flatten).eval()

    def flops(self) -> int:
        """Return forward floating-point operations of one example."""
        return sum(node.op.flops() for node in self.graph.nodes)

    def activations(self) -> int:
        """Return how many values one example's forward pass keeps, roughly."""
        shapes = (node.op.out_shape() for node in self.graph.nodes)
        return sum(shape.positions * shape.channels for shape in shapes)

    def describe_ops(self) -> list[dict[str, Any]]:
        """Return JSON-ready descriptions of the nodes; what each reads unless they are a chain."""
        if self.graph.is_chain:
            return [node.op.describe() for node in self.graph.nodes]
        return [{**node.op.describe(), "reads": list(node.inputs)} for node in self.graph.nodes]


def _layout(graph: Graph) -> Layout:
    """Lay trained tensors first and buffers last, so that ``[0, trained)`` is what steps."""
    places = Counter(id(node.op) for node in graph.nodes)
    ops = {id(node.op): node.op for node in graph.nodes}.values()
    for op in ops:
        if places[id(op)] > 1 and any(param.role == BUFFER for param in op.params()):
            msg = f"{op.path} is at several nodes: running statistics cannot be shared"
            raise ValueError(msg)
    owned = [(op.key(param.suffix), param) for op in ops for param in op.params()]
    ordered = [o for o in owned if o[1].role != BUFFER] + [o for o in owned if o[1].role == BUFFER]
    segments: dict[str, Segment] = {}
    offset = 0
    for name, param in ordered:
        if name in segments:  # tied to a tensor of an earlier op
            if segments[name].shape != param.shape:
                msg = f"{name} is {segments[name].shape} to one op and {param.shape} to another"
                raise ValueError(msg)
            continue
        segment = Segment(name, param.shape, offset, param.role, param.fan_in)
        segments[name] = segment
        offset = segment.stop
    return Layout(tuple(segments.values()))


@pinned()
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


@pinned()
def load_row(
    module: nn.Module, layout: Layout, row: NDArray[np.float32], *, batches: int = 0
) -> None:
    """Put a slab row ``[P]`` into a plain module.

    What a row does not hold stays: constants, counts of batches, further names of tied tensors.

    Args:
        module: the plain module.
        layout: the row's layout.
        row: ``[P]`` float32.
        batches: the step, for torch's ``num_batches_tracked``.

    Raises:
        RuntimeError: the module lacks a tensor of the layout, or has further ones.
    """
    state = row_to_state_dict(layout, row, batches=batches)
    saved = module.state_dict(keep_vars=True)
    lost = [s.name for s in layout.segments if s.name not in saved]
    if lost:
        msg = f"the module has no tensor {lost[0]!r}"
        raise RuntimeError(msg)
    # by tensor and not by name: tied tensors have several names
    values = {id(saved[name]): value for name, value in state.items() if name in saved}
    constants = {id(t): t.detach() for t in saved.values() if not t.is_floating_point()}
    known = {**constants, **values}
    module.load_state_dict({n: known[id(t)] for n, t in saved.items() if id(t) in known})
