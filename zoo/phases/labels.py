"""Cells to labels in one call: cut, rule, margin and confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.phases.cells import Cells
from zoo.phases.confidence import DRAWS, confidence
from zoo.phases.rule import UNDETERMINED, Cut, Decision, decide, find_cuts
from zoo.phases.rules import TAXONOMY, apply_rule
from zoo.phases.thresholds import Thresholds

__all__ = ["Labels", "label"]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The phases of N cells and everything they were made from.

    Args:
        cells: the numbers.
        limits: the thresholds.
        cut: the threshold on output similarity of each cell.
        decision: the labels, with margin and boundary.
        confidence: ``[N]`` in [0, 1]; NaN where undetermined.
        confidence_from: what was resampled: ``"seeds"``, ``"standard errors"`` or ``"tests"``.
        rule: name of the rule; thresholds and cut are of the taxonomy's alone.
    """

    cells: Cells
    limits: Thresholds
    cut: Cut
    decision: Decision
    confidence: NDArray[np.float64]
    confidence_from: str
    rule: str = TAXONOMY

    @property
    def phases(self) -> NDArray[np.str_]:
        """``[N]`` names of the phases."""
        return self.decision.phases

    def counts(self) -> dict[str, int]:
        """Return how many cells have each phase, those that none has included."""
        return {
            name: int((self.phases == name).sum()) for name in (*self.decision.names, UNDETERMINED)
        }


def label(cells: Cells, limits: Thresholds, *, draws: int = DRAWS, rule: str = TAXONOMY) -> Labels:
    """Return the phase of each cell, how far it is from another one, and how sure that is.

    Args:
        cells: the numbers.
        limits: the thresholds.
        draws: of the resampling.
        rule: in :data:`zoo.phases.rules.RULES`; one of a plug-in reads no thresholds.

    Raises:
        UnknownNameError: there is no such rule.
        StoreError: a plug-in's rule says what it does not declare.
    """
    if rule != TAXONOMY:
        cut, decision, sure, how = apply_rule(rule, cells, draws=draws)
        return Labels(cells, limits, cut, decision, sure, how, rule)
    cut = find_cuts(cells, limits)
    decision = decide(cells, limits, cut)
    sure, how = confidence(cells, limits, cut, decision, draws=draws)
    return Labels(cells, limits, cut, decision, sure, how)
