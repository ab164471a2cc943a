"""Progress of a run, told from commits alone; nothing here touches the store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

__all__ = ["RunProgress", "duration", "line_reporter", "reporter", "tqdm_reporter"]

#: Seconds between two lines where there is no terminal.
_LINE_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is.

    Args:
        models: models of the store.
        done: models done; a model of which half the checkpoints are committed counts a half.
        at_start: ``done`` when this run began.
        failed: models of tasks that were given up.
        elsewhere: tasks that another process works on.
        elapsed_s: seconds since this phase began.
        ended: whether this is the last word of this phase.
        phase: what is being done: ``"scoring"``, ``"training"``, ...
    """

    models: int
    done: float
    at_start: float
    failed: int
    elsewhere: int
    elapsed_s: float
    ended: bool = False
    phase: str = "training"

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, and there was nothing when it began."""
        return self.models <= min(self.done, self.at_start) and not self.elsewhere

    @property
    def rate(self) -> float:
        """Models a second, in this run."""
        return (self.done - self.at_start) / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left at this rate; None while nothing is known."""
        left = self.models - self.done - self.failed
        if left <= 0:
            return 0.0
        return left / self.rate if self.rate > 0 else None

    def words(self) -> str:
        """Return the state as one line."""
        parts = [f"{self.phase}: {int(self.done):,} of {self.models:,} models"]
        if self.rate > 0:
            parts.append(f"{self.rate:.3g} models/s")
        if self.left_s:
            parts.append(f"{duration(self.left_s)} left")
        return ", ".join([*parts, *self.troubles()])

    def troubles(self) -> list[str]:
        """Return what does not go as it should, in words."""
        parts = [f"{self.failed:,} failed"] if self.failed else []
        if self.elsewhere:
            tasks = "1 task" if self.elsewhere == 1 else f"{self.elsewhere} tasks"
            parts.append(f"waiting for {tasks} of another process")
        return parts


#: Told of every change; a run may call it a few times a second.
Reporter = Callable[[RunProgress], None]


def duration(seconds: float) -> str:
    """Return seconds in words: ``"48 s"``, ``"3 min 05 s"``, ``"2 h 10 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def reporter(stream: TextIO) -> Reporter:
    """Return a bar per phase on a terminal, plain lines anywhere else."""
    return tqdm_reporter(stream) if stream.isatty() else line_reporter(stream)


def tqdm_reporter(stream: TextIO) -> Reporter:
    """Return a reporter that keeps one progress bar per phase up to date."""
    bar: Any = None
    shown: str | None = None

    def report(state: RunProgress) -> None:
        nonlocal bar, shown
        if bar is not None and state.phase != shown:
            bar.close()
            bar = None
        if bar is None:
            if state.ended or state.idle:  # over already: no bar for what has nothing to do
                return
            bar, shown = _bar(state, stream), state.phase
        bar.n = min(round(state.done, 2), state.models)
        parts = [f"{state.rate:.3g} models/s"]
        if state.ended:
            parts.append(f"took {duration(state.elapsed_s)}")
        else:
            known = state.left_s is not None
            parts.append(f"{duration(state.left_s or 0.0)} left" if known else "time left unknown")
        bar.set_postfix_str(", ".join([*parts, *state.troubles()]), refresh=False)
        bar.refresh()
        if state.ended:
            bar.close()
            bar = None

    return report


def _bar(state: RunProgress, stream: TextIO) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=state.models,
        initial=int(state.at_start),
        desc=state.phase,
        unit="model",
        file=stream,
        **_width(stream),
        smoothing=0.05,
        bar_format="{l_bar}{bar}| {n:.0f}/{total_fmt} models{postfix}",
    )


def _width(stream: TextIO) -> dict[str, Any]:
    """Return how wide a bar is: as the terminal, or 80 columns if it does not know its size."""
    try:
        known = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 20}


def line_reporter(stream: TextIO, *, every_s: float = _LINE_EVERY_S) -> Reporter:
    """Return a reporter that writes a line as a phase starts, every so often, and as it ends."""
    last = -float("inf")
    shown, phase = "", ""

    def report(state: RunProgress) -> None:
        nonlocal last, shown, phase
        now = time.monotonic()
        line = state.words()
        soon = now - last < every_s and state.phase == phase and not state.ended
        if line == shown or soon:
            return
        last, shown, phase = now, line, state.phase
        stream.write(line + "\n")
        stream.flush()

    return report
