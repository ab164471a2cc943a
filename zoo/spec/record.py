"""What a zoo records: at which steps a checkpoint is taken, and how many examples are probed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zoo.errors import Problem, SpecError

__all__ = ["CHECKPOINT_PLANS", "RecordSpec"]

#: Exactly one of these may be given; ``every_epochs = 1`` where none is.
CHECKPOINT_PLANS = ("every_epochs", "epochs", "steps", "log_steps")


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
        if every is not None and not (_is_number(every) and every > 0):
            problems.append(Problem("record.every_epochs", every, "not a period", "a number > 0"))
        if count is not None and (type(count) is not int or count < 1):
            problems.append(Problem("record.log_steps", count, "not a count", "an integer >= 1"))
        for name, kind in (("epochs", "numbers"), ("steps", "integers")):
            value = getattr(self, name)
            if value is None:
                continue
            if not _is_list(value, whole=name == "steps"):
                allowed = f"a list of {kind} >= 0"
                problems.append(Problem(f"record.{name}", value, "not a list of places", allowed))
            else:
                object.__setattr__(self, name, tuple(value))
        size = self.probe_size
        if type(size) is not int or size < 0:
            problems.append(Problem("record.probe_size", size, "not a size", "an integer >= 0"))
        if problems:
            raise SpecError(problems, "record")
        if not given:
            object.__setattr__(self, "every_epochs", 1.0)

    def checkpoint_steps(self, total_steps: int, steps_per_epoch: int) -> tuple[int, ...]:
        """Return the steps of a run's checkpoints: ascending, 0 first, ``total_steps`` last."""
        wanted: set[int] = {0, total_steps}
        if self.every_epochs is not None:
            count = int(total_steps / (self.every_epochs * steps_per_epoch) + 1e-9)
            wanted.update(round(self.every_epochs * steps_per_epoch * i) for i in range(count + 1))
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
    def from_dict(cls, values: Mapping[str, Any]) -> RecordSpec:
        """Rebuild a record spec from :meth:`to_dict`."""
        return cls(**values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: object, *, whole: bool) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return all(_is_number(v) and v >= 0 and (not whole or type(v) is int) for v in value)
