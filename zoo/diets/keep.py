"""Which examples a run keeps: a pure function of its spec, its data set and the scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data import Dataset, noisy_labels, prepare, training_subset
from zoo.data.places import score_path
from zoo.data.score_file import read_scores, values_fingerprint
from zoo.diets.scores import FROM_MODELS, SCORES
from zoo.diets.selection import SELECTIONS, Choosing, select
from zoo.errors import DataError
from zoo.spec.run import RunSpec

__all__ = ["FEW", "kept_examples", "labels_of", "mean_score", "planned_scores", "rule_of"]

#: Examples of a class below which a diet is warned about.
FEW = 5

Index = NDArray[np.int64]


def rule_of(run: RunSpec) -> Choosing:
    """Return how the static diet of a run chooses."""
    select = run.select or "hardest"
    return Choosing(
        keep=run.keep or 1.0,
        select=select,
        offset=run.offset or 0.0,
        trim=run.trim or 0.0,
        balance=run.balance or "none",
        seed=int(run.diet_seed or 0),
        options={name: getattr(run, name) for name in SELECTIONS[select].fields},
    )


def labels_of(run: RunSpec, dataset: Dataset) -> Index:
    """Return the labels ``[N]`` that a run is trained on, noise included; zeros without classes."""
    if dataset.target != "class":
        return np.zeros(len(dataset.train_y), dtype=np.int64)
    seed = int(run.noise_seed or 0)
    return noisy_labels(dataset.train_y, dataset.classes, noise=run.label_noise, seed=seed)


def mean_score(values: NDArray[Any], seeds: int) -> NDArray[np.float64]:
    """Return the mean over the first ``seeds`` of ``[S, N]``; models that diverged do not count.

    Raises:
        DataError: every scoring model diverged.
    """
    part = np.asarray(values[:seeds], dtype=np.float64)
    there = np.isfinite(part).all(1)
    if not there.any():
        msg = f"all {len(part)} scoring models diverged; choose a scorer that trains"
        raise DataError(msg)
    mean: NDArray[np.float64] = part[there].mean(0)
    return mean


def planned_scores(run: RunSpec, count: int, paths: Mapping[str, str]) -> NDArray[np.float64]:
    """Return the scores ``[N]`` of a run's file, if they are those that the run was planned with.

    Raises:
        MissingDataError: the file is not there.
        DataError: it cannot be used, or has other content.
    """
    values = read_scores(score_path(run.score, paths), count, name=run.score)
    found = values_fingerprint(values)
    if run.score_sha256 not in (None, found):
        msg = (
            f"score {run.score!r} has changed since the zoo was planned: its sha256 is {found}, the"
            f" plan says {run.score_sha256}; put the original back, or give its path by"
            f" --data '{run.score}=PATH' (paths={{{run.score!r}: ...}} in Python)"
        )
        raise DataError(msg)
    return values


def kept_examples(
    run: RunSpec,
    dataset: Dataset,
    scores: Callable[[RunSpec], NDArray[np.float64]],
    *,
    paths: Mapping[str, str] | None = None,
) -> Index:
    """Return the sorted ids of the examples that a run trains on.

    Args:
        run: a resolved run.
        dataset: its data set, N training examples.
        scores: returns ``[N]`` for a run whose score comes from models.
        paths: score file -> path.

    Raises:
        DataError: scores that do not fit, or a score file with other content than was planned.
        MissingDataError: a score file that is not there.
    """
    count = len(dataset.train_y)
    size, seed = int(run.train_size or count), int(run.noise_seed or 0)
    pool = training_subset(count, size=size, seed=seed)
    if run.keep is None:
        return pool
    entry = SCORES[run.score]
    if entry.kind in FROM_MODELS:
        values = scores(run)
    elif entry.kind == "file":
        values = planned_scores(run, count, paths or {})
    elif entry.kind == "data":
        x = prepare(dataset, run.normalization).train_x
        own = {name: getattr(run, name) for name in entry.options}
        values = entry.compute(np.asarray(x).reshape(count, -1), dataset.train_y, **own)
    else:
        values = entry.compute(count)
    return select(values[pool], labels_of(run, dataset)[pool], rule_of(run), ids=pool)
