"""Loss-landscape metrics, one file a metric, batched over the slab; ``docs/landscape.md``.

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
from zoo.landscape.base import MODEL_METRICS, Block, Column, ModelMetric
from zoo.landscape.cells import CELL_METRICS, Cell, CellMetric, cells_of
from zoo.landscape.hessian import Hessian
from zoo.landscape.weight_matching import match_rows, match_weights, permute_row

__all__ = [
    "CELL_METRICS",
    "MODEL_METRICS",
    "Block",
    "Cell",
    "CellMetric",
    "Column",
    "Hessian",
    "ModelMetric",
    "behaviour",
    "cells_of",
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
