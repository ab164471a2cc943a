"""What one call of ``zoo submit`` hands in: stages and training, in order, each after the last.

A dry run and a submission go through the same steps, so that what is shown is what is submitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.launch.batch_script import check_folder, check_shell, script
from zoo.launch.cluster import ClusterStatus
from zoo.launch.diets import on_diets, unscored
from zoo.launch.drafting import Prepared
from zoo.launch.executor import Command, Step, in_order
from zoo.launch.profile import ClusterProfile
from zoo.launch.slurm import batch_of
from zoo.launch.submissions import Submission, record_folder, submission_numbers
from zoo.launch.submit import hand_in, hand_in_stage
from zoo.plugins import recorded_plugins
from zoo.stages import open_stage
from zoo.stages.score import OWN
from zoo.stages.train import Training
from zoo.store import is_store, read_plan

__all__ = ["DryRun", "Script", "Slurm", "StageWish", "dry_run", "hand_in_steps", "plan_steps"]

#: Verbs that train, and so use what the profile's ``device`` says.
_TRAIN = ("run",)
#: Stage → the verb that runs it: the name by which people know its job.
_VERBS = {"scoring": "score"}


@dataclass(frozen=True, slots=True)
class StageWish:
    """A verb of the command line that is to run as a job.

    Args:
        words: the verb, and what follows the store.
        parallel: whether it uses every core that it is given.
        program: what comes between ``python`` and the verb.
    """

    words: tuple[str, ...]
    parallel: bool
    program: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """What ``sbatch`` would get.

    Args:
        title: what it does.
        text: the whole script; ``JOB_2`` stands for the job id of the second script.
        alone: the same without waiting for others, for a scheduler that is only asked.
        profile: what it asks for.
    """

    title: str
    text: str
    alone: str
    profile: ClusterProfile


def plan_steps(ready: Prepared, wishes: Sequence[StageWish]) -> list[Step]:
    """Return the steps of a submission, in order.

    Args:
        ready: the draft.
        wishes: what is to run after the training.
    """
    steps: list[Step] = []
    if ready.draft.elements:
        training = Training(ready.path, ready.plan, {}, {})
        if _needs_scores(ready):
            scoring = _in_the_queue(ready.status, stage=_VERBS["scoring"])
            if scoring:  # of an earlier submission
                steps.append(Step(training, "afterok", scoring))
            else:
                steps.append(Step(open_stage("scoring", ready.path, OWN, {})))
                steps.append(Step(training, "afterok"))
        else:
            steps.append(Step(training))
    jobs = _in_the_queue(ready.status, stage="")
    plugins = [word for path in recorded_plugins() for word in ("--plugin", path)]
    for wish in wishes:
        words = (wish.words[0], str(ready.path.resolve()), *wish.words[1:], *plugins)
        does = Command(words, wish.program)
        steps.append(Step(does, "afterany" if steps else "", jobs, parallel=wish.parallel))
        jobs = ()  # the next one waits for this one
    return steps


def _needs_scores(ready: Prepared) -> bool:
    """Return whether training has to wait until its diets' examples are chosen."""
    dieting = {cohort.id for cohort in ready.plan.cohorts if on_diets(cohort)}
    if not dieting or not is_store(ready.path):
        return bool(dieting)
    there = read_plan(ready.path)
    missing = {cohort.id for cohort in unscored(ready.path, there)}
    return bool(missing) or not dieting <= {cohort.id for cohort in there.cohorts}


def _in_the_queue(status: ClusterStatus | None, *, stage: str) -> tuple[int, ...]:
    """Return the jobs of earlier submissions that are still in the queue."""
    if status is None:
        return ()
    jobs = [e.job for e in status.elements if e.live and e.job and e.stage == stage]
    return tuple(dict.fromkeys(int(job.partition("_")[0]) for job in jobs))


def hand_in_steps(ready: Prepared, steps: Sequence[Step]) -> list[Submission]:
    """Hand in every step, each after the one before it.

    Raises:
        SpecError: the store's name, or the profile's setup, cannot be in a batch script.
        SchedulerError: the scheduler refuses; steps that it took before stay submitted.
        StoreError: the disk refuses.
    """
    dry_run(ready, steps)  # nothing is submitted where a later script would be refused
    return in_order(steps, Slurm(ready))


def dry_run(ready: Prepared, steps: Sequence[Step]) -> list[Script]:
    """Return every script of a submission; changes nothing, and needs neither SLURM nor submitit.

    Raises:
        SpecError: the store's name, or the profile's setup, cannot be in a batch script.
    """
    return [script for scripts in in_order(steps, DryRun(ready)) for script in scripts]


@dataclass(frozen=True, slots=True)
class Slurm:
    """The executor that hands a step to the scheduler.

    Args:
        ready: the draft.
    """

    ready: Prepared

    def carry_out(self, step: Step, before: Sequence[Submission] = ()) -> Submission:
        """Hand in a step; return once the scheduler has it."""
        jobs = [job for one in before[-1:] for job in one.jobs.values()]
        waits = _dependency(step, jobs)
        if _trains(step):
            return hand_in(self.ready.path, self.ready.draft, dependency=waits)
        profile = _profile(self.ready, step)
        return hand_in_stage(self.ready.path, profile, _record(step), waits)


@dataclass(frozen=True, slots=True)
class DryRun:
    """The executor that writes the scripts and hands in nothing.

    Args:
        ready: the draft.
    """

    ready: Prepared

    def carry_out(self, step: Step, before: Sequence[Sequence[Script]] = ()) -> list[Script]:
        """Return the scripts of a step; they are numbered on from those of the steps before."""
        first = sum(len(scripts) for scripts in before)
        last = len(before[-1]) if before else 0
        waits = _dependency(step, [f"JOB_{number + 1}" for number in range(first - last, first)])
        one = self._imagined(step, len(before))
        found = []
        for array in range(one.arrays):
            batch = batch_of(one, array, dependency=waits)
            check_folder(batch.folder)
            check_shell(batch)
            part = f", array {array + 1} of {one.arrays}" if one.arrays > 1 else ""
            alone = script(dataclasses.replace(batch, dependency=None))
            found.append(Script(f"{_name(step)}{part}", script(batch), alone, batch.profile))
        return found

    def _imagined(self, step: Step, place: int) -> Submission:
        """Return the submission that a step would become."""
        path: Path = self.ready.path.resolve()
        draft, training = self.ready.draft, _trains(step)
        number = max(submission_numbers(self.ready.path), default=0) + 1 + place
        return Submission(
            folder=record_folder(path) / f"{number:04d}",
            number=number,
            id="dry-run",
            store=path,
            profile=_profile(self.ready, step),
            created=0.0,
            elements=draft.elements if training else ((),),
            seconds=draft.seconds if training else (0.0,),
            chunk=draft.chunk if training else 1,
            stage={} if training else _record(step),
        )


def _trains(step: Step) -> bool:
    return isinstance(step.does, Training)


def _name(step: Step) -> str:
    """Return what a step is to people: ``training``, or the verb that does it."""
    if _trains(step):
        return "training"
    return f"stage {_VERBS.get(step.does.name, step.does.name)}"


def _record(step: Step) -> dict[str, Any]:
    """Return what a job that does not train does, as a submission records it."""
    does = step.does
    name = _VERBS.get(does.name, does.name)
    if isinstance(does, Command):
        return {"name": name, "words": list(does.words), "program": list(does.program)}
    return {"name": name, "stage": does.name, "settings": dict(does.settings)}


def _profile(ready: Prepared, step: Step) -> ClusterProfile:
    """Return what a step's jobs ask for."""
    profile = ready.draft.profile
    if _trains(step) or (isinstance(step.does, Command) and step.does.name in _TRAIN):
        return profile
    return profile.for_stage(cpus=None if step.parallel else 1)


def _dependency(step: Step, before: Sequence[object]) -> str | None:
    """Return what a step waits for, in SLURM's words.

    Args:
        step: the step.
        before: job ids of the step before it.
    """
    known = [*(before if step.after else ()), *step.jobs]
    return f"{step.after or 'afterany'}:{':'.join(map(str, known))}" if known else None
