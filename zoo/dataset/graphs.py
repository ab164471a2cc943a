"""Weights as graphs: units are nodes, weights are edges.

The features are those of neural graphs (Kofinas et al. 2024, arXiv 2403.12143) and of ScaleGMN
(Kalogeropoulos et al. 2024, arXiv 2406.10685): a node carries its bias and its norm's values, an
edge its kernel, padded with zeros to the largest kernel of the graph. Beside them each node has its
layer, its kind, its activation and the symmetry that this one gives it, so that models that respect
scale or sign symmetries know where these hold.

A batch of graphs is one graph whose parts do not touch, as in PyTorch Geometric, with the same
attribute names; ``to_pyg()`` gives its own class, where it is installed.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures import ACTIVATIONS
from zoo.arithmetic import pinned
from zoo.dataset.structure import Structure
from zoo.dataset.tensor_record import TensorRecord
from zoo.dataset.tokens import layers_of

__all__ = [
    "NODE_FEATURES",
    "SYMMETRIES",
    "Graph",
    "GraphLayout",
    "batch_pyg",
    "encode_graphs",
    "graph_layout",
    "require_pyg",
]

#: What a node carries; zero where its unit has no such value.
NODE_FEATURES = (
    "bias", "norm_weight", "norm_bias", "norm_gate", "running_mean", "running_var",
)  # fmt: skip
#: Values of ``node_symmetry``: what factor a unit may take, as an index into this.
SYMMETRIES = ("none", "scale", "sign", "scale and sign")
#: Values of ``node_kind``.
INPUT, HIDDEN, OUTPUT = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class GraphLayout:
    """The graph of one structure: N nodes, E edges, kernels of at most W values.

    Args:
        edge_index: ``[2, E]`` int64, from unit to unit.
        edge_source: ``[E, W]`` int64, column of the row, −1 for padding.
        node_source: ``[N, F]`` int64, column of the row for each :data:`NODE_FEATURES`, or −1.
        node_layer: ``[N]``, 0 = input.
        node_kind: ``[N]``: input, hidden or output.
        node_symmetry: ``[N]``, index into :data:`SYMMETRIES`.
        node_activation: ``[N]``, 1 + the number of the activation among
            ``zoo.architectures.ACTIVATIONS``; 0 for inputs and outputs.
        edge_layer: ``[E]``, number of the kernel.
        layer_sizes: nodes of each layer, inputs first.
    """

    edge_index: NDArray[np.int64]
    edge_source: NDArray[np.int64]
    node_source: NDArray[np.int64]
    node_layer: NDArray[np.int64]
    node_kind: NDArray[np.int64]
    node_symmetry: NDArray[np.int64]
    node_activation: NDArray[np.int64]
    edge_layer: NDArray[np.int64]
    layer_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Graph(TensorRecord):
    """One graph, or a batch of them as one.

    Args:
        x: ``[N, F]`` float32, the F :data:`NODE_FEATURES`.
        edge_index: ``[2, E]`` int64.
        edge_attr: ``[E, W]`` float32.
        batch: ``[N]`` int64, which graph a node is in.
        node_layer, node_kind, node_symmetry, node_activation: ``[N]`` int64.
        edge_layer: ``[E]`` int64.
        graphs: how many.
        layer_sizes: nodes of each layer of one graph.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    batch: Tensor
    node_layer: Tensor
    node_kind: Tensor
    node_symmetry: Tensor
    node_activation: Tensor
    edge_layer: Tensor
    graphs: int
    layer_sizes: tuple[int, ...]

    def to_pyg(self) -> Any:
        """Return ``torch_geometric.data.Data`` (one graph) or ``Batch`` (several).

        Raises:
            ImportError: torch_geometric is not installed.
        """
        parts = self.to_pyg_list()
        return parts[0] if self.graphs == 1 else batch_pyg(parts)

    def to_pyg_list(self) -> list[Any]:
        """Return each graph as a ``torch_geometric.data.Data``.

        Raises:
            ImportError: torch_geometric is not installed.
        """
        data = require_pyg()
        nodes, edges = len(self.x) // self.graphs, self.edge_index.shape[1] // self.graphs
        parts = []
        for g in range(self.graphs):
            n, e = slice(g * nodes, (g + 1) * nodes), slice(g * edges, (g + 1) * edges)
            parts.append(
                data.Data(
                    x=self.x[n],
                    edge_index=self.edge_index[:, e] - g * nodes,
                    edge_attr=self.edge_attr[e],
                    node_layer=self.node_layer[n],
                    node_kind=self.node_kind[n],
                    node_symmetry=self.node_symmetry[n],
                    node_activation=self.node_activation[n],
                    edge_layer=self.edge_layer[e],
                )
            )
        return parts

    @pinned(gradients="as they are")
    def dense(self) -> tuple[Tensor, Tensor]:
        """Return node features ``[G, N, F]`` and edge features ``[G, N, N, W]`` (from, to)."""
        nodes = len(self.x) // self.graphs
        x = self.x.view(self.graphs, nodes, -1)
        edges = self.x.new_zeros(self.graphs, nodes, nodes, self.edge_attr.shape[1])
        source, target = self.edge_index
        edges[self.batch[source], source % nodes, target % nodes] = self.edge_attr
        return x, edges


def require_pyg() -> Any:
    """Return the module ``torch_geometric.data``.

    Raises:
        ImportError: torch_geometric is not installed.
    """
    try:
        return importlib.import_module("torch_geometric.data")
    except ImportError as error:
        msg = "graphs for PyTorch Geometric need it: pip install torch_geometric"
        raise ImportError(msg) from error


def batch_pyg(graphs: list[Any]) -> Any:
    """Return graphs as one ``torch_geometric.data.Batch``, also where there is only one."""
    return require_pyg().Batch.from_data_list(graphs)


@lru_cache(maxsize=1024)
def graph_layout(structure: Structure) -> GraphLayout:
    """Return the graph of a structure whose layers follow one another.

    Raises:
        QueryError: they do not.
    """
    structure.require_chain("the form 'graph'")
    layout = structure.layout
    sizes: list[int] = []
    sources: list[NDArray[np.int64]] = []
    edges: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for names in layers_of(layout).values():
        roles = {_feature(name, layout[name].role): layout[name] for name in names}
        if "kernel" in roles:
            kernel = roles.pop("kernel")
            out, inputs = kernel.shape[:2]
            if not sizes:
                sizes.append(inputs)
                sources.append(np.full((inputs, len(NODE_FEATURES)), -1, dtype=np.int64))
            columns = np.arange(kernel.offset, kernel.stop).reshape(out, inputs, -1)
            start = sum(sizes)
            target, source = np.divmod(np.arange(out * inputs), inputs)
            index = np.stack([start - sizes[-1] + source, start + target])
            edges.append((index, columns.reshape(out * inputs, -1)))
            sizes.append(out)
            sources.append(np.full((out, len(NODE_FEATURES)), -1, dtype=np.int64))
        for feature, s in roles.items():
            sources[-1][:, NODE_FEATURES.index(feature)] = np.arange(s.offset, s.stop)
    widest = max(columns.shape[1] for _, columns in edges)
    padded = [np.pad(c, ((0, 0), (0, widest - c.shape[1])), constant_values=-1) for _, c in edges]
    layer = np.repeat(np.arange(len(sizes)), sizes)
    last = len(sizes) - 1
    kind = np.where(layer == 0, INPUT, np.where(layer == last, OUTPUT, HIDDEN))
    activation = 1 + ACTIVATIONS.names().index(structure.activation)
    kinds = {unit.group: 0 for unit in structure.units}
    for unit in structure.units:
        kinds[unit.group] += SYMMETRIES.index(unit.kind)
    by_layer = np.array([0, *(kinds.get(group.name, 0) for group in structure.groups), 0])
    return GraphLayout(
        edge_index=np.concatenate([index for index, _ in edges], 1),
        edge_source=np.concatenate(padded),
        node_source=np.concatenate(sources),
        node_layer=layer,
        node_kind=kind,
        node_symmetry=by_layer[layer],
        node_activation=np.where(kind == HIDDEN, activation, 0),
        edge_layer=np.repeat(np.arange(len(edges)), [len(c) for _, c in edges]),
        layer_sizes=tuple(sizes),
    )


@pinned(gradients="as they are")
def encode_graphs(rows: Tensor, structure: Structure) -> Graph:
    """Return rows ``[B, P]`` as a batch of B graphs."""
    form = graph_layout(structure)
    count, nodes = len(rows), len(form.node_layer)
    offsets = torch.arange(count) * nodes
    index = torch.from_numpy(form.edge_index)
    return Graph(
        x=_gathered(rows, form.node_source),
        edge_index=(index.unsqueeze(1) + offsets.view(1, -1, 1)).reshape(2, -1),
        edge_attr=_gathered(rows, form.edge_source),
        batch=torch.arange(count).repeat_interleave(nodes),
        node_layer=torch.from_numpy(form.node_layer).repeat(count),
        node_kind=torch.from_numpy(form.node_kind).repeat(count),
        node_symmetry=torch.from_numpy(form.node_symmetry).repeat(count),
        node_activation=torch.from_numpy(form.node_activation).repeat(count),
        edge_layer=torch.from_numpy(form.edge_layer).repeat(count),
        graphs=count,
        layer_sizes=form.layer_sizes,
    )


def _gathered(rows: Tensor, source: NDArray[np.int64]) -> Tensor:
    """Return ``[B · n, w]`` of sources ``[n, w]``, zero where the source is −1."""
    at = torch.from_numpy(source)
    values = rows[:, at.clamp(min=0).flatten()].view(len(rows), *at.shape) * (at >= 0)
    return values.view(len(rows) * at.shape[0], math.prod(at.shape[1:]))


def _feature(name: str, role: str) -> str:
    """Return the node feature that a tensor is, or ``"kernel"``."""
    suffix = name.rpartition(".")[2]
    return f"norm_{suffix}" if role.startswith("norm") else suffix if role == "buffer" else role
