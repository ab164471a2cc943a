"""From encoded batches to single items and back, so that any ``DataLoader`` can make the batches.

Importing this module tells torch's ``default_collate`` about the three encoded forms, in the way
that its documentation names for further types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data._utils.collate import default_collate_fn_map

from zoo.arithmetic import pinned
from zoo.dataset.graphs import Graph
from zoo.dataset.layers import LayerTensors
from zoo.dataset.tokens import Tokens
from zoo.errors import QueryError

__all__ = ["join_graphs", "single_item", "stack_layers", "stack_tokens"]

_HELP = "query one architecture, width, depth, activation and norm, or let loader() make batches"


@pinned(gradients="as they are")
def single_item(batch: Any) -> Any:
    """Return the one item of a batch of one, without the batch's axis; a graph has none."""
    if isinstance(batch, Tensor):
        return batch[0]
    if isinstance(batch, Tokens):
        return replace(batch, token=batch.token[0])
    if isinstance(batch, LayerTensors):
        return batch.map(lambda tensor: tensor[0])
    return batch[0] if isinstance(batch, list) else batch


@pinned(gradients="as they are")
def stack_tokens(items: Sequence[Tokens]) -> Tokens:
    """Return items ``[T, D]`` as a batch; shorter ones are padded where their T differ.

    Raises:
        QueryError: tokens of several sizes D.
    """
    sizes = sorted({item.token.shape[1] for item in items})
    if len(sizes) > 1:
        msg = (
            f"tokens of sizes {', '.join(map(str, sizes))} in one batch; set token_size, or {_HELP}"
        )
        raise QueryError(msg)
    first = items[0]
    if all(_same_places(item, first) for item in items):
        return replace(first, token=torch.stack([item.token for item in items]))
    longest = max(len(item.token) for item in items)
    padded = [
        item.map(lambda tensor: pad(tensor, (0, 0, 0, longest - len(tensor)))) for item in items
    ]
    return Tokens(
        *(torch.stack([getattr(p, name) for p in padded]) for name in ("token", "mask", "position"))
    )


def _same_places(a: Tokens, b: Tokens) -> bool:
    return torch.equal(a.mask, b.mask) and torch.equal(a.position, b.position)


@pinned(gradients="as they are")
def stack_layers(items: Sequence[LayerTensors]) -> LayerTensors:
    """Return items of one structure as a batch.

    Raises:
        QueryError: layers of several shapes.
    """
    first = items[0]
    tensors = [(*item.weights, *item.biases, *item.norms) for item in items]
    if len({tuple(t.shape for t in one) for one in tensors}) > 1:
        msg = f"layers of several shapes in one batch; {_HELP}"
        raise QueryError(msg)
    stacked = iter([torch.stack(same) for same in zip(*tensors, strict=True)])
    return first.map(lambda _: next(stacked))


@pinned(gradients="as they are")
def join_graphs(items: Sequence[Graph]) -> Graph:
    """Return graphs of one structure as one graph whose parts do not touch.

    Raises:
        QueryError: graphs of several structures.
    """
    first = items[0]
    forms = {(item.layer_sizes, item.edge_attr.shape[1]) for item in items}
    if len(forms) > 1:
        msg = f"graphs of {len(forms)} structures in one batch; {_HELP}"
        raise QueryError(msg)
    nodes = torch.tensor([0, *(len(item.x) for item in items[:-1])]).cumsum(0).tolist()
    graphs = torch.tensor([0, *(item.graphs for item in items[:-1])]).cumsum(0).tolist()
    shifted = [item.edge_index + start for item, start in zip(items, nodes, strict=True)]
    numbered = [item.batch + start for item, start in zip(items, graphs, strict=True)]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(item, name) for item in items])

    return Graph(
        x=joined("x"),
        edge_index=torch.cat(shifted, 1),
        edge_attr=joined("edge_attr"),
        batch=torch.cat(numbered),
        node_layer=joined("node_layer"),
        node_kind=joined("node_kind"),
        node_symmetry=joined("node_symmetry"),
        node_activation=joined("node_activation"),
        edge_layer=joined("edge_layer"),
        graphs=sum(item.graphs for item in items),
        layer_sizes=first.layer_sizes,
    )


def _collate_tokens(batch: list[Tokens], *, collate_fn_map: Any = None) -> Tokens:
    return stack_tokens(batch)


def _collate_layers(batch: list[LayerTensors], *, collate_fn_map: Any = None) -> LayerTensors:
    return stack_layers(batch)


def _collate_graphs(batch: list[Graph], *, collate_fn_map: Any = None) -> Graph:
    return join_graphs(batch)


default_collate_fn_map.update(
    {Tokens: _collate_tokens, LayerTensors: _collate_layers, Graph: _collate_graphs}
)
