"""Progress of a run, told from commits alone; nothing here touches the store."""

from __future__ import annotations

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
        elapsed_s: seconds since this run began.
        ended: whether this is the last word of this run.
    """

    models: int
    done: float
    at_start: float
    failed: int
    elsewhere: int
    elapsed_s: float
    ended: bool = False

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
        parts = [f"{int(self.done):,} of {self.models:,} models"]
        if self.rate > 0:
            parts.append(f"{self.rate:.3g} models/s")
        if self.left_s:
            parts.append(f"{duration(self.left_s)} left")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        if self.elsewhere:
            parts.append(f"waiting for {self.elsewhere} task(s) of another process")
        return ", ".join(parts)


#: Told of every change; a run may call it a few times a second.
Reporter = Callable[[RunProgress], None]


def duration(seconds: float) -> str:
    """Return seconds as people say them: ``"48 s"``, ``"3 min 05 s"``, ``"2 h 10 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def reporter(stream: TextIO) -> Reporter:
    """Return a bar on a terminal, plain lines anywhere else."""
    return tqdm_reporter(stream) if stream.isatty() else line_reporter(stream)


def tqdm_reporter(stream: TextIO) -> Reporter:
    """Return a reporter that keeps a progress bar up to date."""
    from tqdm import tqdm

    bar: Any = None

    def report(state: RunProgress) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(
                total=state.models,
                initial=int(state.at_start),
                unit="model",
                file=stream,
                dynamic_ncols=True,
                smoothing=0.05,
                bar_format="{l_bar}{bar}| {n:.0f}/{total_fmt} models{postfix}",
            )
        bar.n = min(round(state.done, 2), state.models)
        parts = [f"{state.rate:.3g} models/s"]
        parts.append("time left unknown" if state.left_s is None else duration(state.left_s))
        if state.failed:
            parts.append(f"{state.failed} failed")
        if state.elsewhere:
            parts.append(f"waiting for {state.elsewhere} task(s) of another process")
        bar.set_postfix_str(", ".join(parts), refresh=False)
        bar.refresh()
        if state.ended:
            bar.close()

    return report


def line_reporter(stream: TextIO, *, every_s: float = _LINE_EVERY_S) -> Reporter:
    """Return a reporter that writes a line at the start, every so often, and at the end."""
    last = -float("inf")
    shown = ""

    def report(state: RunProgress) -> None:
        nonlocal last, shown
        now = time.monotonic()
        line = state.words()
        if line == shown or (now - last < every_s and not state.ended):
            return
        last, shown = now, line
        stream.write(line + "\n")
        stream.flush()

    return report
