"""The baselines: ridge, gradient boosting, and the small equivariant network.

Each is fitted on training rows alone and answers every task: numbers are predicted in units of
their training deviation, classes by one score per class. Nothing is tuned on the rows it is tested
on, and boosting has no early stopping that could.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.arithmetic import pinned
from zoo.dataset.batches import Shuffle, plan_batches
from zoo.dataset.equivariant import NeuralGraph
from zoo.dataset.layers import layer_tensors
from zoo.dataset.structure import by_structure
from zoo.dataset.view import View
from zoo.errors import QueryError
from zoo.objectives import OBJECTIVES, Objective

__all__ = ["NeuralTraining", "Target", "fit_boosting", "fit_neural", "fit_ridge", "readable_models"]

_LOG = logging.getLogger("zoo.dataset")

_ALPHAS = tuple(10.0**e for e in range(-3, 7))
#: More columns than this are brought to so many principal components before boosting.
_MOST_COLUMNS = 1024
_COMPONENTS = 64
_INNER_FOLDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What is to be predicted.

    Args:
        name: of the task.
        values: ``[n]`` float64, or int64 codes of classes.
        labels: of the classes; empty for numbers.
        without: columns that must not be features, as they are the target or decide it.
        doc: what the values are.
    """

    name: str
    values: NDArray[Any]
    labels: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    doc: str = ""

    @property
    def is_class(self) -> bool:
        """Whether classes are to be predicted."""
        return bool(self.labels)

    @property
    def outputs(self) -> int:
        """Scores of a prediction."""
        return len(self.labels) if self.labels else 1

    def encoded(self, train: NDArray[np.int64]) -> NDArray[Any]:
        """Return ``[n, outputs]``: standardised on the training rows, or one-hot."""
        if self.is_class:
            return np.eye(len(self.labels))[self.values.astype(np.int64)]
        centre, spread = _moments(self.values[train])
        return ((self.values - centre) / spread)[:, None]

    def decoded(self, scores: NDArray[np.float64], train: NDArray[np.int64]) -> NDArray[Any]:
        """Return predictions ``[m]`` in the target's own unit from scores ``[m, outputs]``."""
        if self.is_class:
            return np.asarray(scores.argmax(1))
        centre, spread = _moments(self.values[train])
        return scores[:, 0] * spread + centre


def _moments(values: NDArray[Any]) -> tuple[float, float]:
    spread = float(values.std())
    return float(values.mean()), spread if spread > 0 else 1.0


@pinned()
def fit_ridge(
    x: NDArray[np.float32],
    y: NDArray[np.float64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    groups: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return predictions ``[m, T]`` of scikit-learn's ridge.

    Columns are standardised on the training rows; missing values become the mean, with a column
    that says so. The strength is chosen for each target by cross-validation over the groups of the
    training rows: left-out rows of a run whose other rows are trained on would choose too little.

    Args:
        x: ``[n, D]``, NaN for missing.
        y: ``[n, T]``.
        train, test: positions of rows.
        groups: ``[n]``, what may not be on two sides.
    """
    from sklearn.linear_model import Ridge

    table = _standardized(x, train)
    if not table.shape[1]:  # nothing varies, so nothing can be said
        return np.repeat(y[train].mean(0)[None], len(test), 0)
    gram = table @ table[train].T if table.shape[1] > len(train) else None
    errors = np.zeros((len(_ALPHAS), y.shape[1]))
    fold = np.unique(groups[train], return_inverse=True)[1] % _INNER_FOLDS
    for number in np.unique(fold):
        inner, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        if not len(inner):
            continue
        if gram is not None:
            kernel = gram[train]
            path = _kernel_path(kernel[np.ix_(inner, inner)], kernel[np.ix_(held, inner)])
        else:
            path = _primal_path(table[train[inner]], table[train[held]])
        for place, predicted in enumerate(path(y[train[inner]])):
            errors[place] += np.square(predicted - y[train[held]]).sum(0)
    alphas = np.array(_ALPHAS)[errors.argmin(0)]
    if gram is None:
        model = Ridge(alpha=alphas).fit(table[train], y[train])
        return np.asarray(model.predict(table[test]), dtype=np.float64).reshape(len(test), -1)
    centre = y[train].mean(0)
    values, vectors = np.linalg.eigh(gram[train])
    weights = (vectors.T @ (y[train] - centre)) / (values[:, None].clip(min=0) + alphas)
    return np.asarray(gram[test] @ (vectors @ weights) + centre)


def _standardized(x: NDArray[np.float32], train: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return columns of mean 0 and deviation 1 on the training rows, and flags of what is missing.

    Beyond eight deviations a linear model has nothing to say: values are cut there.
    """
    missing = np.isnan(x)
    flags = np.unique(missing[:, missing[train].any(0)], axis=1).astype(np.float64)
    known = ~missing[train].all(0)
    # float64 before any sum: the weights of a run about to diverge are that large
    x, missing = x[:, known].astype(np.float64), missing[:, known]
    centre, spread = np.nanmean(x[train], axis=0), np.nanstd(x[train], axis=0)
    varies = spread > 0
    scaled = (x[:, varies] - centre[varies]) / spread[varies]
    scaled = np.where(missing[:, varies], 0, scaled).clip(-8, 8)
    return np.concatenate([scaled, flags], 1)


_Path = Callable[[NDArray[np.float64]], Iterator[NDArray[np.float64]]]


def _kernel_path(inner: NDArray[np.float64], held: NDArray[np.float64]) -> _Path:
    """Return y ↦ the held-out predictions of kernel ridge at each strength."""
    values, vectors = np.linalg.eigh(inner)
    basis = held @ vectors

    def path(y: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        centre = y.mean(0)
        turned = vectors.T @ (y - centre)
        for alpha in _ALPHAS:
            yield basis @ (turned / (values[:, None].clip(min=0) + alpha)) + centre

    return path


def _primal_path(inner: NDArray[np.float64], held: NDArray[np.float64]) -> _Path:
    """Return the same from the columns, where there are fewer of them than rows."""
    middle = inner.mean(0)
    values, vectors = np.linalg.eigh((inner - middle).T @ (inner - middle))
    basis = (held - middle) @ vectors

    def path(y: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
        centre = y.mean(0)
        turned = vectors.T @ ((inner - middle).T @ (y - centre))
        for alpha in _ALPHAS:
            yield basis @ (turned / (values[:, None].clip(min=0) + alpha)) + centre

    return path


@pinned()
def fit_boosting(
    x: NDArray[np.float32],
    targets: Sequence[Target],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    *,
    iterations: int = 200,
    seed: int = 0,
) -> list[NDArray[Any]]:
    """Return predictions ``[m]`` of each target by histogram gradient boosting.

    A table of more than 1,024 columns is brought to 64 principal components, fitted on the training
    rows.

    Args:
        x: ``[n, D]``, NaN for missing.
        targets: what to predict.
        train, test: positions of rows.
        iterations: trees; a fixed number, as early stopping would need rows to stop on.
        seed: of the binning and the components.
    """
    from sklearn.decomposition import PCA
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    # the trees cannot be binned where a column has no value to bin
    known = ~np.isnan(x[train]).all(0)
    x = x[:, known] if known.any() else np.zeros((len(x), 1), dtype=np.float32)
    if x.shape[1] > _MOST_COLUMNS:
        count = min(_COMPONENTS, len(train))
        pca = PCA(count, svd_solver="randomized", random_state=seed).fit(x[train])
        x = pca.transform(x).astype(np.float32)
    options = {
        "max_iter": iterations,
        "learning_rate": 0.08,
        "max_features": 0.3,
        "early_stopping": False,
        "random_state": seed,
    }
    found: list[NDArray[Any]] = []
    for target in targets:
        kind = HistGradientBoostingClassifier if target.is_class else HistGradientBoostingRegressor
        if len(np.unique(target.values[train])) < 2:
            found.append(np.repeat(target.values[train][:1], len(test)))
            continue
        model = kind(**options).fit(x[train], target.values[train])
        found.append(model.predict(x[test]))
    return found


@dataclass(frozen=True, slots=True)
class NeuralTraining:
    """How the neural baseline is trained.

    Args:
        epochs: passes over the training rows.
        batch: rows.
        lr: the highest learning rate.
        seed: of the initial weights and the order.
    """

    epochs: int = 15
    batch: int = 32
    lr: float = 4e-3
    seed: int = 0


@pinned()
def fit_neural(
    view: View,
    targets: Sequence[Target],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    *,
    training: NeuralTraining = NeuralTraining(),
    tick: Callable[[], None] = lambda: None,
) -> list[NDArray[np.float64]]:
    """Return scores ``[m, outputs]`` of each target by one :class:`NeuralGraph` for all of them.

    Adam with a cosine schedule for a fixed number of epochs; the mean of squared errors and cross
    entropies. Batches hold one structure each.

    Args:
        view: every row.
        targets: what to predict.
        train, test: positions of rows.
        training: how long and how.
        tick: called after each epoch.
    """
    epochs, batch, seed = training.epochs, training.batch, training.seed
    encoded = [_as_objective_takes(t, train) for t in targets]
    sizes = [t.outputs for t in targets]
    data = {
        structure: (at, torch.from_numpy(view.take(at).stacked_weights()))
        for structure, at in by_structure(view).items()
    }
    taps = max(_taps(s.shape) for structure in data for s in structure.layout.segments)
    model = NeuralGraph(sum(sizes), taps=taps)
    model.initialize(seed)
    where = np.empty(len(view), dtype=np.int64)
    for at, _ in data.values():
        where[at] = np.arange(len(at))
    train_view = view.take(train)
    steps = epochs * len(plan_batches(train_view, batch))
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.lr, total_steps=max(steps, 2)
    )
    owner = {int(i): s for s, (at, _) in data.items() for i in at}
    for epoch in range(epochs):
        for positions in plan_batches(train_view, batch, Shuffle(seed, epoch)):
            rows = train[positions]
            structure = owner[int(rows[0])]
            x = layer_tensors(data[structure][1][where[rows]], structure.layout)
            loss = _loss(torch.split(model(x), sizes, 1), targets, encoded, torch.from_numpy(rows))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        tick()
    scores = torch.empty(len(test), sum(sizes))
    with torch.no_grad():
        for positions in plan_batches(view.take(test), 128):
            rows = test[positions]
            structure = owner[int(rows[0])]
            x = layer_tensors(data[structure][1][where[rows]], structure.layout)
            scores[torch.from_numpy(positions)] = model(x)
    return [np.asarray(part.double()) for part in torch.split(scores, sizes, 1)]


def _loss(
    scores: Sequence[Tensor], targets: Sequence[Target], encoded: Sequence[Tensor], rows: Tensor
) -> Tensor:
    parts = [
        _objective(target).losses(s, y[rows]).mean()
        for s, target, y in zip(scores, targets, encoded, strict=True)
    ]
    return torch.stack(parts).mean()


def _objective(target: Target) -> Objective:
    """Return what a network that predicts a target minimises."""
    return OBJECTIVES["cross_entropy"]("class") if target.is_class else OBJECTIVES["mse"]("vector")


def _as_objective_takes(target: Target, train: NDArray[np.int64]) -> Tensor:
    """Return labels ``[n]``, or values ``[n, 1]``."""
    if target.is_class:
        return torch.from_numpy(target.values.astype(np.int64))
    return torch.from_numpy(target.encoded(train)).float()


def _taps(shape: Sequence[int]) -> int:
    return int(np.prod(shape[2:])) if len(shape) > 2 else 1


def readable_models(view: View, models: Sequence[str], every: Sequence[str]) -> Sequence[str]:
    """Return the models that can read a view's rows.

    Args:
        view: the rows.
        models: what was asked for.
        every: what is asked for where nothing is chosen.

    Raises:
        QueryError: the neural graph was asked for by name, and cannot.
    """
    if "neural graph" not in models:
        return models
    try:
        for structure in by_structure(view):
            structure.require_chain("the neural graph")
    except QueryError as error:
        if tuple(models) != tuple(every):
            raise
        _LOG.warning("the neural graph is left out: %s", error)
        return [model for model in models if model != "neural graph"]
    return models
