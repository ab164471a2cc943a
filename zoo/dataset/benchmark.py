"""The benchmark: what can be read from weights, beside what can be known without them.

Predicting the accuracy of a checkpoint from its weights says little as long as nobody shows how far
its hyper-parameters or its epoch go. So each task is solved from layer statistics, raw weights and
the graph of units, and from these controls, on one grouped cross-validation: the runs of a group
are never on two sides. Scores are over all held-out predictions together, intervals from resampled
configurations: all seeds of one setting of the hyper-parameters, with all their rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.baselines import (
    NeuralTraining,
    Target,
    fit_boosting,
    fit_neural,
    fit_ridge,
    readable_models,
)
from zoo.dataset.features import (
    Features,
    epoch_features,
    hyperparameter_features,
    layer_statistics,
    raw_weights,
)
from zoo.dataset.scores import Estimate, score_predictions
from zoo.dataset.splits import group_keys, group_names
from zoo.dataset.view import View
from zoo.errors import QueryError
from zoo.seeds import Stream, permutation
from zoo.spec.run import SEED_FIELDS

__all__ = ["CONTROLS", "INPUTS", "MODELS", "BenchRow", "benchmark", "folds_of", "make_targets"]

#: What predictions are made from; the controls know nothing of the weights.
CONTROLS = ("epoch", "hyper-parameters", "hyper-parameters + epoch")
INPUTS = (*CONTROLS, "statistics", "raw weights", "statistics + controls")
MODELS = ("ridge", "boosting", "neural graph")

#: Numbers whose largest is so many times the smallest are predicted as logarithms.
_WIDE = 8
#: Fewer configurations than this say little about their own spread.
_FEW_CLUSTERS = 20
#: Folds of each kind where two kinds of groups are held out at once.
_MOST_CROSSED = 3


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One line of the result.

    Args:
        task, inputs, model: what was predicted, from what, by what.
        metric: ``"r2"`` or ``"accuracy"``.
        score: of that metric.
        tau: Kendall's τ of numbers, None for classes.
        rows, runs: held-out rows and runs, over all folds.
        clusters: configurations (or runs, where those are few) that intervals resample.
        chance: share of the commonest class; NaN for numbers, whose mean has R² = 0.
    """

    task: str
    inputs: str
    model: str
    metric: str
    score: Estimate
    tau: Estimate | None
    rows: int
    runs: int
    clusters: int
    chance: float

    @property
    def control(self) -> bool:
        """Whether nothing of the weights went in."""
        return self.inputs in CONTROLS

    def to_json(self) -> dict[str, Any]:
        """Return a flat JSON-ready mapping."""
        tau = self.tau
        return {
            "task": self.task,
            "inputs": self.inputs,
            "model": self.model,
            "control": self.control,
            "metric": self.metric,
            "value": self.score.value,
            "low": self.score.low,
            "high": self.score.high,
            "tau": None if tau is None else tau.value,
            "tau_low": None if tau is None else tau.low,
            "tau_high": None if tau is None else tau.high,
            "rows": self.rows,
            "runs": self.runs,
            "clusters": self.clusters,
            "chance": None if self.chance != self.chance else self.chance,
        }


def make_targets(view: View, names: Sequence[str] | None = None) -> list[Target]:
    """Return the tasks of a view: accuracy or R², generalisation gap, what varies, phase.

    ``gap`` is the training accuracy (R²) less that on the test set. Text and truth values are
    classes; positive numbers over a wide range are taken as logarithms (base 2).

    Args:
        view: the rows.
        names: columns, or ``gap``; None = all that the zoo has.

    Raises:
        QueryError: an unknown column, or one that does not vary or has missing values.
    """
    wanted = list(names) if names is not None else _default_tasks(view)
    found = []
    for name in wanted:
        if name == "gap":
            test = view.zoo.headline()
            train = test.replace("test_", "train_")
            values = (view[train] - view[test]).astype(np.float64)
            target = Target(name, values, doc=f"{train} - {test}")
        else:
            target = _target(view, name)
        known = np.unique(target.values)
        if len(known) < 2 or (target.values != target.values).any():
            msg = (
                f"task {name!r}: {len(known)} distinct values, some missing"
                if len(known) > 1
                else f"task {name!r} does not vary over the rows"
            )
            msg += "; choose rows with a query, or other tasks"
            raise QueryError(msg)
        found.append(target)
    return found


def _default_tasks(view: View) -> list[str]:
    best = view.zoo.headline()
    names = [best, "gap"]
    names += [n for n in view.zoo.varying if n != "seed" and n not in SEED_FIELDS]
    names += [n for n in ("phase", "diet") if n in view.columns]
    chosen = []
    for name in dict.fromkeys(names):
        values = view[best if name == "gap" else name]
        missing = (values == "") if values.dtype.kind == "U" else (values != values)
        if len(np.unique(values)) > 1 and not missing.any():
            chosen.append(name)
    return chosen


def _target(view: View, name: str) -> Target:
    values = view[name]
    spec = (name,) if name in view.zoo.varying else ()
    if values.dtype.kind == "U" and (values == "").any():
        msg = (
            f"task {name!r}: {int((values == '').sum())} of {len(values)} rows have none; leave"
            f" them out with the query \"{name} != ''\""
        )
        raise QueryError(msg)
    if values.dtype.kind in "Ub":
        labels, codes = np.unique(values, return_inverse=True)
        return Target(name, codes.astype(np.int64), tuple(map(str, labels)), spec, name)
    numbers = values.astype(np.float64)
    if np.nanmin(numbers) > 0 and np.nanmax(numbers) / np.nanmin(numbers) >= _WIDE:
        return Target(name, np.log2(numbers), (), spec, f"log2 {name}")
    return Target(name, numbers, (), spec, name)


def folds_of(view: View, by: str | Sequence[str], folds: int) -> NDArray[np.int64]:
    """Return the fold of each row, ``[n]``; a group's rows share one, groups dealt by hash.

    Raises:
        QueryError: fewer than two groups, or fewer than two folds.
    """
    codes = group_keys(view, by)
    first = np.unique(codes, return_index=True)[1]
    if len(first) < 2 or folds < 2:
        msg = f"{len(first)} groups by {by} into {folds} folds: both must be at least 2"
        raise QueryError(msg)
    names = group_names(view.take(first), by)
    rank = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names])
    fold = np.empty(len(first), dtype=np.int64)
    fold[rank] = np.arange(len(first)) % min(folds, len(first))
    return fold[codes]


_Parts = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _parts(
    view: View, by: str | Sequence[str], apart: str | Sequence[str] | None, folds: int
) -> _Parts:
    """Return (training rows, test rows) of each fold; every row is tested once."""
    if apart is None:
        fold = folds_of(view, by, folds)
        return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in np.unique(fold)]
    count = min(folds, _MOST_CROSSED)
    a, b = folds_of(view, by, count), folds_of(view, apart, count)
    pairs = [
        (np.flatnonzero((a != i) & (b != j)), np.flatnonzero((a == i) & (b == j)))
        for i in np.unique(a)
        for j in np.unique(b)
    ]
    return [(train, test) for train, test in pairs if len(train) and len(test)]


def benchmark(
    view: View,
    *,
    tasks: Sequence[str] | None = None,
    inputs: Sequence[str] = INPUTS,
    models: Sequence[str] = MODELS,
    by: str | Sequence[str] = "seed",
    apart: str | Sequence[str] | None = None,
    folds: int = 5,
    limit: int = 3000,
    epochs: int = 15,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> list[BenchRow]:
    """Return how well each task is solved from each input by each model.

    Args:
        view: the rows.
        tasks: see :func:`make_targets`.
        inputs: of :data:`INPUTS`, for ridge and boosting.
        models: of :data:`MODELS`.
        by: what is held out together; ``"seed"`` lets no initialisation be on two sides.
        apart: what is held out beside it: ``by="cell", apart="seed"`` tests on new cells from new
            initialisations, with at most three folds of each in all nine combinations.
        folds: of the cross-validation; at most the number of groups.
        limit: rows used; more are drawn at random.
        epochs: of the neural network.
        seed: of drawings, bootstrap and network.
        progress: called with the share of the work that is done.

    Raises:
        QueryError: unknown inputs or models, or tasks that cannot be set.
    """
    unknown = [i for i in inputs if i not in INPUTS] + [m for m in models if m not in MODELS]
    if unknown:
        msg = f"unknown {unknown}; inputs: {', '.join(INPUTS)}; models: {', '.join(MODELS)}"
        raise QueryError(msg)
    models = readable_models(view, models, MODELS)
    if len(view) > limit:
        view = view.take(np.sort(permutation(seed, Stream.SAMPLE, 4, len(view))[:limit]))
    targets = make_targets(view, tasks)
    parts = _parts(view, by, apart, folds)
    groups = group_keys(view, by)
    steps = _Steps(len(targets), inputs, models, len(parts), epochs, progress)
    found: list[BenchRow] = []
    for name in inputs:
        tables = _tables(view, name, targets)
        for model in models:
            if model != "neural graph":
                predicted = _plain(model, tables, targets, parts, groups, steps.plain)
                found += _rows(targets, name, model, predicted, view, seed)
    if "neural graph" in models:
        predicted = [np.empty_like(t.values) for t in targets]
        training = NeuralTraining(epochs=epochs, seed=seed)
        for train, test in parts:
            scores = fit_neural(view, targets, train, test, training=training, tick=steps.epoch)
            for target, out, score in zip(targets, predicted, scores, strict=True):
                out[test] = target.decoded(score, train)
        found += _rows(targets, "weights", "neural graph", predicted, view, seed)
    return sorted(found, key=lambda row: [t.name for t in targets].index(row.task))


class _Steps:
    """Counts work in units of one boosted target of one fold; a network's epoch costs some."""

    _EPOCH = 1.5

    def __init__(
        self,
        targets: int,
        inputs: Sequence[str],
        models: Sequence[str],
        folds: int,
        epochs: int,
        progress: Callable[[float], None],
    ) -> None:
        plain = sum(model != "neural graph" for model in models)
        self._total: float = targets * len(inputs) * plain * folds
        self._total += folds * epochs * self._EPOCH if "neural graph" in models else 0
        self._done = 0.0
        self._progress = progress

    def plain(self, targets: int) -> None:
        """Count targets that ridge or boosting has done in a fold."""
        self._advance(targets)

    def epoch(self) -> None:
        """Count an epoch of the network."""
        self._advance(self._EPOCH)

    def _advance(self, amount: float) -> None:
        self._done += amount
        self._progress(min(1.0, self._done / self._total))


def _tables(view: View, name: str, targets: Sequence[Target]) -> list[Features]:
    """Return the features of each target; a control leaves out what the target is."""
    shared: Mapping[str, Callable[[], Features]] = {
        "epoch": lambda: epoch_features(view),
        "statistics": lambda: layer_statistics(view),
        "raw weights": lambda: raw_weights(view),
    }
    if name in shared:
        return [shared[name]()] * len(targets)
    controls = [hyperparameter_features(view, t.without) for t in targets]
    if name == "hyper-parameters":
        return controls
    epoch = epoch_features(view)
    controls = [table.beside(epoch) for table in controls]
    if name == "statistics + controls":
        statistics = layer_statistics(view)
        controls = [statistics.beside(table) for table in controls]
    return controls


def _plain(
    model: str,
    tables: Sequence[Features],
    targets: Sequence[Target],
    parts: _Parts,
    groups: NDArray[np.int64],
    done: Callable[[int], None],
) -> list[NDArray[Any]]:
    """Return each target's held-out predictions ``[n]`` over all folds."""
    predicted: list[NDArray[Any]] = [np.empty_like(t.values) for t in targets]
    # targets with one table are fitted together: ridge decomposes it once
    shared: dict[int, list[int]] = {}
    for number, table in enumerate(tables):
        shared.setdefault(id(table), []).append(number)
    for numbers in shared.values():
        x = tables[numbers[0]].values
        some = [targets[n] for n in numbers]
        for train, test in parts:
            if model == "boosting":
                answers = fit_boosting(x, some, train, test)
            else:
                y = np.concatenate([t.encoded(train) for t in some], 1)
                scores = fit_ridge(x, y, train, test, groups)
                cuts = np.cumsum([t.outputs for t in some])[:-1]
                split = np.split(scores, cuts, axis=1)
                answers = [t.decoded(s, train) for t, s in zip(some, split, strict=True)]
            for number, answer in zip(numbers, answers, strict=True):
                predicted[number][test] = answer
            done(len(some))
    return predicted


def _clusters(view: View) -> NDArray[np.int64]:
    """Return the configuration of each row, or its run where there are few configurations."""
    names = [n for n in view.zoo.varying if n != "seed" and n not in SEED_FIELDS]
    configurations = group_keys(view, names)
    few = len(np.unique(configurations)) < _FEW_CLUSTERS
    return group_keys(view, "run") if few else configurations


def _rows(
    targets: Sequence[Target],
    inputs: str,
    model: str,
    predicted: Sequence[NDArray[Any]],
    view: View,
    seed: int,
) -> list[BenchRow]:
    found = []
    clusters, runs = _clusters(view), len(np.unique(view["run_id"]))
    for target, values in zip(targets, predicted, strict=True):
        scores = score_predictions(
            target.values, values, clusters, classes=target.is_class, seed=seed
        )
        chance = float("nan")
        if target.is_class:
            chance = float(np.bincount(target.values).max() / len(target.values))
        metric = "accuracy" if target.is_class else "r2"
        row = BenchRow(
            target.name, inputs, model, metric, scores[metric], scores.get("tau"),
            len(values), runs, len(np.unique(clusters)), chance,
        )  # fmt: skip
        found.append(row)
    return found
