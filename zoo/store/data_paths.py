"""Where the data of a store is: what it remembers, and who may say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

from zoo.data.places import check_given, chosen_paths
from zoo.spec.diet import SCORE_FILE
from zoo.store.create import read_plan
from zoo.train.plan import Plan

__all__ = ["data_paths", "names_of_files"]


def names_of_files(plan: Plan) -> set[str]:
    """Return the data sets and score files that the runs of a plan use."""
    scores = {run.score or "" for cohort in plan.cohorts for run in cohort.runs}
    sets = {str(facts.get("name", key)) for key, facts in plan.data.items()}
    return {*sets, *(score for score in scores if score.startswith(SCORE_FILE))}


def data_paths(
    path: str | PathLike[str], given: Mapping[str, str | PathLike[str]] | None = None
) -> dict[str, str]:
    """Return where the data sets and score files of a store are on this machine.

    What the caller gives goes before the environment variables (``ZOO_DATA_<NAME>``), and those
    before what the store remembers.

    Args:
        path: the store.
        given: data set or score file -> path.

    Raises:
        StoreMissingError: no store is there.
        StoreCorruptError: its plan is damaged.
        SpecError: paths are given that no run of the store uses.
    """
    plan = read_plan(path)
    if given:
        check_given(given, names_of_files(plan) | plan.paths.keys(), str(path))
    return chosen_paths(plan.paths, given)
