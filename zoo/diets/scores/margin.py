"""The margin of the probabilities, as uncertainty (Coleman et al. 2020, arXiv 1906.11829)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.diets.scores.base import SCORES, Outputs, Score

__all__ = ["label_margin", "margin"]


def label_margin(values: Tensor, labels: Tensor) -> Tensor:
    """Return the label's value minus the largest other one.

    Args:
        values: ``[..., B, C]``, logits or probabilities.
        labels: ``[..., B]`` int64, or a shape that broadcasts to it.

    Returns:
        ``[..., B]``.
    """
    index = labels.expand(values.shape[:-1]).unsqueeze(-1)
    own = values.gather(-1, index).squeeze(-1)
    others = values.scatter(-1, index, -torch.inf).amax(-1)
    return own - others


def margin(outputs: Outputs) -> Tensor:
    """Return max_{c≠y} p_c − p_y, ``[G, B]``; −1 at certainty, 1 at its opposite."""
    return -label_margin(torch.softmax(outputs.logits, -1), outputs.targets)


SCORES.register("margin")(
    Score(
        kind="point",
        doc="largest other probability minus the label's; -1 to 1",
        source="Coleman et al. 2020, arXiv 1906.11829",
        compute=margin,
        needs="probabilities",
    )
)
