"""Stages: what scoring, training, landscape metrics and labels read, do and publish.

A stage is cut into parts that any process may do; :mod:`zoo.launch` has the executors that hand
them out. An entry of :data:`STAGES` is a function that opens a stage on a store; see
:class:`FolderWork` for the kind whose parts are files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.stages.base import BUSY, DONE, STAGES, Part, Talk, Work, open_stage
from zoo.stages.folder import FolderWork, Stage

__all__ = [
    "BUSY",
    "DONE",
    "STAGES",
    "FolderWork",
    "Part",
    "Stage",
    "Talk",
    "Work",
    "open_stage",
]


@STAGES.register("scoring")
def _scoring(store: Path, settings: Mapping[str, Any], paths: Mapping[str, str]) -> Work:
    from zoo.stages.score import SCORING

    return FolderWork(SCORING, store, settings, paths)


@STAGES.register("training")
def _training(store: Path, settings: Mapping[str, Any], paths: Mapping[str, str]) -> Work:
    from zoo.stages.train import Training
    from zoo.store import read_plan

    return Training(store, read_plan(store), settings, paths)


@STAGES.register("diet-metrics")
def _diet_metrics(store: Path, settings: Mapping[str, Any], paths: Mapping[str, str]) -> Work:
    from zoo.stages.diet_metrics import DIET_METRICS

    return FolderWork(DIET_METRICS, store, settings, paths)


@STAGES.register("landscape")
def _landscape(store: Path, settings: Mapping[str, Any], paths: Mapping[str, str]) -> Work:
    from zoo.stages.landscape import LANDSCAPE

    return FolderWork(LANDSCAPE, store, settings, paths)


@STAGES.register("label")
def _label(store: Path, settings: Mapping[str, Any], paths: Mapping[str, str]) -> Work:
    from zoo.stages.label import LABEL

    return FolderWork(LABEL, store, settings, paths)
