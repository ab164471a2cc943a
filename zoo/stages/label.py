"""The labelling stage: the phase of every cell, from the newest tables of the landscape stage.

It is one step of seconds and so has no parts: all of it is publishing, which writes a table a
version and the columns that every model of a cell inherits (:mod:`zoo.phases.publish`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.phases import TAXONOMY, Thresholds, label_store, thresholds
from zoo.phases.confidence import DRAWS
from zoo.stages.base import Part
from zoo.store import StageFolder

__all__ = ["LABEL", "LabelStage", "label_settings"]


def label_settings(
    limits: Thresholds | None = None, *, draws: int = DRAWS, rule: str = TAXONOMY
) -> dict[str, Any]:
    """Return the settings of the stage.

    Args:
        limits: the thresholds; None = those of the setting ``zoo``.
        draws: of the resampling.
        rule: in :data:`zoo.phases.rules.RULES`.
    """
    own = {} if rule == TAXONOMY else {"rule": rule}
    return {"thresholds": (limits or thresholds()).to_json(), "draws": draws, **own}


class LabelStage:
    """Labels, from what the landscape stage has published."""

    name = "label"

    def parts(self, path: Path, settings: Mapping[str, Any]) -> Sequence[Part]:
        """Return no parts."""
        return ()

    def run_part(
        self, path: Path, settings: Mapping[str, Any], key: str, paths: Mapping[str, str]
    ) -> tuple[Mapping[str, NDArray[np.generic]], Mapping[str, Any]]:
        """Do nothing: there are no parts."""
        return {}, {}

    def finish(
        self,
        path: Path,
        settings: Mapping[str, Any],
        folder: StageFolder,
        paths: Mapping[str, str],
    ) -> None:
        """Label the cells of the store, and publish the labels.

        Raises:
            StoreError: the store has no cells yet, or cannot be written.
        """
        raw = settings["thresholds"]
        limits = Thresholds(**{**raw, "hard_tests": tuple(raw["hard_tests"])})
        rule = settings.get("rule", TAXONOMY)
        label_store(path, limits, draws=settings["draws"], rule=rule)


LABEL = LabelStage()
