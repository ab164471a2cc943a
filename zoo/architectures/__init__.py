"""Architectures: one description each; importing this package registers all families."""

from torch import nn

from zoo.architectures import cnn, mlp
from zoo.architectures.activations import ACTIVATIONS
from zoo.architectures.families import ARCHITECTURES, build
from zoo.architectures.init import INITS, initial_row
from zoo.architectures.layout import Layout, Segment
from zoo.architectures.network import Network, row_to_state_dict, state_dict_to_row
from zoo.architectures.norms import NORMS
from zoo.architectures.op import Mode
from zoo.data.shape import DataShape
from zoo.spec.run import RunSpec

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "INITS",
    "NORMS",
    "Layout",
    "Mode",
    "Network",
    "Segment",
    "build",
    "cnn",
    "initial_row",
    "mlp",
    "module_for",
    "row_to_state_dict",
    "state_dict_to_row",
]


def module_for(run: RunSpec, data: DataShape) -> nn.Module:
    """Return the plain ``nn.Module`` of a run, in eval mode, with torch's own initial weights."""
    return build(run, data).module()
