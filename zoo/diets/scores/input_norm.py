"""The norm of the input: what GraNd at initialisation turned out to be (Kirsch 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.diets.scores.base import SCORES, Score

__all__ = ["input_norm"]


def input_norm(x: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ‖x‖₂ of each normalised example ``[N, D]``, as ``[N]``."""
    norms: NDArray[np.float64] = np.linalg.norm(x.astype(np.float64), axis=1)
    return norms


SCORES.register("input_norm")(
    Score(
        kind="data",
        doc="2-norm of the normalised input",
        source="Kirsch 2023, arXiv 2303.14753",
        compute=input_norm,
    )
)
