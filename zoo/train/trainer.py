"""The engine: trains one task's rows as slabs and hands over a checkpoint at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures import build
from zoo.architectures.init import initial_row_of
from zoo.arithmetic import pinned, pinned_compiler
from zoo.errors import TrainError
from zoo.optim import OPTIMIZERS
from zoo.train.backends import (
    BACKENDS,
    PRECISIONS,
    check_device,
    conv_form,
    step_function,
)
from zoo.train.checkpoint import Checkpoint, ResumePoint, recorded
from zoo.train.dynamic import DYNAMICS, Dynamic, Memory
from zoo.train.evaluate import Examples, evaluate, probe_logits
from zoo.train.group import Group, make_group
from zoo.train.pause import (
    PausePoint,
    Pauses,
    SegmentProgress,
    Tick,
    pack_parts,
    pack_progress,
    unpack_parts,
    unpack_progress,
)
from zoo.train.plan import Cohort, Plan, Task
from zoo.train.reference import reference_segment
from zoo.train.segment import Stretch, current_rates, stacked_segment
from zoo.train.step import Recipe, State
from zoo.train.task_data import cohort_objective, task_data

__all__ = ["Engine", "TaskTrainer"]

Columns = dict[str, Tensor]

#: Name of a tensor of the dynamic diet's memory among the resume arrays.
_MEMORY = "diet_{}"


@dataclass(frozen=True, slots=True)
class Engine:
    """What computes the steps.

    Args:
        backend: one of :data:`zoo.train.backends.BACKENDS`; ``"auto"`` takes the cohort's own.
        device: a torch device; ``"auto"`` takes the cohort's type. Bits hold for one type.
    """

    backend: str = "auto"
    device: str = "auto"


class TaskTrainer:
    """Trains the rows of one task (R models) from checkpoint to checkpoint.

    Between two checkpoints each group of G rows takes its steps alone, so that its slabs stay in
    cache; a checkpoint is handed over when every group has reached it.

    Args:
        plan: the plan.
        cohort: the task's cohort.
        task: the rows.
        engine: what computes; by default what the cohort was planned for.
        paths: user paths of data sets.
        kept: run id to the examples that its static diet keeps.

    Raises:
        DataError: the data set is not the one that was planned with.
        TrainError: unknown backend, no such device, a layout that this version no longer builds, a
            metric that it does not compute, rows that are not there to be trained, or a run on a
            diet whose examples are not in ``kept``.
    """

    @pinned()
    def __init__(
        self,
        plan: Plan,
        cohort: Cohort,
        task: Task,
        *,
        engine: Engine = Engine(),
        paths: Mapping[str, str] | None = None,
        kept: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        self.cohort = cohort
        self.task = task
        self.device = torch.device(cohort.device if engine.device == "auto" else engine.device)
        check_device(str(self.device))
        self.backend = cohort.backend if engine.backend == "auto" else engine.backend
        if self.backend not in BACKENDS:
            msg = f"unknown backend {self.backend!r}; allowed: auto, {', '.join(BACKENDS)}"
            raise TrainError(msg)
        self.runs = cohort.runs[task.start : task.stop]
        network = build(self.runs[0], cohort.data_shape)
        if network.layout != cohort.layout:
            msg = f"cohort {cohort.id} was planned with another layout; was phasezoo updated?"
            raise TrainError(msg)
        objective = cohort_objective(cohort)
        _check_trainable(cohort, task)
        splits = tuple(plan.data[plan.data_key(self.runs[0])]["splits"])
        _check_recorded(cohort, recorded(objective, splits))
        self.data = task_data(plan, cohort, network, paths or {}, self.device)
        self.recipe = Recipe(
            network=network,
            objective=objective,
            optimizer=OPTIMIZERS[self.runs[0].optimizer],
            shared=cohort.key,
            dtype=PRECISIONS[self.runs[0].precision],
            conv=conv_form(self.backend, device=self.device.type),
            dropout=bool(cohort.key["has_dropout"]),
            dynamic=_dynamic(self.runs[0].dynamic),
            fresh=self.data.fresh,
        )
        self.take = step_function(self.recipe, self.backend, device=self.device.type)
        self.groups = self._make_groups(kept)

    def _make_groups(self, kept: Mapping[str, NDArray[np.int64]] | None) -> list[Group]:
        G, subset = self.cohort.group_rows, bool(self.cohort.key["subset"])
        steps = self.cohort.steps[self.task.start : self.task.stop]
        return [
            make_group(
                self.runs[i : i + G], steps[i : i + G], G, self.data, subset=subset, kept=kept
            )
            for i in range(0, len(self.runs), G)
        ]

    @property
    def training_flops(self) -> NDArray[np.float64]:
        """``[R]`` floating-point operations of each whole run."""
        return self.cohort.train_flops[self.task.start : self.task.stop]

    def run(
        self,
        resume: ResumePoint | None = None,
        *,
        pause: PausePoint | None = None,
        pauses: Pauses | None = None,
    ) -> Iterator[Checkpoint]:
        """Yield the checkpoints after ``resume``, or all from step 0.

        Args:
            resume: where to go on; checkpoints up to its index are not yielded again.
            pause: a later point than ``resume``, between it and the next checkpoint.
            pauses: who is asked between blocks of steps whether to save.
        """
        with self._arithmetic():
            origins = [self._initial_slab(group) for group in self.groups]
            states = self._states(origins, resume if pause is None else _resume_point(pause))
        start = pause.index if pause is not None else 0 if resume is None else resume.index + 1
        if states[0].memory:
            pauses = None  # what a dynamic diet remembers is kept at checkpoints alone
        for k in range(start, self.cohort.checkpoints):
            with self._arithmetic():
                parts = self._to_checkpoint(k, states, origins, pause, pauses)
                checkpoint = self._checkpoint(k, states, parts)
            pause = None
            yield checkpoint

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Set aside what the caller has set; never held while the caller has a checkpoint."""
        with pinned(), torch.no_grad():
            if self.backend != "compiled":
                yield
                return
            with pinned_compiler():
                yield

    def _to_checkpoint(
        self,
        k: int,
        states: list[State],
        origins: list[Tensor],
        pause: PausePoint | None,
        pauses: Pauses | None,
    ) -> list[tuple[Columns, Tensor | None]]:
        """Train every group up to checkpoint k, or those that ``pause`` leaves."""
        real = [group.real for group in self.groups]
        parts = [] if pause is None else unpack_parts(pause, real[: pause.group])
        for g in range(len(parts), len(self.groups)):
            group, state = self.groups[g], states[g]
            begin = None
            if pause is not None and pause.offset and g == pause.group:
                begin = unpack_progress(pause, state.slab, state.moments)

            def tick(how_far: Callable[[], SegmentProgress], g: int = g) -> None:
                if pauses is not None and pauses.due():
                    pauses.save(self._pause_point(k, g, how_far(), states, parts))

            parts.append(self._advance(k, group, state, origins[g], begin, tick))
            if g + 1 < len(self.groups) and pauses is not None and pauses.due():
                pauses.save(self._pause_point(k, g + 1, None, states, parts))
        return parts

    def _pause_point(
        self,
        k: int,
        g: int,
        progress: SegmentProgress | None,
        states: list[State],
        parts: list[tuple[Columns, Tensor | None]],
    ) -> PausePoint:
        """Return all that is held while group g works towards checkpoint k."""
        arrays = pack_parts(parts, [group.real for group in self.groups[:g]])
        if progress is not None:
            arrays |= pack_progress(progress, self.groups[g].real)
        arrays["weights"] = self._gather([s.slab for s in states])
        arrays["diverged"] = self._gather([s.diverged for s in states])
        for index, name in enumerate(self.recipe.optimizer.moments):
            arrays[f"moment.{name}"] = self._gather([s.moments[index] for s in states])
        return PausePoint(k, g, 0 if progress is None else progress.offset, arrays)

    def _gather(self, tensors: list[Tensor]) -> NDArray[Any]:
        """Return the real rows of a tensor per group, as one array."""
        kept = [t[: g.real].cpu() for t, g in zip(tensors, self.groups, strict=True)]
        return torch.cat(kept).numpy()

    # -- state ----------------------------------------------------------------------------

    def _initial_slab(self, group: Group) -> Tensor:
        rows = [initial_row_of(self.recipe.network, run) for run in group.runs]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def _states(self, origins: list[Tensor], resume: ResumePoint | None) -> list[State]:
        """Return one state a group: fresh, or as the resume point left it."""
        states = []
        start = 0
        for group, origin in zip(self.groups, origins, strict=True):
            slab = origin.clone()
            shape = (slab.shape[0], self.cohort.layout.trained)
            names = self.recipe.optimizer.moments
            moments = tuple(torch.zeros(shape, device=self.device) for _ in names)
            diverged = torch.full((slab.shape[0],), -1, dtype=torch.int64, device=self.device)
            own = slice(start, start + group.real)
            if resume is not None:
                slab[: group.real] = _tensor(resume.weights[own])
                diverged[: group.real] = _tensor(resume.diverged_step[own])
                for name, moment in zip(names, moments, strict=True):
                    moment[: group.real] = _tensor(resume.arrays[name][own])
            memory = self._memory(slab.shape[0])
            if resume is not None:
                for index, values in enumerate(memory):
                    values[: group.real] = _tensor(resume.arrays[_MEMORY.format(index)][own])
            active = (diverged < 0) & (torch.arange(len(slab), device=self.device) < group.real)
            states.append(State(slab, moments, active, diverged, memory))
            start += group.real
        return states

    def _memory(self, models: int) -> Memory:
        """Return what the dynamic diet of a group remembers at first."""
        if self.recipe.dynamic is None:
            return ()
        return self.recipe.dynamic.memory(models, self.data.train_x.shape[0], self.device)

    # -- one checkpoint -------------------------------------------------------------------

    def _advance(
        self,
        k: int,
        group: Group,
        state: State,
        origin: Tensor,
        begin: SegmentProgress | None,
        tick: Tick,
    ) -> tuple[Columns, Tensor | None]:
        """Train one group up to checkpoint k and measure it."""
        columns = self._segment(k, group, state, begin, tick)
        network, form = self.recipe.network, conv_form("eager")
        data, objective = self.data, self.recipe.objective
        sets = {
            name: Examples(part.x, part.y, None, form, part.weight)
            for name, part in data.sets.items()
        }
        sets["train"] = replace(sets["train"], targets=group.inputs.targets, ids=group.eval_ids)
        for part, examples in sets.items():
            found = evaluate(network, objective, state.slab, examples)
            columns |= {f"{part}_{name}": values for name, values in found.items()}
        trained = self.cohort.layout.trained
        weights = state.slab[:, :trained].double()
        columns["weight_norm"] = torch.linalg.vector_norm(weights, dim=1)
        away = weights - origin[:, :trained].double()
        columns["init_distance"] = torch.linalg.vector_norm(away, dim=1)
        # A model can overflow on the last step before a checkpoint, where no later loss shows it.
        healthy = torch.isfinite(columns["train_loss"] + columns["test_loss"])
        healthy &= torch.isfinite(state.slab).all(1)
        steps = torch.from_numpy(group.steps[:, k]).to(self.device)
        late = state.active & ~healthy
        state.diverged.copy_(torch.where(late, steps, state.diverged))
        state.active.copy_(state.active & ~late)
        probe = None
        if data.probe is not None:
            probe = probe_logits(network, state.slab, data.probe, form)
        return columns, probe

    def _segment(
        self, k: int, group: Group, state: State, begin: SegmentProgress | None, tick: Tick
    ) -> Columns:
        if k == 0:
            nothing = torch.full((len(group.runs),), float("nan"))
            zero = np.zeros(len(group.runs), dtype=np.int64)
            rates = current_rates(group, zero)
            return {"step_lr": rates, "grad_norm": nothing, "update_norm": nothing}
        start, stop = group.steps[:, k - 1], group.steps[:, k]
        if self.backend == "reference":
            return reference_segment(self.recipe, self.data, group, state, start, stop)
        stretch = Stretch(start, stop, begin)
        return stacked_segment(self.recipe, self.take, group, state, stretch, tick=tick)

    def _checkpoint(
        self, k: int, states: list[State], parts: list[tuple[Columns, Tensor | None]]
    ) -> Checkpoint:
        """Gather the groups' real rows; what a diverged model left behind becomes NaN."""
        gather = self._gather
        diverged = gather([s.diverged for s in states])
        gone = diverged >= 0
        weights = gather([s.slab for s in states])
        weights[gone] = np.nan
        metrics = {}
        for name, dtype in ((metric.name, metric.dtype) for metric in self.cohort.metrics):
            metrics[name] = gather([columns[name] for columns, _ in parts]).astype(dtype)
            metrics[name][gone] = np.nan
        resume = {}
        for index, name in enumerate(self.recipe.optimizer.moments):
            resume[name] = gather([s.moments[index] for s in states])
            resume[name][gone] = 0
        for index in range(len(states[0].memory)):
            resume[_MEMORY.format(index)] = gather([s.memory[index] for s in states])
        probes = [probe for _, probe in parts if probe is not None]
        logits = gather(probes) if probes else None
        if logits is not None:
            logits[gone] = np.nan
        return Checkpoint(k, weights, metrics, logits, diverged, resume)


def _check_trainable(cohort: Cohort, task: Task) -> None:
    """Make sure that rows are there to be trained.

    Raises:
        TrainError: they are not.
    """
    others = {origin.kind for origin in cohort.origins[task.start : task.stop]} - {"trained"}
    if others:
        msg = (
            f"task {task.index} of {cohort.id} has rows that are {' and '.join(sorted(others))};"
            " only rows whose origin is 'trained' are trained"
        )
        raise TrainError(msg)


def _check_recorded(cohort: Cohort, known: Collection[str]) -> None:
    """Make sure that all that a plan records is computed.

    Raises:
        TrainError: it is not.
    """
    unknown = [metric.name for metric in cohort.metrics if metric.name not in known]
    if unknown:
        msg = (
            f"cohort {cohort.id} was planned to record {', '.join(unknown)}, which this phasezoo"
            " does not compute; train it with the version that planned it"
        )
        raise TrainError(msg)


def _dynamic(name: str) -> Dynamic | None:
    method: Dynamic | None = None if name == "none" else DYNAMICS[name]
    return method


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _resume_point(pause: PausePoint) -> ResumePoint:
    """Return the states of a pause as those of a checkpoint."""
    moments = {
        name.removeprefix("moment."): values
        for name, values in pause.arrays.items()
        if name.startswith("moment.")
    }
    return ResumePoint(pause.index - 1, pause.arrays["weights"], pause.arrays["diverged"], moments)
