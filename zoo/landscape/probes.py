"""The fixed examples that metrics are measured on: training, test and mixup probe.

Which examples they are depends on the data set and on the sizes alone, so that all models of a zoo
are measured on the same ones: the choice of the sample moves λ_max and trace more than any
estimator's error does. A model that was trained on a part of the training set gets the probe from
that part, and labels are those that it was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data import noisy_labels, training_subset
from zoo.landscape.random import KINDS
from zoo.landscape.stacked import Probe
from zoo.seeds import Stream, permutation, uniform
from zoo.spec.run import RunSpec
from zoo.train.task_data import TaskData

__all__ = [
    "PROBE_SIZES",
    "TrainingSet",
    "held_out_probe",
    "mixup_probe",
    "probe_facts",
    "published_set",
    "strata",
    "stratified_ids",
    "train_probe",
    "training_set",
]

#: Examples of each probe; fewer where the set is smaller.
PROBE_SIZES: Mapping[str, int] = {"train": 1024, "test": 1024, "mixup": 1024}
#: Parameter of the Beta distribution of the mixup probe.
_MIXUP = 16
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """What one model was trained on.

    Args:
        ids: ``[n]`` rows of the training set.
        labels: targets of the whole set as the model met them, ``[N, ...]``.
        own: whether it is other than the published set.
    """

    ids: NDArray[np.int64]
    labels: NDArray[Any]
    own: bool

    def same_as(self, other: TrainingSet) -> bool:
        """Return whether two models were trained on the same examples with the same labels."""
        return self is other or (
            np.array_equal(self.ids, other.ids) and np.array_equal(self.labels, other.labels)
        )


def _draw(kind: str, number: int, n: int) -> NDArray[np.float64]:
    return uniform(_SEED, Stream.LANDSCAPE, (KINDS[kind] << 32) + number, n)


def stratified_ids(labels: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return ``size`` positions of ``labels [n]``, classes in proportion, in random order.

    Every n/size-th of the examples sorted by class, and by chance within a class. All of them, in
    random order, where there are no more than ``size``.
    """
    n = len(labels)
    order = permutation(_SEED, Stream.LANDSCAPE, KINDS["probe"] << 32, n)
    if n <= size:
        return order
    by_class = order[np.argsort(labels[order], kind="stable")]
    chosen = by_class[((np.arange(size) + 0.5) * n / size).astype(np.int64)]
    return np.asarray(
        chosen[permutation(_SEED, Stream.LANDSCAPE, (KINDS["probe"] << 32) + 1, size)]
    )


def strata(targets: NDArray[Any]) -> NDArray[np.int64]:
    """Return what a probe is balanced by, ``[N]``: labels; nothing where targets are values."""
    return targets if targets.ndim == 1 else np.zeros(len(targets), dtype=np.int64)


def _weights(data: TaskData, split: str, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what examples ``ids`` count in the loss of a split."""
    weight = data.prepared.splits[split].weight
    return np.ones(ids.shape) if weight is None else weight[ids].astype(np.float64)


def published_set(data: TaskData) -> TrainingSet:
    """Return the whole training set, with its own targets."""
    targets = data.prepared.train_y
    return TrainingSet(np.arange(len(targets)), targets, own=False)


def training_set(
    run: RunSpec, data: TaskData, kept: NDArray[np.int64] | None = None
) -> TrainingSet:
    """Return the part of the training set, and the labels, that a run was trained on.

    Args:
        run: its resolved spec.
        data: the data set.
        kept: ids of the examples that its diet keeps; None where it is on none.
    """
    published = data.prepared.train_y
    n, seed = len(published), int(run.noise_seed or 0)
    ids = np.arange(n)
    if kept is not None:
        ids = kept
    elif run.train_size is not None and run.train_size < n:
        ids = training_subset(n, size=run.train_size, seed=seed)
    labels = published
    if run.label_noise > 0:
        labels = noisy_labels(published, data.prepared.classes, noise=run.label_noise, seed=seed)
    return TrainingSet(ids, labels, own=len(ids) < n or run.label_noise > 0)


def train_probe(
    sets: Sequence[TrainingSet], data: TaskData, size: int = PROBE_SIZES["train"]
) -> Probe:
    """Return the training probe of G models, one for all where all had the same set."""
    published = strata(data.prepared.train_y)
    if all(s.same_as(sets[0]) for s in sets):
        sets = sets[:1]
    chosen = [s.ids[stratified_ids(published[s.ids], size)] for s in sets]
    width = max(len(ids) for ids in chosen)
    padded = np.stack([np.pad(ids, (0, width - len(ids)), mode="edge") for ids in chosen])
    there = np.stack([np.arange(width) < len(ids) for ids in chosen])
    counts = there * _weights(data, "train", padded)
    labels = np.stack([s.labels[ids] for s, ids in zip(sets, padded, strict=True)])
    return _probe(data, data.train_eval[torch.from_numpy(padded)], labels, counts)


def _probe(data: TaskData, x: Tensor, y: NDArray[Any], counts: NDArray[np.float64]) -> Probe:
    weight = torch.from_numpy((counts / counts.sum(1, keepdims=True)).astype(np.float32))
    return Probe(x, torch.from_numpy(np.array(y)), weight, data.objective)


def held_out_probe(data: TaskData, size: int = PROBE_SIZES["test"]) -> Probe:
    """Return the test probe, the same for all models."""
    targets = data.prepared.test_y
    ids = stratified_ids(strata(targets), size)
    counts = _weights(data, "test", ids[None])
    return _probe(data, data.test[torch.from_numpy(ids)][None], targets[ids][None], counts)


def mixup_probe(data: TaskData, size: int = PROBE_SIZES["mixup"]) -> Tensor:
    """Return mixed training examples ``[1, n, T, C_in]``: λx + (1 − λ)x', λ ~ Beta(16, 16) each.

    A Beta(16, 16) variable is the middle one of 31 uniform numbers. From the published training
    set, whatever a model was trained on, so that any two models meet the same inputs. Tokens are
    symbols, which do not mix: they are as they are.
    """
    ids = stratified_ids(strata(data.prepared.train_y), size)
    n = len(ids)
    draws = _draw("mixup", 0, n * (2 * _MIXUP - 1)).reshape(n, -1)
    lam = torch.from_numpy(np.median(draws, axis=1).astype(np.float32))
    partner = ids[permutation(_SEED, Stream.LANDSCAPE, (KINDS["mixup"] << 32) + 1, n)]
    x = data.train_eval
    if not x.is_floating_point():
        return x[torch.from_numpy(ids)][None]
    lam = lam.view(-1, *[1] * (x.ndim - 1))
    return torch.lerp(x[torch.from_numpy(partner)], x[torch.from_numpy(ids)], lam)[None]


def probe_facts(data: TaskData, sizes: Mapping[str, int] = PROBE_SIZES) -> dict[str, Any]:
    """Return sizes and sha256 of the probes of models trained on the published set."""
    train = train_probe([published_set(data)], data, sizes["train"])
    test = held_out_probe(data, sizes["test"])
    parts = {"train": (train.x, train.y), "test": (test.x, test.y)}
    mixed = {"mixup": (mixup_probe(data, sizes["mixup"]),)}
    return {
        name: {"examples": tensors[0].shape[1], "sha256": _hash(tensors)}
        for name, tensors in {**parts, **mixed}.items()
    }


def _hash(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
