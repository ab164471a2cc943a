"""What the landscape stage is asked for: metrics, checkpoints, their options, sizes of probes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.errors import Problem, SpecError, nearest
from zoo.landscape import CELL_METRICS, MODEL_METRICS
from zoo.landscape.probes import PROBE_SIZES
from zoo.registry import PLUGIN_FIELD
from zoo.train.plan import Plan
from zoo.train.task_data import cohort_objective

__all__ = ["CHECKPOINTS", "NAME", "default_metrics", "landscape_settings", "metric_options"]

NAME = "landscape"
#: Which checkpoints: each run's last, about ten spread by their logarithm, or all.
CHECKPOINTS = ("last", "log", "all")


def default_metrics() -> tuple[str, ...]:
    """Return the metrics that are computed when none are named."""
    return tuple(n for n in MODEL_METRICS if MODEL_METRICS[n].default) + CELL_METRICS.names()


def _of_plan(names: Sequence[str] | None, plan: Plan) -> tuple[list[str], list[Problem]]:
    """Return the metrics that apply to any cohort, and a problem for each named one that does not.

    Which metrics a cell has does not depend on the objective, but which columns it has does.
    """
    objectives = dict.fromkeys(cohort_objective(cohort) for cohort in plan.cohorts)
    wanted = default_metrics() if names is None else tuple(names)
    kept, problems = [], []
    for name in wanted:
        needs = MODEL_METRICS[name].needs if name in MODEL_METRICS else ""
        lacks = [objective.lack(needs) for objective in objectives]
        if not lacks or not all(lacks):
            kept.append(name)
        elif names is not None:
            problems.append(Problem("metrics", name, lacks[0], ", ".join(_of_plan(None, plan)[0])))
    return kept, problems


def metric_options() -> dict[str, Mapping[str, Any]]:
    """Return every metric's options at their defaults."""
    return {
        **{name: MODEL_METRICS[name].options for name in MODEL_METRICS},
        **{name: CELL_METRICS[name].options for name in CELL_METRICS},
    }


def landscape_settings(
    metrics: Sequence[str] | None = None,
    *,
    checkpoints: str = "last",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    probes: Mapping[str, int] | None = None,
    plan: Plan | None = None,
) -> dict[str, Any]:
    """Return the settings of the stage.

    Args:
        metrics: names of :data:`MODEL_METRICS` and :data:`CELL_METRICS`; None = the default set.
        checkpoints: one of :data:`CHECKPOINTS`.
        options: metric → what is to differ from its default options.
        probes: sizes that are to differ from :data:`PROBE_SIZES`.
        plan: of the store: metrics that apply to none of its cohorts are refused, or left out of
            the default set.

    Raises:
        SpecError: names that are not known or that apply to no cohort, values of the wrong kind;
            all of them at once.
    """
    defaults = metric_options()
    known = tuple(defaults)
    wanted = tuple(dict.fromkeys(default_metrics() if metrics is None else metrics))
    problems = [
        Problem("metrics", name, "unknown metric", ", ".join(known), _hint(name, known))
        for name in (*wanted, *(options or {}))
        if name not in known
    ]
    if plan is not None and not problems:
        kept, problems = _of_plan(metrics, plan)
        wanted = tuple(dict.fromkeys(kept)) or wanted
    if not wanted:
        problems.append(Problem("metrics", [], "no metric", ", ".join(known)))
    if checkpoints not in CHECKPOINTS:
        allowed = ", ".join(CHECKPOINTS)
        problems.append(Problem("checkpoints", checkpoints, "unknown choice", allowed))
    for name, given in (options or {}).items():
        problems += _misfits(name, given, defaults.get(name, given))
    problems += _misfits("probes", probes or {}, PROBE_SIZES)
    if problems:
        raise SpecError(problems, NAME)
    return {
        "metrics": [name for name in known if name in wanted],
        "checkpoints": checkpoints,
        "options": {
            name: {**defaults[name], **dict((options or {}).get(name, {})), **_plugin(name)}
            for name in known
            if name in wanted or not _plugin(name)
        },
        "probes": {**PROBE_SIZES, **(probes or {})},
    }


def _plugin(name: str) -> dict[str, str]:
    """Return the content of the plug-in that a metric comes from, as one more option of it."""
    registry: Any = MODEL_METRICS if name in MODEL_METRICS else CELL_METRICS
    sha256 = registry.about(name).plugin
    return {PLUGIN_FIELD.name: sha256} if sha256 else {}


def _hint(name: str, known: Sequence[str]) -> str:
    close = nearest(name, known)
    return f"did you mean {close!r}?" if close else ""


def _misfits(place: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with values that shall replace defaults: of the same kind, positive."""
    problems = []
    for name, value in given.items():
        field = f"{place}.{name}"
        if name not in defaults:
            allowed = ", ".join(defaults) or "none: it has no options"
            problems.append(
                Problem(field, value, "unknown option", allowed, _hint(name, tuple(defaults)))
            )
            continue
        default = defaults[name]
        if isinstance(default, list):
            fits = isinstance(value, list) and all(_counts(v) for v in value)
            allowed = "a list of integers >= 1"
        elif isinstance(default, float):
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            fits = fits and math.isfinite(value) and value >= 0
            allowed = "a number >= 0"
        else:
            fits, allowed = _counts(value), "an integer >= 1"
        if not fits:
            problems.append(
                Problem(field, value, "not allowed", allowed, f"the default is {default}")
            )
    return problems


def _counts(value: object) -> bool:
    return type(value) is int and value >= 1
