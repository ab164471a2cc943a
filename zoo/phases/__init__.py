"""Phases: the taxonomy of load × temperature cells, by a rule whose thresholds are in the open.

``docs/phases.md`` has the rule, its thresholds and where they come from.
"""

from zoo.phases.cells import HARDNESS, INPUTS, Cells, CellSample
from zoo.phases.confidence import confidence
from zoo.phases.csv_file import CsvCells, read_cells
from zoo.phases.from_store import StoreCells, store_cells
from zoo.phases.labels import Labels, label
from zoo.phases.otsu import otsu_cut
from zoo.phases.publish import Published, label_store, read_labels
from zoo.phases.rule import PHASES, UNDETERMINED, Cut, Decision, decide, find_cuts
from zoo.phases.rules import RULES, TAXONOMY, PhaseRule
from zoo.phases.thresholds import SETTINGS, Thresholds, cka_of_logits, thresholds
from zoo.phases.units import UNITS, UnitChoice, settle_units

__all__ = [
    "HARDNESS",
    "INPUTS",
    "PHASES",
    "RULES",
    "SETTINGS",
    "TAXONOMY",
    "UNDETERMINED",
    "UNITS",
    "CellSample",
    "Cells",
    "CsvCells",
    "Cut",
    "Decision",
    "Labels",
    "PhaseRule",
    "Published",
    "StoreCells",
    "Thresholds",
    "UnitChoice",
    "cka_of_logits",
    "confidence",
    "decide",
    "find_cuts",
    "label",
    "label_store",
    "otsu_cut",
    "read_cells",
    "read_labels",
    "settle_units",
    "store_cells",
    "thresholds",
]
