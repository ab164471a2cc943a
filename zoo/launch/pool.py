"""A pool of worker processes: one thread each, replaced when they die, gone when the parent is."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from zoo.errors import TrainError
from zoo.launch.queue import Failed, Queue
from zoo.plugins import recorded_plugins
from zoo.stages.base import BUSY, DONE, Part, Work

__all__ = ["WORKER", "WorkerPool", "worker_environment"]

#: Without the current folder on its path (-P), where any file could stand in for a library; but
#: with the folder that this very package was imported from.
_BOOT = """
import sys
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
from zoo.launch.worker_process import main
main()
"""
#: The command of a worker; the parent's process id is added.
WORKER = (sys.executable, "-P", "-c", _BOOT, str(Path(__file__).parents[2]))

#: Seconds between looks at the clock while nothing happens.
_TICK_S = 0.25
#: Seconds that workers have to save, when a signal says that the end is near.
_SAVE_WAIT_S = 60.0
#: Workers that die one after the other before they are ready, after which the run is given up.
_FALSE_STARTS = 3
#: Bytes of a dead worker's last words that are kept.
_LAST_WORDS = 8000
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker: one thread, and a compiler that starts no others."""
    single = dict.fromkeys((*_THREAD_VARIABLES, "TORCHINDUCTOR_COMPILE_THREADS"), "1")
    return {**os.environ, **single}


@dataclass(slots=True)
class _Worker:
    """A process, what it writes, and what it works on."""

    process: subprocess.Popen[bytes]
    words: IO[bytes]
    ready: bool = False
    part: Part | None = None
    seat: int = 0
    saving: bool = False
    owns: bool = False
    buffer: bytes = b""

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one line; a worker that is gone is noticed when its output ends."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def lines(self) -> list[dict[str, Any]] | None:
        """Return the events that have arrived, None at the end of the output."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            return None
        *whole, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in whole]

    def last_words(self) -> str:
        """Return the end of what the worker wrote to standard error."""
        size = self.words.seek(0, os.SEEK_END)
        self.words.seek(max(size - _LAST_WORDS, 0))
        return self.words.read().decode(errors="replace").strip()

    def end(self) -> None:
        """Kill the process, if it lives, and release what it held."""
        self.process.kill()  # nothing committed can be lost, so there is nothing to wait for
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.words):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


@dataclass(slots=True)
class WorkerPool:
    """Works through a queue with N processes.

    Args:
        work: the stage.
        queue: its open parts.
        workers: N.
        seats: environment of the n-th worker, such as the one GPU that it sees.
        save_signal: a signal on which every worker saves what it has, and then all end.
        on_start: called with each part that a worker has become the owner of, and has begun.
        on_change: called after each event and about every ``_TICK_S`` seconds.
        on_failure: called with each part that is given up.
        command: of a worker.
    """

    work: Work
    queue: Queue[Part]
    workers: int
    seats: Sequence[Mapping[str, str]] = ()
    save_signal: signal.Signals | None = None
    on_start: Callable[[Part], None] = lambda part: None
    on_change: Callable[[], None] = lambda: None
    on_failure: Callable[[Failed[Part]], None] = lambda failed: None
    command: Sequence[str] = WORKER
    _alive: list[_Worker] = field(default_factory=list)
    _false_starts: int = 0
    _stop: bool = False
    _save_until: float | None = None

    @property
    def saved(self) -> bool:
        """Whether the save signal came."""
        return self._save_until is not None

    def run(self) -> bool:
        """Work until the queue is empty; return False if a signal asked to stop before.

        Raises:
            TrainError: workers die before they are ready.
        """
        with _stop_signals(self._requests()), selectors.DefaultSelector() as selector:
            try:
                while self.queue.open and not self._stop:
                    if self._save_until is None:
                        self._hand_out(selector)
                    else:
                        self._save_and_stop()
                    for key, _ in selector.select(_TICK_S):
                        self._listen(selector, key.data)
                    self.on_change()
            finally:
                for worker in self._alive:
                    worker.end()
                self._alive.clear()
        return not self._stop

    def _requests(self) -> dict[signal.Signals, Callable[[], None]]:
        found = {signal.SIGINT: self._request_stop, signal.SIGTERM: self._request_stop}
        if self.save_signal is not None:
            found[self.save_signal] = self._request_save
        return found

    def _request_stop(self) -> None:
        self._stop = True

    def _request_save(self) -> None:
        if self._save_until is None:
            for worker in self._alive:
                worker.saving = worker.ready and worker.part is not None
            self._save_until = time.monotonic() + _SAVE_WAIT_S

    def _save_and_stop(self) -> None:
        """Wait until no worker has anything to save, or for as long as there is time."""
        assert self.save_signal is not None
        assert self._save_until is not None
        waiting = [worker for worker in self._alive if worker.saving and worker.part is not None]
        for worker in waiting:
            worker.process.send_signal(self.save_signal)
        self._stop = not waiting or time.monotonic() > self._save_until

    def _hand_out(self, selector: selectors.BaseSelector) -> None:
        """Give every idle worker a part, and keep as many workers as there is work for."""
        for worker in self._alive:
            if worker.ready and worker.part is None:
                worker.part = self.queue.next(time.monotonic())
                if worker.part is None:
                    return
                worker.owns = False
                worker.send({"part": worker.part.key})
        wanted = min(self.workers, self.queue.waiting + self._occupied())
        while len(self._alive) < wanted:
            self._start(selector)

    def _occupied(self) -> int:
        return sum(worker.part is not None for worker in self._alive)

    def _start(self, selector: selectors.BaseSelector) -> None:
        words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _Worker.end
        seat = min(set(range(len(self._alive) + 1)) - {worker.seat for worker in self._alive})
        own = self.seats[seat % len(self.seats)] if self.seats else {}
        process = subprocess.Popen(
            [*self.command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            env={**worker_environment(), **own},
            process_group=0,  # a terminal's Ctrl-C reaches the parent alone
        )
        worker: _Worker = _Worker(process, words, seat=seat)
        self._alive.append(worker)
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ, worker)
        work = self.work
        about = {"stage": work.name, "store": str(work.store), "settings": dict(work.settings)}
        worker.send({**about, "paths": dict(work.paths), "plugins": recorded_plugins()})

    def _listen(self, selector: selectors.BaseSelector, worker: _Worker) -> None:
        events = worker.lines()
        if events is None:
            assert worker.process.stdout is not None
            selector.unregister(worker.process.stdout)
            self._bury(worker)
            return
        for event in events:
            self._heed(worker, event)

    def _heed(self, worker: _Worker, event: Mapping[str, Any]) -> None:
        kind, part = event["event"], worker.part
        if kind == "ready":
            worker.ready = True
            self._false_starts = 0
            return
        assert part is not None
        if kind == "commit":
            self.queue.progress(part, event["committed"])
            if not worker.owns:
                worker.owns = True
                self.on_start(part)
            return
        if kind == "saved":
            worker.saving = False
            return
        worker.part = None
        if kind == DONE:
            self.queue.finished(part)
        elif kind == BUSY:
            self.queue.owned_elsewhere(part, time.monotonic())
        else:
            self._broke(part, event["reason"], event["traceback"])

    def _bury(self, worker: _Worker) -> None:
        """Take leave of a worker that died, and let its part be tried again."""
        code = worker.process.wait()
        words = worker.last_words()
        worker.end()
        self._alive.remove(worker)
        if not worker.ready:
            self._false_starts += 1
            if self._false_starts >= _FALSE_STARTS:
                msg = f"workers end before they are ready ({_ending(code)}):\n{words}"
                raise TrainError(msg)
        elif worker.part is not None:
            self._broke(worker.part, f"the worker process {_ending(code)}", words)

    def _broke(self, part: Part, reason: str, traceback: str) -> None:
        failed = self.queue.broke(part, reason, traceback)
        if failed is not None:
            self.on_failure(failed)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


@contextmanager
def _stop_signals(requests: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Turn signals into requests for the block; only the main thread can."""
    old: dict[signal.Signals, Any] = {}
    try:
        for name, request in requests.items():
            try:
                old[name] = signal.signal(name, _handler(request))
            except ValueError:  # not the main thread: the caller has its own way to stop
                break
        yield
    finally:
        for name, handler in old.items():
            signal.signal(name, handler)


def _handler(request: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
    return lambda number, frame: request()
