"""What diets add to a run of a zoo: scoring before it, and measurements after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from zoo.errors import TrainError
from zoo.launch.progress import Reporter
from zoo.launch.stages import StageSummary, run_stage
from zoo.stages.kept import MASK
from zoo.stages.score import OWN
from zoo.store import derived_columns
from zoo.train.plan import Cohort, Plan

__all__ = ["measure_diets", "on_diets", "score_first", "unscored"]


def on_diets(cohort: Cohort) -> bool:
    """Return whether any run of a cohort is on a static diet."""
    return any(run.keep is not None for run in cohort.runs)


def unscored(path: str | Path, plan: Plan) -> tuple[Cohort, ...]:
    """Return the cohorts on diets whose examples have not been chosen yet."""
    dieting = (cohort for cohort in plan.cohorts if on_diets(cohort))
    return tuple(c for c in dieting if MASK not in derived_columns(path, c))


def score_first(
    path: str | Path,
    plan: Plan,
    *,
    workers: int | None = None,
    progress: Reporter | None = None,
    paths: Mapping[str, str] | None = None,
) -> StageSummary | None:
    """Run the scoring stage of a store if anything is left of it; None where nothing is.

    Args:
        path: the store.
        plan: its plan.
        workers: processes; 0 = in this one; None = one per core.
        progress: told of every change.
        paths: data set or score file -> path, before what the environment and the store say.

    Raises:
        TrainError: a scoring model cannot be trained; the parts that are done stay.
        ZooError: whatever else the scores or the store do not allow.
    """
    if not unscored(path, plan):
        return None
    summary = run_stage(path, "scoring", OWN, workers=workers, progress=progress, paths=paths)
    if summary.failures:
        reasons = "; ".join(f"{f.task.key}: {f.reason}" for f in summary.failures)
        msg = f"the scoring stage failed, so the diets cannot be chosen: {reasons}"
        raise TrainError(msg)
    return summary


def measure_diets(
    path: str | Path,
    plan: Plan,
    *,
    workers: int | None = None,
    progress: Reporter | None = None,
    paths: Mapping[str, str] | None = None,
) -> StageSummary | None:
    """Measure models on what they kept and dropped, if any is on a diet; see the stage."""
    if not any(on_diets(cohort) for cohort in plan.cohorts):
        return None
    settings = {"format": 1, "cohorts": [c.id for c in plan.cohorts if on_diets(c)]}
    return run_stage(
        path, "diet-metrics", settings, workers=workers, progress=progress, paths=paths
    )
