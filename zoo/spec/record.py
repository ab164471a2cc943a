"""What a zoo records: at which steps a checkpoint is taken, and how many examples are probed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from zoo.errors import Problem, SpecError
from zoo.spec.limits import MAX_CHECKPOINTS, MAX_EPOCHS, MAX_EXAMPLES, MAX_STEPS

__all__ = ["CHECKPOINT_PLANS", "RecordSpec"]

#: Exactly one of these may be given; ``every_epochs = 1`` where none is.
CHECKPOINT_PLANS = ("every_epochs", "epochs", "steps", "log_steps")

#: Epochs between two checkpoints.
_SHORTEST, _LONGEST = 1e-6, 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSpec:
    """The checkpoint plan and the behavioural probe, one for a whole sweep.

    Step 0 (the initialisation) and the last step are always recorded.

    Args:
        every_epochs: a checkpoint every so many epochs.
        epochs: checkpoints at these epochs.
        steps: checkpoints at these steps.
        log_steps: this many checkpoints, log-spaced over the steps of the run.
        probe_size: test examples whose logits are recorded; 0 = none.

    Raises:
        SpecError: more than one plan, or values that are not positive numbers.
    """

    every_epochs: float | None = None
    epochs: tuple[float, ...] | None = None
    steps: tuple[int, ...] | None = None
    log_steps: int | None = None
    probe_size: int = 128

    def __post_init__(self) -> None:
        given = [name for name in CHECKPOINT_PLANS if getattr(self, name) is not None]
        problems = []
        if len(given) > 1:
            allowed = "one of " + ", ".join(CHECKPOINT_PLANS)
            problems.append(Problem("record", given, "more than one checkpoint plan", allowed))
        every, count = self.every_epochs, self.log_steps
        if every is not None and not (_is_number(every) and _SHORTEST <= every <= _LONGEST):
            allowed = f"a number >= {_SHORTEST:g} and <= {_LONGEST:g}"
            problems.append(Problem("record.every_epochs", every, "not a period", allowed))
        if count is not None and not (type(count) is int and 1 <= count <= MAX_CHECKPOINTS):
            allowed = f"an integer from 1 to {MAX_CHECKPOINTS}"
            problems.append(Problem("record.log_steps", count, "not a count", allowed))
        for name, kind, most in (
            ("epochs", "numbers", MAX_EPOCHS),
            ("steps", "integers", MAX_STEPS),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            if not _is_list(value, whole=name == "steps", most=most):
                allowed = f"a list of up to {MAX_CHECKPOINTS} {kind} from 0 to {most}"
                problems.append(Problem(f"record.{name}", value, "not a list of places", allowed))
            else:
                object.__setattr__(self, name, tuple(value))
        size = self.probe_size
        if type(size) is not int or not 0 <= size <= MAX_EXAMPLES:
            allowed = f"an integer from 0 to {MAX_EXAMPLES}"
            problems.append(Problem("record.probe_size", size, "not a size", allowed))
        if problems:
            raise SpecError(problems, "record")
        if not given:
            object.__setattr__(self, "every_epochs", 1.0)

    def at_most(self, total_steps: int, steps_per_epoch: int) -> int:
        """Return how many checkpoints a run has at most, without counting them one by one."""
        if self.every_epochs is not None:
            wanted = total_steps / (self.every_epochs * steps_per_epoch)
        else:
            wanted = self.log_steps or len(self.epochs or self.steps or ())
        return int(min(wanted, total_steps)) + 2

    def misfit(self, total_steps: int, steps_per_epoch: int) -> Problem | None:
        """Return what is wrong with the plan for a run of this length, if anything is."""
        if self.at_most(total_steps, steps_per_epoch) <= MAX_CHECKPOINTS + 2:
            return None
        message = f"more than {MAX_CHECKPOINTS:,} checkpoints in a run of {total_steps:,} steps"
        allowed = f">= {total_steps / steps_per_epoch / MAX_CHECKPOINTS:.3g}"
        return Problem("record.every_epochs", self.every_epochs, message, allowed)

    def checkpoint_steps(self, total_steps: int, steps_per_epoch: int) -> tuple[int, ...]:
        """Return the steps of a run's checkpoints: ascending, 0 first, ``total_steps`` last."""
        wanted: set[int] = {0, total_steps}
        if self.every_epochs is not None:
            period = self.every_epochs * steps_per_epoch
            if period <= 0.5:  # several in one step: every step has one
                wanted.update(range(total_steps + 1))
            else:
                count = int(total_steps / period + 1e-9)
                wanted.update(round(period * i) for i in range(count + 1))
        elif self.epochs is not None:
            wanted.update(round(e * steps_per_epoch) for e in self.epochs)
        elif self.steps is not None:
            wanted.update(int(s) for s in self.steps)
        elif self.log_steps is not None and total_steps > 0:
            wanted.update(round(s) for s in np.geomspace(1, total_steps, self.log_steps))
        return tuple(sorted(s for s in wanted if 0 <= s <= total_steps))

    def to_dict(self) -> dict[str, Any]:
        """Return every field that is set, JSON- and TOML-ready."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> RecordSpec:
        """Return the record spec that a store has, from :meth:`to_dict`, as it is there.

        Nothing is checked: a rule that is tightened later must not lock an old store.
        """
        spec = cls.__new__(cls)
        for info in fields(cls):
            value = values.get(info.name, info.default)
            whole = tuple(value) if isinstance(value, list) else value
            object.__setattr__(spec, info.name, whole)
        return spec


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _is_list(value: object, *, whole: bool, most: int) -> bool:
    if not isinstance(value, list | tuple) or len(value) > MAX_CHECKPOINTS:
        return False
    return all(_is_number(v) and 0 <= v <= most and (not whole or type(v) is int) for v in value)
