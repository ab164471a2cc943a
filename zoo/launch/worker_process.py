"""The worker process: a program whose last argument is the process id of its parent.

It is a program and no ``multiprocessing`` child, so that a user's script needs no main guard. Lines
of JSON come in on standard input, the first with the stage, the others with a part each; lines
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
from pathlib import Path
from typing import IO, Any

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


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
    """Serve parts of a stage until the input ends."""
    _die_with_parent(int(sys.argv[-1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the parent's to handle
    requests: list[Callable[[], None]] = []
    signal.signal(signal.SIGUSR2, lambda number, frame: [ask() for ask in requests] and None)
    events = _event_stream()
    lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()

    from zoo.plugins import reload_recorded
    from zoo.stages import Talk, open_stage
    from zoo.train.memory import keep_freed_memory

    def tell(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")

    keep_freed_memory()
    about = lines.get()
    reload_recorded(about["plugins"])
    work = open_stage(about["stage"], Path(about["store"]), about["settings"], about["paths"])
    talk = Talk(
        committed=lambda count: tell(event="commit", committed=count),
        saved=lambda: tell(event="saved"),
        requests=requests,
    )
    do = work.worker(talk)
    tell(event="ready")
    while True:
        order = lines.get()
        try:
            outcome = do(order["part"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent records it
            reason = f"{type(error).__name__}: {error}"
            tell(event="error", reason=reason, traceback=traceback.format_exc())
        else:
            tell(event=outcome)
