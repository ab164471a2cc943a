"""Scoring: a few models trained stacked, stopping at the score epochs to look at every example."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.architectures import Network
from zoo.architectures.op import Mode
from zoo.architectures.per_example import chunk_size
from zoo.arithmetic import pinned
from zoo.diets.demand import BLOCK, ScoringJob
from zoo.diets.gradients import gradient_norms, last_features
from zoo.diets.keep import kept_examples
from zoo.diets.scores import SCORES, EpochTrail, Outputs
from zoo.diets.scores.margin import label_margin
from zoo.diets.scores.memorization import SHARE
from zoo.objectives import Objective
from zoo.spec import Sweep
from zoo.spec.run import SEED_FIELDS
from zoo.train.evaluate import CHUNK
from zoo.train.plan import Cohort, Plan, Task
from zoo.train.planner import plan
from zoo.train.task_data import planned_data
from zoo.train.trainer import TaskTrainer

__all__ = ["FIRST_SEED", "example_sums", "score_block", "score_models"]

#: Seed of the first scoring model: far from the seeds of the runs, so that no run shares its
#: initialisation or its data order with a model that scored for it.
FIRST_SEED = 2**31

Arrays = dict[str, NDArray[Any]]


@pinned(gradients="off")
def score_models(
    network: Network,
    objective: Objective,
    slab: Tensor,
    x: Tensor,
    targets: Tensor,
    names: Iterable[str],
) -> dict[str, Tensor]:
    """Return scores of every example by G models at one moment, in eval mode.

    Args:
        network: the architecture.
        objective: what the models minimise.
        slab: ``[G, P]``.
        x: ``[N, T, C_in]`` examples in the stacked form.
        targets: labels ``[1 or G, N]``, or values ``[1, N, C]``.
        names: scores of the kinds ``point`` and ``features``; also ``"correct"`` and
            ``"logit_margin"``, of which trajectories are made.

    Returns:
        Name -> ``[G, N]`` float32 (``correct``: bool).
    """
    wanted = tuple(names)
    whole = [n for n in wanted if n != "grand" and not _is_features(n)]
    out: dict[str, Tensor] = {}
    seen = _Seen(network, objective, slab, x, targets)
    if whole:
        out |= _in_chunks(seen, whole, CHUNK)
    if "grand" in wanted:
        size = chunk_size(network, CHUNK)
        # a pass of its own, whose forward half keeps what the norms need
        parts = [
            gradient_norms(network, objective, network.views(slab), xs, ys)
            for xs, ys in seen.chunks(size)
        ]
        out["grand"] = torch.cat(parts, 1)
    for name in filter(_is_features, wanted):
        out[name] = _from_features(seen, name)
    return out


@pinned(gradients="off")
def example_sums(
    network: Network, objective: Objective, slab: Tensor, x: Tensor, targets: Tensor
) -> dict[str, Tensor]:
    """Return what the objective's measures are sums of, of every example: ``[G, N, ...]`` float64.

    Args:
        network, objective, slab, x, targets: as :func:`score_models` has them.
    """
    params, parts = network.views(slab), []
    for xs, ys in _Seen(network, objective, slab, x, targets).chunks(CHUNK):
        z, _ = network.forward(params, xs, Mode(training=False, conv="grouped"))
        parts.append({name: each.double() for name, each in objective.sums(z, ys).items()})
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """Models and what they look at; see :func:`score_models`."""

    network: Network
    objective: Objective
    slab: Tensor
    x: Tensor
    targets: Tensor

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield examples ``[G, size, T, C_in]`` and their targets, without a copy."""
        G, ys = self.slab.shape[0], self.targets
        for start in range(0, self.x.shape[0], size):
            xs = self.x[start : start + size]
            part = ys[:, start : start + size]
            yield xs.expand(G, *xs.shape), part.expand(G, *part.shape[1:])


def _is_features(name: str) -> bool:
    return name in SCORES and SCORES[name].kind == "features"


def _in_chunks(seen: _Seen, names: Sequence[str], size: int) -> dict[str, Tensor]:
    network, params = seen.network, seen.network.views(seen.slab)
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for xs, ys in seen.chunks(size):
        logits, _ = network.forward(params, xs, Mode(training=False, conv="grouped"))
        outputs = Outputs(network, seen.objective, params, xs, logits, ys)
        for name in names:
            parts[name].append(_one(name, outputs))
    return {name: torch.cat(found, 1) for name, found in parts.items()}


def _one(name: str, outputs: Outputs) -> Tensor:
    if name == "correct":
        return outputs.logits.argmax(-1) == outputs.targets
    if name == "logit_margin":
        return label_margin(outputs.logits, outputs.targets)
    found: Tensor = SCORES[name].compute(outputs)
    return found


def _from_features(seen: _Seen, name: str) -> Tensor:
    network, params = seen.network, seen.network.views(seen.slab)
    parts = [last_features(network, params, xs) for xs, _ in seen.chunks(CHUNK)]
    features = torch.cat(parts, 1).cpu().numpy()
    classes = network.outputs
    ys = seen.targets[0].cpu().numpy()
    rows = [
        SCORES[name].compute(f, ys, classes) if np.isfinite(f).all() else np.full(len(ys), np.nan)
        for f in features
    ]
    return torch.from_numpy(np.stack(rows)).float()


@pinned(gradients="off")
def score_block(job: ScoringJob, block: int, *, paths: Mapping[str, str]) -> Arrays:
    """Train one block of scoring models and return what they say.

    A model's scores depend on its own seed and the job's scorer alone: not on how many models,
    scores or epochs are asked for.

    Args:
        job: the job.
        block: 0 to ``job.blocks`` - 1.
        paths: user paths of data sets.

    Returns:
        Name of each score -> ``[R, E, N]`` float32, NaN where it has no meaning or the model
        diverged; of class labels also ``correct`` ``[R, E, N]`` bool; with ``job.subsets`` also
        ``member`` ``[R, N]``.

    Raises:
        ZooError: the scorer cannot be trained on this data.
    """
    planned, cohort, columns = _plan_block(job, block, paths)
    dataset = planned_data(planned, planned.data_key(job.scorer), paths)
    kept = {
        run.run_id: kept_examples(run, dataset, _no_scores)
        for run in cohort.runs
        if run.keep is not None
    }
    task = Task(cohort.id, 0, 0, cohort.models)
    trainer = TaskTrainer(planned, cohort, task, paths=paths, kept=kept)
    names = [n for n in job.scores if SCORES[n].kind in ("point", "features")]
    trails = [n for n in job.scores if SCORES[n].kind == "trajectory"]
    # what trajectories are made of, and what is told of the scoring models
    follow = ["correct", "logit_margin"] if dataset.target == "class" else []
    at = {k: e for e, k in columns.items()}
    found: dict[str, list[Tensor]] = {n: [] for n in (*names, *trails, *follow[:1])}
    walked: dict[str, list[Tensor]] = {n: [] for n in follow}
    targets = trainer.groups[0].inputs.targets[:1]
    with torch.no_grad():
        for checkpoint in trainer.run():
            slab = _padded(torch.from_numpy(checkpoint.weights))
            epoch = at.get(checkpoint.index)
            whole = _is_whole(cohort, checkpoint.index)
            asked = [*(names if epoch is not None else ()), *follow]
            recipe = trainer.recipe
            whole_block = score_models(
                recipe.network, recipe.objective, slab, trainer.data.train_eval, targets, asked
            )
            said = {name: values[: cohort.models] for name, values in whole_block.items()}
            if whole:
                for name in follow:
                    walked[name].append(said[name])
            if epoch is None:
                continue
            for name in (*names, *follow[:1]):
                found[name].append(said[name])
            for name in trails:
                found[name].append(_trail(name, walked, said["logit_margin"]))
    out = {n: torch.stack(parts, 1).numpy() for n, parts in found.items()}
    if job.subsets:
        member = np.zeros((cohort.models, len(dataset.train_y)), dtype=np.bool_)
        for row, run_id in enumerate(cohort.run_ids):
            member[row, kept[run_id]] = True
        out["member"] = member
    return out


def _padded(slab: Tensor) -> Tensor:
    """Return a slab of a whole block, so that a model's bits do not depend on their number."""
    return torch.cat([slab, slab[-1:].expand(BLOCK - len(slab), -1)])


def _no_scores(run: object) -> NDArray[np.float64]:
    raise AssertionError  # the subsets of scoring models are random


def _is_whole(cohort: Cohort, k: int) -> bool:
    """Return whether checkpoint k ends a whole epoch, the first or a later one."""
    epoch = float(cohort.epochs[0, k])
    return epoch > 0 and epoch == round(epoch)


def _trail(name: str, walked: Mapping[str, list[Tensor]], like: Tensor) -> Tensor:
    """Return a score of the epochs so far, NaN where there are too few or a model diverged."""
    if len(walked["correct"]) < SCORES[name].first_epoch:
        return torch.full_like(like, torch.nan)
    margin = torch.stack(walked["logit_margin"], 1)
    values = SCORES[name].compute(EpochTrail(torch.stack(walked["correct"], 1), margin))
    healthy = torch.isfinite(margin).all(1)
    return torch.where(healthy, values, torch.nan)


def _plan_block(
    job: ScoringJob, block: int, paths: Mapping[str, str]
) -> tuple[Plan, Cohort, dict[float, int]]:
    """Return the plan of a block's models, their one cohort, and the checkpoint of each epoch."""
    first = block * BLOCK
    seeds = [FIRST_SEED + s for s in range(first, min(first + BLOCK, job.seeds))]
    values = job.scorer.to_dict()
    base = {n: v for n, v in values.items() if v is not None and n not in (*SEED_FIELDS, "seed")}
    del base["epochs"]
    base["noise_seed"] = job.scorer.noise_seed
    if job.subsets:
        base |= {"score": "random", "keep": SHARE, "budget": "steps"}
    epochs = set(job.epochs)
    if any(SCORES[n].kind == "trajectory" for n in job.scores):
        epochs |= {float(e) for e in range(1, int(job.last_epoch) + 1)}
    sweep = Sweep.from_dict(
        {
            "name": "scoring",
            "base": base,
            "grid": {"seed": seeds},
            "record": {"epochs": sorted(epochs), "probe_size": 0},
            "paths": dict(paths),
        },
        source="scoring models",
    )
    planned = plan(sweep, paths=paths)
    (cohort,) = planned.cohorts
    per_epoch = cohort.runs[0].steps_per_epoch
    steps = cohort.steps[0].tolist()
    columns = {e: steps.index(round(e * per_epoch)) for e in job.epochs}
    stop = max(columns.values()) + 1
    cohort = dataclasses.replace(
        cohort,
        steps=cohort.steps[:, :stop],
        epochs=cohort.epochs[:, :stop],
        group_rows=BLOCK,
        task_rows=BLOCK,
    )
    return planned, cohort, columns
