"""Loss-landscape metrics, one file per metric, batched over the slab; ``docs/landscape.md``.

Importing this package registers them all.
"""

from zoo.landscape import (
    behaviour,
    collapse,
    curvature,
    noise,
    ntk,
    pairs,
    sharpness,
    spectrum,
    weights,
)
from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric
from zoo.landscape.cells import CELL_METRICS, CellMetric
from zoo.landscape.hessian import Hessian
from zoo.landscape.weight_matching import match_rows, match_weights, permute_row

__all__ = [
    "CELL_METRICS",
    "MODEL_METRICS",
    "CellMetric",
    "Column",
    "Hessian",
    "ModelBlock",
    "ModelMetric",
    "behaviour",
    "collapse",
    "curvature",
    "match_rows",
    "match_weights",
    "noise",
    "ntk",
    "pairs",
    "permute_row",
    "sharpness",
    "spectrum",
    "weights",
]
