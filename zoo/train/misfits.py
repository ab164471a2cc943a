"""What keeps a run from being trained on its data set: found when planning, said in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from zoo.architectures import ARCHITECTURES, NORMS, Network
from zoo.data import Dataset
from zoo.data.augment import AUGMENTATIONS
from zoo.errors import Problem, SpecError
from zoo.objectives import OBJECTIVES, TARGETS, Objective, objective_for
from zoo.registry import vocabulary
from zoo.spec.run import RunSpec
from zoo.train.samplers import SAMPLERS

__all__ = ["check_scores", "misfits"]

#: What to do with targets that no objective of the user's choice takes.
_REMEDIES = {
    ("class", "vector"): "if they are labels, give integers: train_y.astype(int)",
    ("class", "binary"): "if they are one-hot labels: train_y.argmax(1)",
    ("binary", "vector"): "if they are zeros and ones: train_y.astype('uint8')",
}


def misfits(run: RunSpec, dataset: Dataset, backend: str) -> list[Problem]:
    """Return everything about a run that its data set or the backend does not allow."""
    found: list[Problem] = []
    if run.precision != "float32" and backend == "reference":
        message = "the backend 'reference' computes in float32"
        found.append(Problem("precision", run.precision, message, "float32", "or another backend"))
    found += _of_inputs(run, dataset)
    misfit = NORMS[run.norm].misfit(run)
    return [*found, *(() if misfit is None else (misfit,)), *_of_targets(run, dataset)]


def _of_inputs(run: RunSpec, dataset: Dataset) -> Iterator[Problem]:
    shape = dataset.shape
    augmented = run.augmentation != "none"
    if shape.tokens is not None:
        if augmented:
            message = f"changes numbers, and the examples of {dataset.name} are tokens"
            yield Problem("augmentation", run.augmentation, message, "none")
        if not ARCHITECTURES[run.architecture].tokens:
            message = f"reads numbers, and the examples of {dataset.name} are tokens"
            allowed = ", ".join(n for n in ARCHITECTURES if ARCHITECTURES[n].tokens)
            yield Problem(
                "architecture", run.architecture, message, allowed or "a module of your own"
            )
    else:
        reason = AUGMENTATIONS[run.augmentation].check(shape.example)
        if reason is not None:
            yield Problem("augmentation", run.augmentation, reason)
    if not SAMPLERS[run.sampler].fresh:
        return
    if dataset.domain is None:
        message = f"draws from a domain, and {dataset.name} has none"
        allowed = ", ".join(n for n in SAMPLERS if not SAMPLERS[n].fresh)
        fix = "give the data set the arrays low and high"
        yield Problem("sampler", run.sampler, message, allowed, fix)
    elif shape.target != "none" and dataset.domain.function is None:
        message = f"draws new examples, and nothing gives their targets on {dataset.name}"
        fix = "register the data set by a plug-in with function="
        yield Problem("sampler", run.sampler, message, fix=fix)
    chosen = {
        "score": run.score != "none", "dynamic": run.dynamic != "none",
        "label_noise": run.label_noise > 0, "augmentation": augmented,
        "train_size": run.train_size not in (None, len(dataset.train_x)),
    }  # fmt: skip
    for field in (name for name, given in chosen.items() if given):
        message = "is about examples of a training set, and the sampler 'fresh' uses none"
        yield Problem(field, getattr(run, field), message)


def _of_targets(run: RunSpec, dataset: Dataset) -> Iterator[Problem]:
    name, kind = run.objective, dataset.target
    takes = OBJECTIVES[name].takes
    if kind not in takes:
        wanted = " or ".join(TARGETS[k] for k in takes)
        message = f"takes {wanted}, and the targets of {dataset.name} are {TARGETS[kind]}"
        allowed = ", ".join(n for n in OBJECTIVES if kind in OBJECTIVES[n].takes)
        remedies = [_REMEDIES[k, kind] for k in takes if (k, kind) in _REMEDIES]
        yield Problem("objective", name, message, allowed, remedies[0] if remedies else "")
        return
    if dataset.shape.masked and kind != "class" and not OBJECTIVES[name].elementwise:
        message = f"mixes outputs, and some targets of {dataset.name} are missing"
        fitting = [n for n in OBJECTIVES if OBJECTIVES[n].elementwise]
        allowed = ", ".join(n for n in fitting if kind in OBJECTIVES[n].takes)
        yield Problem("objective", name, message, allowed)
    objective = objective_for(name, dataset.shape)
    if run.label_noise > 0:
        yield from _lack("label_noise", run.label_noise, objective, "labels", "0")
    if run.balance == "class":
        yield from _lack("balance", run.balance, objective, "labels", "none")
    for field in ("score", "dynamic"):
        registry: Any = vocabulary(field)
        needs = getattr(registry[getattr(run, field)], "needs", "")
        fitting = [n for n in registry if not objective.lack(getattr(registry[n], "needs", ""))]
        yield from _lack(field, getattr(run, field), objective, needs, ", ".join(fitting))


def _lack(
    field: str, value: object, objective: Objective, needs: str, allowed: str
) -> Iterator[Problem]:
    lack = objective.lack(needs)
    if lack:
        yield Problem(field, value, lack, allowed)


def check_scores(runs: Sequence[RunSpec], network: Network) -> None:
    """Refuse scores that read a last layer where the network has none that is known."""
    if network.head.reads_features:
        return
    scores: Any = vocabulary("score")
    for name in {run.score for run in runs if run.score != "none"}:
        if getattr(scores[name], "last_layer", False):
            message = f"reads what enters the last layer, which is not known of {network.family!r}"
            allowed = "a score of outputs or of whole gradients: el2n, grand, loss, margin"
            raise SpecError([Problem("score", name, message, allowed)])
