"""The thresholds of the phase rule, and where each comes from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import Problem, SpecError, nearest
from zoo.phases.cells import HARDNESS
from zoo.registry import Registry

__all__ = ["AGREEMENT", "PUBLISHED", "SETTINGS", "Thresholds", "cka_of_logits", "thresholds"]

#: What the sources below call the published grid.
PUBLISHED = "13 x 13 cells of ResNet-18 on CIFAR-10, Yang et al. 2021, arXiv 2107.11228"

#: Setting → percent of the published grid's cells that get the phase drawn there.
AGREEMENT: Mapping[str, float] = {"published": 87.6, "zoo": 78.7}

_GRID = "published grid"
_OURS = "given by the user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What the rule compares with. None turns a test off; for ``cka`` it means: from the data.

    Args:
        setting: name of the setting that these started from.
        hard_tests: what decides whether training is unfinished, first the one that counts; those
            after it stand in where it is missing, and their agreement enters the confidence.
        train_loss: nats; above it training is unfinished.
        train_error: percent; the same.
        lambda_max: largest Hessian eigenvalue; the same.
        trace: Hessian trace; the same.
        optimised: percent of training error; unfinished and below it is I, otherwise II.
        connected: percent of training error; finished and below minus it is III.
        cka: above it is IV-B, otherwise IV-A; None = Otsu's cut of the cells that come so far.
        collapse: share of the loss of guessing; a training loss above it is X.
        bad_share: a larger share of diverged or collapsed models makes a cell X.
        boundary: standard errors; a cell with a smaller margin stands on a boundary.
        sources: threshold → where it comes from.

    Raises:
        SpecError: every value that cannot be.
    """

    setting: str
    hard_tests: tuple[str, ...] = HARDNESS
    train_loss: float | None = 0.01
    train_error: float | None = 1.0
    lambda_max: float | None = None
    trace: float | None = None
    optimised: float = 0.0
    connected: float = 1.5
    cka: float | None = None
    collapse: float = 0.9
    bad_share: float = 0.5
    boundary: float = 1.0
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [
            Problem(name, value, "not a finite number", "a number, or none")
            for name, value in self.numbers().items()
            if value is not None and not math.isfinite(value)
        ]
        tests = ", ".join(HARDNESS)
        problems += [
            Problem("hard_tests", name, "unknown test", tests)
            for name in self.hard_tests
            if name not in HARDNESS
        ]
        if not problems and not self.active:
            given, fix = list(self.hard_tests), "give one of them a threshold"
            problems.append(Problem("hard_tests", given, "all are off", tests, fix))
        if self.connected < 0:
            problems.append(Problem("connected", self.connected, "is negative", ">= 0"))
        problems += [
            Problem(name, getattr(self, name), "out of range", "> 0 and <= 1")
            for name in ("collapse", "bad_share")
            if not 0 < getattr(self, name) <= 1
        ]
        if problems:
            raise SpecError(problems, "thresholds")

    @property
    def active(self) -> tuple[str, ...]:
        """The hardness tests that have a threshold, first the one that counts."""
        return tuple(n for n in self.hard_tests if n in HARDNESS and getattr(self, n) is not None)

    def numbers(self) -> dict[str, float | None]:
        """Return every threshold."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def to_json(self) -> dict[str, Any]:
        """Return everything, JSON-ready."""
        return {
            "setting": self.setting,
            "hard_tests": list(self.hard_tests),
            **self.numbers(),
            "sources": dict(self.sources),
        }

    def but(
        self, values: Mapping[str, float | None], hard_tests: tuple[str, ...] = ()
    ) -> Thresholds:
        """Return these with some replaced by the user's.

        Args:
            values: threshold → number, or None to turn it off (``cka``: to find it from the data).
            hard_tests: the tests to use, or empty to keep them.

        Raises:
            SpecError: unknown names and values that cannot be, all at once.
        """
        problems = []
        for name, value in values.items():
            if name not in _NUMBERS:
                close = nearest(name, _NUMBERS)
                fix = f"did you mean {close!r}?" if close else ""
                problems.append(Problem(name, value, "no such threshold", ", ".join(_NUMBERS), fix))
            elif value is None and name not in (*HARDNESS, "cka"):
                problems.append(Problem(name, "none", "cannot be off", "a number"))
        if problems:
            raise SpecError(problems, "thresholds")
        given = dict.fromkeys([*values, *(["hard_tests"] if hard_tests else [])], _OURS)
        changes: dict[str, Any] = {**values, "sources": {**self.sources, **given}}
        return dataclasses.replace(self, **changes, hard_tests=hard_tests or self.hard_tests)


_NUMBERS = (
    *HARDNESS, "optimised", "connected", "cka", "collapse", "bad_share", "boundary",
)  # fmt: skip

#: Named starting points.
SETTINGS: Registry[Thresholds] = Registry("setting of thresholds")

_COMMON = {
    "optimised": "published grid: a curve better than its ends shows that training can go on",
    "collapse": "90 % of the loss of guessing; constant outputs have no similarity to measure",
    "bad_share": "a majority of the seeds",
    "boundary": "one standard error",
}

SETTINGS.register(
    "published",
    doc="the published thresholds, absolute",
    source="Yang et al. 2021, arXiv 2107.11228",
)(
    Thresholds(
        setting="published",
        train_loss=0.01,
        train_error=0.1,
        lambda_max=20.0,
        trace=190.0,
        cka=0.71,
        sources={
            **_COMMON,
            "hard_tests": f"{_GRID}: training loss; error and sharpness do as well there",
            "train_loss": f"{_GRID}: 0.003 to 0.01 agree best with the drawn boundaries",
            "train_error": f"{_GRID}: 0.01 to 1 % agree nearly as well",
            "lambda_max": f"{_GRID}: log 3.0 agrees as well as the loss",
            "trace": f"{_GRID}: log 5.25 agrees as well as the loss",
            "connected": f"{_GRID}: 1.5 to 3 agree best",
            "cka": f"{_GRID}: softmax outputs on mixed-up training batches",
        },
    )
)

SETTINGS.register(
    "zoo", doc="for short runs: training error decides too, and CKA is cut where this zoo splits"
)(
    Thresholds(
        setting="zoo",
        hard_tests=("train_error", "train_loss"),
        train_loss=0.01,
        train_error=1.0,
        sources={
            **_COMMON,
            "hard_tests": "training error: short runs fit every example before the loss is small",
            "train_loss": f"{_GRID}: 0.003 to 0.01 agree best with the drawn boundaries",
            "train_error": "1 % of the training examples; on the published grid 3 points behind",
            "connected": f"{_GRID}: 1.5 to 3 agree best",
            "cka": "Otsu's cut of this zoo's finished, connected cells: the scale is the task's",
        },
    )
)


def thresholds(
    setting: str = "zoo",
    values: Mapping[str, float | None] | None = None,
    hard_tests: tuple[str, ...] = (),
) -> Thresholds:
    """Return the thresholds of a setting, some of them replaced.

    Args:
        setting: ``"zoo"`` or ``"published"``.
        values: as in :meth:`Thresholds.but`.
        hard_tests: the same.

    Raises:
        UnknownNameError: no such setting.
        SpecError: names and values that cannot be.
    """
    base = SETTINGS[setting]
    return base.but(values or {}, hard_tests) if values or hard_tests else base


def cka_of_logits(base: Thresholds) -> Thresholds:
    """Return the published thresholds for a similarity that was measured on logits."""
    sources = {**base.sources, "cka": f"{_GRID}: logits on mixed-up training batches"}
    return dataclasses.replace(base, cka=0.82, sources=sources)
