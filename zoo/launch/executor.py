"""What is to be done to a store, step by step, and the protocol of whoever does it.

There are three executors: :class:`zoo.launch.workers.Local` works with processes of this machine,
:class:`zoo.launch.submit_steps.Slurm` hands jobs to the scheduler (each of which works with
:class:`~zoo.launch.workers.Local`), and :class:`zoo.launch.submit_steps.DryRun` writes the scripts
of these jobs and submits nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from zoo.stages import Work

__all__ = ["Command", "Executor", "Step", "in_order"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command:
    """A verb of the command line, run by a Python of its own.

    Args:
        words: the verb, and what follows it.
        program: what comes between ``python`` and the verb. The command line stands above this
            room, so it says itself how it is started.
    """

    words: tuple[str, ...]
    program: tuple[str, ...]

    @property
    def name(self) -> str:
        """The verb."""
        return self.words[0]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a stage on a store, or a command.

    Args:
        does: what is to be done.
        after: ``afterok`` or ``afterany`` the step before it; empty = it need not wait for that.
        jobs: jobs of earlier submissions that it waits for, as well.
        parallel: whether it uses every core that it is given.
    """

    does: Work | Command
    after: str = ""
    jobs: tuple[int, ...] = ()
    parallel: bool = True


class Executor(Protocol[T]):
    """Carries out steps, or has them carried out; ``T`` is what it can say of a step then."""

    def carry_out(self, step: Step, before: Sequence[T] = ()) -> T:
        """Carry out a step after those ``before`` it, in whose order they were given."""


def in_order(steps: Iterable[Step], executor: Executor[T]) -> list[T]:
    """Carry out steps, each after the one before it; return what became of them."""
    done: list[T] = []
    for step in steps:
        done.append(executor.carry_out(step, done))
    return done
