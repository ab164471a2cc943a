"""The worker process: a program whose last argument is the process id of its parent.

It is a program and no ``multiprocessing`` child, so that a user's script needs no main guard. Lines
of JSON come in on standard input, the first with the settings, the others with a task each; lines
of JSON go out, one an event. It ends when its input ends, and never outlives its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import IO, Any

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1

#: Does what an order says; returns ``"done"`` or ``"busy"``.
_Work = Callable[[dict[str, Any]], str]


def _die_with_parent(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _read_lines(lines: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Queue the input; its end means that the parent wants, or is, an end."""
    for line in sys.stdin:
        lines.put(json.loads(line))
    os._exit(0)


def _event_stream() -> IO[str]:
    """Return standard output for events alone: what libraries print goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return stream


def main() -> None:
    """Serve tasks until the input ends."""
    _die_with_parent(int(sys.argv[-1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    hints: list[Callable[[], None]] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: [hint() for hint in hints] and None)
    events = _event_stream()
    lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()

    from zoo.train.memory import keep_freed_memory

    def tell(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")

    keep_freed_memory()
    settings = lines.get()
    work = (_stage_work if "stage" in settings else _training_work)(settings, tell, hints)
    tell(event="ready")
    while True:
        order = lines.get()
        try:
            outcome = work(order)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent records it
            reason = f"{type(error).__name__}: {error}"
            tell(event="error", reason=reason, traceback=traceback.format_exc())
        else:
            tell(event=outcome)


def _training_work(
    settings: dict[str, Any], tell: Callable[..., None], hints: list[Callable[[], None]]
) -> _Work:
    """Return what trains one task; ``hints`` gets what a signal to save calls."""
    from zoo.launch.worker import SAVE_S, Saver, run_task
    from zoo.store import read_plan

    plan = read_plan(settings["store"])
    saver = Saver(settings.get("save_s", SAVE_S), on_save=lambda: tell(event="saved"))
    hints.append(saver.ask)
    tasks = {(task.cohort, task.index): task for task in plan.tasks()}

    def work(order: dict[str, Any]) -> str:
        return run_task(
            settings["store"],
            plan,
            tasks[order["cohort"], order["index"]],
            backend=settings["backend"],
            device=settings.get("device", "auto"),
            paths=settings["paths"],
            on_commit=lambda committed: tell(event="commit", committed=committed),
            saver=saver,
        )

    return work


def _stage_work(
    settings: dict[str, Any], tell: Callable[..., None], hints: list[Callable[[], None]]
) -> _Work:
    """Return what computes one part of a stage; a part has nothing to save before its end."""
    from zoo.launch.stages import run_part

    def work(order: dict[str, Any]) -> str:
        return run_part(settings["store"], settings["stage"], settings["settings"], order["part"])

    return work
