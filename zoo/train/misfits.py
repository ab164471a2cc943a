"""What keeps a run from being trained on its data set: found when planning, said in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from zoo.architectures import NORMS, Network
from zoo.data import Dataset
from zoo.data.augment import AUGMENTATIONS
from zoo.errors import Problem, SpecError
from zoo.objectives import OBJECTIVES, TARGETS, Objective
from zoo.registry import vocabulary
from zoo.spec.run import RunSpec

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
    reason = AUGMENTATIONS[run.augmentation].check(dataset.example_shape)
    if reason is not None:
        found.append(Problem("augmentation", run.augmentation, reason))
    misfit = NORMS[run.norm].misfit(run)
    return [*found, *(() if misfit is None else (misfit,)), *_of_targets(run, dataset)]


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
    objective = OBJECTIVES[name](kind)
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
