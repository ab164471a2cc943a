"""What has to be scored before a zoo can be trained: each scoring model once, whoever asks for it.

Runs whose scoring models are the same (by content) share a job; the job covers every score, epoch
and seed that any of them asks for.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.diets.scores import FROM_MODELS, SCORES
from zoo.errors import Problem, SpecError
from zoo.spec.diet import is_scored, scorer_of
from zoo.spec.expand import counted
from zoo.spec.run import RunSpec

__all__ = ["BLOCK", "ScoringJob", "family_of", "make_job", "scoring_jobs"]

#: Scoring models that are trained stacked; a part of the scoring stage. It never changes with how
#: many are asked for, so that the bits of a model's scores do not either.
BLOCK = 5

#: Scores that cost next to nothing once the logits are there: always kept.
_CHEAP = ("el2n", "entropy", "loss", "margin")


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """Models that score, and what they are asked.

    Args:
        scorer: their resolved spec, at seed 0; model s differs in its seeds alone.
        subsets: whether each model is trained on a random subset of its own.
        scores: names, sorted.
        epochs: at which they score, ascending.
        seeds: S.
    """

    scorer: RunSpec
    subsets: bool
    scores: tuple[str, ...]
    epochs: tuple[float, ...]
    seeds: int

    @property
    def family(self) -> str:
        """What tells scoring models apart, whatever they are asked: twelve hexadecimal digits."""
        return _hash([self.scorer.identity(), self.subsets])

    @property
    def id(self) -> str:
        """Hash of everything: twelve hexadecimal digits."""
        return _hash([self.family, self.scores, self.epochs, self.seeds])

    @property
    def blocks(self) -> int:
        """Parts of the job."""
        return -(-self.seeds // BLOCK)

    @property
    def last_epoch(self) -> float:
        """Where the scoring models may stop."""
        return max(self.epochs)

    def to_json(self) -> dict[str, Any]:
        """Return the job, JSON-ready."""
        values = {n: getattr(self, n) for n in ("subsets", "scores", "epochs", "seeds")}
        return {"scorer": self.scorer.to_dict(), **values}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ScoringJob:
        """Rebuild a job from :meth:`to_json`."""
        return cls(
            RunSpec.stored(raw["scorer"]),
            bool(raw["subsets"]),
            tuple(raw["scores"]),
            tuple(raw["epochs"]),
            int(raw["seeds"]),
        )


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _canonical(run: RunSpec, examples: int, changes: str | None = None) -> RunSpec:
    """Return the resolved scorer of a run, at seed 0, without seeds that decide nothing."""
    scorer = scorer_of(run, changes).resolve(examples)
    if scorer.label_noise == 0 and scorer.train_size == examples:
        scorer = scorer.replace(noise_seed=0)
    return scorer


def family_of(run: RunSpec, examples: int, *, subsets: bool) -> str:
    """Return the family of the models that score for a run; see :attr:`ScoringJob.family`.

    Args:
        run: a resolved run.
        examples: training examples of its data set.
        subsets: whether they are trained on random subsets.
    """
    return ScoringJob(_canonical(run, examples), subsets, (), (0.0,), 1).family


def make_job(
    run: RunSpec,
    examples: int,
    scores: Sequence[str],
    epochs: Sequence[float],
    seeds: int,
    *,
    scorer: str | None = None,
) -> tuple[ScoringJob, ...]:
    """Return the jobs for any scores of a run's scoring models.

    Args:
        run: a resolved run.
        examples: training examples of its data set.
        scores: names.
        epochs: at which to score.
        seeds: models.
        scorer: what the scoring models change; None = what the run says.

    Raises:
        SpecError: an epoch beyond the training of the scorer, or none at which a score makes sense.
        UnknownNameError: an unknown score.
    """
    modelled = [name for name in scores if SCORES[name].kind in FROM_MODELS]
    subsets = [name for name in modelled if SCORES[name].kind == "subsets"]
    wants = [(tuple(subsets), True), (tuple(n for n in modelled if n not in subsets), False)]
    models = _canonical(run, examples, scorer)
    # A score that looks at a stretch of training has no value at epochs before its first.
    last = max(epochs, default=0.0)
    firsts = {name: SCORES[name].first_epoch for name in modelled}
    asked = {name: [e for e in epochs if e >= firsts[name] or e == last] for name in modelled}
    problems = [p for name in modelled for p in _misfits(name, models, asked[name])]
    if problems:
        raise SpecError(problems, "scoring")
    return tuple(_job(models, own, names, epochs, seeds) for names, own in wants if names)


def _job(
    scorer: RunSpec,
    subsets: bool,  # noqa: FBT001
    names: Iterable[str],
    epochs: Iterable[float],
    seeds: int,
) -> ScoringJob:
    whole = set(names) if subsets else {*names, *_CHEAP}
    return ScoringJob(scorer, subsets, tuple(sorted(whole)), tuple(sorted(set(epochs))), seeds)


def _misfits(name: str, scorer: RunSpec, epochs: Iterable[float]) -> list[Problem]:
    """Return the problems of scoring at epochs that do not fit."""
    total = int(scorer.steps or 0) / scorer.steps_per_epoch
    first = SCORES[name].first_epoch
    return [
        Problem("score_epoch", epoch, f"{name} is asked of models with {total:g} epochs",
                f"{first:g} to {total:g}")
        for epoch in epochs
        if not first <= epoch <= total + 1e-9
    ]  # fmt: skip


def scoring_jobs(
    runs: Iterable[RunSpec], examples: Mapping[str, int], *, source: str = "sweep"
) -> tuple[ScoringJob, ...]:
    """Return the scoring jobs that runs need, each scoring model in one of them.

    Args:
        runs: resolved runs.
        examples: data key -> training examples.
        source: for messages.

    Raises:
        SpecError: score epochs beyond the training of the scorer; each kind of problem once.
    """
    asked: dict[tuple[str, bool], list[RunSpec]] = defaultdict(list)
    scorers: dict[str, RunSpec] = {}
    found: dict[tuple[object, str], list[Problem]] = {}
    total = 0
    for run in runs:
        if not is_scored(run):
            continue
        total += 1
        scorer = _canonical(run, examples[run.data_key])
        for problem in _misfits(run.score, scorer, [run.score_epoch or 0.0]):
            found.setdefault((problem.value, problem.message), []).append(problem)
        key = scorer.run_id
        scorers[key] = scorer
        asked[key, SCORES[run.score].kind == "subsets"].append(run)
    if found:
        raise SpecError([counted(group, total) for group in found.values()], source)
    return tuple(
        _job(
            scorers[key],
            subsets,
            {run.score for run in group},
            {run.score_epoch or 0.0 for run in group},
            max(int(run.score_seeds or 1) for run in group),
        )
        for (key, subsets), group in asked.items()
    )
