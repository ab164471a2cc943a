"""Area under the margin (Pleiss et al. 2020, arXiv 2001.10528), negated: higher = harder."""

from __future__ import annotations

from torch import Tensor

from zoo.diets.scores.base import SCORES, EpochTrail, Score

__all__ = ["aum"]


def aum(trajectory: EpochTrail) -> Tensor:
    """Return minus the mean over epochs of z_y − max_{c≠y} z_c, ``[G, N]``, in logits."""
    return -trajectory.margin.mean(1)


SCORES.register("aum")(
    Score(
        kind="trajectory",
        doc="minus the mean margin of the logits over the epochs",
        source="Pleiss et al. 2020, arXiv 2001.10528",
        compute=aum,
        needs="labels",
        first_epoch=1.0,
    )
)
