"""Per-layer tensor lists, as neural functionals read them (Zhou et al. 2023, arXiv 2302.14040)."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.arithmetic import pinned
from zoo.dataset.row_symmetry import tensor_of
from zoo.dataset.tensor_record import TensorRecord
from zoo.dataset.tokens import layers_of

__all__ = ["LayerTensors", "layer_tensors"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LayerTensors(TensorRecord):
    """The weights of B models, layer by layer; of one, without the axis B, as an item.

    Args:
        weights: ``[B, 1, out, in]`` or ``[B, 1, out, in, kernel...]`` of each layer.
        biases: ``[B, 1, out]`` of each layer.
        norms: ``[B, channels, C]`` of each norm: weight, bias, running statistics as it has them.
        names: path of each layer.
        norm_names: path of each norm.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    norms: tuple[Tensor, ...]
    names: tuple[str, ...]
    norm_names: tuple[str, ...]

    def to_nfn(self) -> Any:
        """Return ``nfn.common.WeightSpaceFeatures``; norms are not part of it.

        Raises:
            ImportError: nfn is not installed.
        """
        try:
            common = importlib.import_module("nfn.common")
        except ImportError as error:
            msg = "to_nfn() needs nfn: pip install nfn"
            raise ImportError(msg) from error
        return common.WeightSpaceFeatures(self.weights, self.biases)


@pinned(gradients="as they are")
def layer_tensors(rows: Tensor, layout: Layout) -> LayerTensors:
    """Return rows ``[B, P]`` as lists of layer tensors, from input to output."""
    weights: list[Tensor] = []
    biases: list[Tensor] = []
    norms: list[Tensor] = []
    names: list[str] = []
    norm_names: list[str] = []
    for path, tensors in layers_of(layout).items():
        if layout[tensors[0]].role == "kernel":
            names.append(path)
            for name in tensors:
                target = weights if layout[name].role == "kernel" else biases
                target.append(tensor_of(rows, layout, name).unsqueeze(1))
        else:
            norm_names.append(path)
            norms.append(torch.stack([tensor_of(rows, layout, name) for name in tensors], 1))
    return LayerTensors(
        tuple(weights), tuple(biases), tuple(norms), tuple(names), tuple(norm_names)
    )
