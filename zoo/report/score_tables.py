"""What a store's scoring models said, as tables: who scored, and how far the scores agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data import Dataset, prepare
from zoo.diets.demand import ScoringJob
from zoo.diets.keep import labels_of, mean_score
from zoo.diets.ranks import noise_precision, rank_correlation, score_correlations, seed_agreement
from zoo.diets.scores import SCORES
from zoo.diets.scores.memorization import memorization
from zoo.errors import QueryError
from zoo.store import data_paths, read_plan, read_table, table_names
from zoo.train.task_data import planned_data

__all__ = ["ScoreTable", "find_scores", "load_scored", "score_report", "score_tables"]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """One table of scores (S seeds, E epochs, N examples).

    Args:
        name: of the table.
        job: what was asked of whom.
        epochs: ``[E]``.
        accuracy: ``[S, E]`` of the scoring models on the training set; empty without class labels.
        scores: name -> ``[S, E, N]``; of memorization ``[1, E, N]``.
        facts: the attributes: fingerprints of data and machine.
    """

    name: str
    job: ScoringJob
    epochs: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    scores: dict[str, NDArray[Any]]
    facts: dict[str, Any]

    def mean(self, score: str, epoch: float) -> NDArray[np.float64]:
        """Return the mean over the models, ``[N]``."""
        values = self.scores[score][:, self.epochs.tolist().index(epoch)]
        return mean_score(values, len(values))


def score_tables(path: str | PathLike[str]) -> list[ScoreTable]:
    """Return every table of scores of a store, in order of their names.

    Raises:
        StoreMissingError: no store is there.
    """
    out = []
    for name in table_names(path):
        if not name.startswith("scores-"):
            continue
        arrays, facts = read_table(path, name)
        job = ScoringJob.from_json(facts["job"])
        epochs = arrays["epochs"]
        scores = {s: arrays[s] for s in job.scores if s in arrays}
        if job.subsets:
            member = arrays["member"]
            rows = [memorization(arrays["correct"][:, e], member) for e in range(len(epochs))]
            scores["memorization"] = np.stack(rows)[None]
        out.append(
            ScoreTable(name, job, epochs, arrays.get("accuracy", np.empty((0, 0))), scores, facts)
        )
    return out


def find_scores(
    path: str | PathLike[str], score: str | None = None, epoch: float | None = None
) -> tuple[ScoreTable, str, float]:
    """Return a table, a score in it and an epoch: those asked for, or EL2N at the last epoch.

    Tables with fewer wrong labels come first.

    Raises:
        QueryError: the store has no scores, or not these.
    """
    tables = sorted(score_tables(path), key=lambda t: (t.job.scorer.label_noise, t.name))
    for table in tables:
        names = [n for n in table.scores if score in (None, n)]
        epochs = [float(e) for e in table.epochs if epoch in (None, e)]
        if names and epochs:
            return table, "el2n" if "el2n" in names else names[0], epochs[-1]
    there = "; ".join(
        f"{t.name}: {', '.join(t.scores)} at epochs {', '.join(f'{e:g}' for e in t.epochs)}"
        for t in tables
    )
    asked = f"score {score!r} at epoch {epoch}" if tables else "any scores"
    msg = f"{path} does not have {asked}; it has {there or 'none: `zoo score STORE` makes them'}"
    raise QueryError(msg)


def load_scored(
    path: str | PathLike[str], table: ScoreTable, *, paths: Mapping[str, str] | None = None
) -> tuple[Dataset, NDArray[np.int64]]:
    """Return the data set that was scored, and the labels that the models were trained on.

    Args:
        path: the store.
        table: of scores.
        paths: data set -> path, before what the environment and the store say.

    Raises:
        MissingDataError, DataError: the data set is not here, or another one.
    """
    scorer = table.job.scorer
    plan = read_plan(path)
    dataset = planned_data(plan, plan.data_key(scorer), data_paths(path, paths))
    return dataset, labels_of(scorer, dataset)


def score_report(
    path: str | PathLike[str], *, paths: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return what each table of a store says, JSON-ready.

    For every table: its models; for every score and epoch the agreement of the seeds, the rank
    correlation with the score's last epoch and with the input norm, and where labels are noisy
    how well the score finds the wrong ones; for every epoch the correlations between scores.
    """
    return [_describe(path, table, paths) for table in score_tables(path)]


def _describe(
    path: str | PathLike[str], table: ScoreTable, paths: Mapping[str, str] | None
) -> dict[str, Any]:
    dataset, labels = load_scored(path, table, paths=paths)
    x = np.asarray(prepare(dataset, table.job.scorer.normalization).train_x)
    norms = SCORES["input_norm"].compute(x.reshape(len(x), -1), labels)
    wrong = labels != dataset.train_y
    epochs = [float(e) for e in table.epochs]
    return {
        "table": table.name,
        "scorer": {k: v for k, v in table.job.scorer.to_dict().items() if v is not None},
        "subsets": table.job.subsets,
        "models": table.job.seeds,
        "epochs": epochs,
        "accuracy": _over_seeds(table.accuracy),
        "scores": list(_rows(table, epochs, norms, wrong)),
        "between": [
            {"epoch": e, "scores": list(pair), "spearman": value}
            for e in epochs
            for pair, value in score_correlations(_means(table, e)).items()
        ],
    }


def _means(table: ScoreTable, epoch: float) -> dict[str, NDArray[np.float64]]:
    at = table.epochs.tolist().index(epoch)
    known = [n for n, v in table.scores.items() if np.isfinite(v[:, at]).all(1).any()]
    return {name: table.mean(name, epoch) for name in known}


def _rows(
    table: ScoreTable,
    epochs: list[float],
    norms: NDArray[np.float64],
    wrong: NDArray[np.bool_],
) -> Iterator[dict[str, Any]]:
    last = _means(table, epochs[-1])
    for index, epoch in enumerate(epochs):
        for name, mean in _means(table, epoch).items():
            row: dict[str, Any] = {"score": name, "epoch": epoch}
            row |= {
                f"seeds_{k}": v for k, v in seed_agreement(table.scores[name][:, index]).items()
            }
            row["last_epoch"] = rank_correlation(mean, last[name]) if name in last else None
            row["input_norm"] = rank_correlation(mean, norms)
            if wrong.any():
                row |= {f"noise_{k}": v for k, v in noise_precision(mean, wrong).items()}
            yield row


def _over_seeds(values: NDArray[np.float64]) -> list[float]:
    """Return the means ``[E]`` of ``[S, E]``, none of nothing."""
    return [float(mean) for mean in np.nanmean(values, axis=0)] if values.size else []
