"""Learning-rate schedules: the factor on the peak rate as a function of a model's own step.

Pure functions of (step, total), so runs of different lengths share a cohort and a resumed run
needs no schedule state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.fields import Field, Fields, named
from zoo.registry import Registry
from zoo.spec.run import RunSpec

__all__ = ["SCHEDULES", "Schedule", "group_rates", "learning_rates"]

Steps = NDArray[np.int64]
Factor = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule.

    Args:
        factor: (run, steps taken so far ``[T]``, total steps) -> factor ``[T]`` on the peak rate.
        fields: conditional run-spec fields that it reads.
    """

    factor: Callable[[RunSpec, Steps, int], Factor]
    fields: Fields


SCHEDULES: Registry[Schedule] = Registry("schedule", field="schedule")


def _warmed(run: RunSpec, step: Steps, total: int, factor: Factor) -> Factor:
    """Multiply by a linear rise over the first ``warmup`` share of the steps."""
    rise = round((run.warmup or 0.0) * total)
    return factor * np.minimum(1.0, (step + 1) / (rise + 1)) if rise else factor


def constant(run: RunSpec, step: Steps, total: int) -> Factor:
    """Return 1."""
    return _warmed(run, step, total, np.ones(step.shape))


def drops(run: RunSpec, step: Steps, total: int) -> Factor:
    """Return γ^⌊t/period⌋, the period being ``lr_drop_every`` of the run (torch's StepLR)."""
    period = max(1, round((run.lr_drop_every or 1.0) * total))
    return _warmed(run, step, total, (run.lr_gamma or 1.0) ** (step // period).astype(float))


def cosine(run: RunSpec, step: Steps, total: int) -> Factor:
    """Return half a cosine from 1 to ``lr_final`` (arXiv 1608.03983; CosineAnnealingLR)."""
    floor = run.lr_final or 0.0
    wave = 0.5 * (1 + np.cos(np.pi * step / max(total, 1)))
    return _warmed(run, step, total, floor + (1 - floor) * wave)


def one_cycle(run: RunSpec, step: Steps, total: int) -> Factor:
    """Return the cosine one-cycle (Smith and Topin 2017, arXiv 1708.07120; torch's OneCycleLR).

    From 1/div_factor up to 1 at ``pct_start``, then down to ``lr_final``.
    """
    start = 1 / (run.div_factor or 1.0)
    final = run.lr_final or 0.0
    peak = (run.pct_start or 0.3) * total - 1
    up = np.clip(step / peak, 0, 1) if peak > 0 else np.ones(step.shape)
    down = np.clip((step - peak) / max(total - 1 - peak, 1), 0, 1)
    rise = start + (1 - start) * 0.5 * (1 - np.cos(np.pi * up))
    fall = final + (1 - final) * 0.5 * (1 + np.cos(np.pi * down))
    return np.where(step <= peak, rise, fall)


_WARMUP = Field("warmup", "float", 0.0, "share of the steps with linear warm-up", low=0, high=1)
_LR_FINAL = Field("lr_final", "float", 0.0, "final learning rate over the peak", low=0, high=1)

SCHEDULES.register("constant", doc="the peak rate")(Schedule(constant, named(_WARMUP)))
SCHEDULES.register("step", doc="a drop by lr_gamma every lr_drop_every of the steps")(
    Schedule(
        drops,
        named(
            _WARMUP,
            Field("lr_gamma", "float", 0.1, "factor at each drop of the step schedule", above=0),
            Field(
                "lr_drop_every", "float", 1 / 3, "share of the steps between drops", above=0, high=1
            ),
        ),
    )
)
SCHEDULES.register(
    "cosine",
    doc="half a cosine from the peak down to lr_final",
    source="Loshchilov and Hutter 2016, arXiv 1608.03983",
)(Schedule(cosine, named(_WARMUP, _LR_FINAL)))
SCHEDULES.register(
    "one_cycle",
    doc="half a cosine up to the peak at pct_start, another down to lr_final",
    source="Smith and Topin 2017, arXiv 1708.07120",
)(
    Schedule(
        one_cycle,
        named(
            Field("pct_start", "float", 0.3, "share of the one-cycle rise", above=0, below=1),
            Field("div_factor", "float", 25.0, "one-cycle: peak over initial rate", low=1),
            _LR_FINAL.at(4e-6),
        ),
    )
)


def group_rates(runs: Sequence[RunSpec], steps: Steps) -> Factor:
    """Return the learning rates ``[T, G]`` of G runs at steps ``[T, G]``.

    Runs with one schedule at the same steps, which is the usual group, share its evaluation.
    """
    even = bool((steps == steps[:, :1]).all())
    shared: dict[tuple[object, ...], Factor] = {}
    rates = np.empty(steps.shape)
    for g, run in enumerate(runs):
        schedule = SCHEDULES[run.schedule]
        key = (run.schedule, run.steps, *(getattr(run, name) for name in schedule.fields))
        if not even or key not in shared:
            shared[key] = schedule.factor(run, steps[:, g], run.steps or 0)
        rates[:, g] = run.lr * shared[key]
    return rates


def learning_rates(run: RunSpec, steps: Steps) -> Factor:
    """Return the learning rate of each step ``[T]``, counted from 0, as float64."""
    return float(run.lr) * SCHEDULES[run.schedule].factor(run, steps, run.steps or 0)
