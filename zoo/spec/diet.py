"""The diet of a run: which of its fields mean something, what it keeps, who scores for it.

A diet is a few fields of the run spec (``score``, ``keep``, ``select``, ...). They are None where
there is no diet, so that a run without one has the id that it always had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import Problem, SpecError
from zoo.registry import vocabulary
from zoo.spec.catalogue import catalogue
from zoo.spec.check import check_value
from zoo.spec.common import SEED_FIELDS

if TYPE_CHECKING:
    from zoo.spec.run import RunSpec

__all__ = [
    "BASELINE",
    "INIT_REASON",
    "SCORE_FILE",
    "canonical_scorer",
    "diet_fields",
    "diet_problems",
    "is_scored",
    "kept_of",
    "random_twin",
    "read_overrides",
    "scored_at_init",
    "scorer_of",
]

#: A score that begins so is a file of the user's.
SCORE_FILE = "file:"

#: The score that every other is compared with.
BASELINE = "random"

INIT_REASON = (
    "scores of untrained networks follow the norm of the input and prune no better than chance;"
    " the report that GraNd at initialisation works came from a checkpoint bug (Kirsch 2023,"
    " arXiv 2303.14753)"
)


def diet_fields() -> tuple[str, ...]:
    """Return the fields of a static diet: ``score``, and what entries bring to it."""
    return catalogue().under("score")


def is_scored(run: RunSpec) -> bool:
    """Return whether the diet of a run needs models that are trained before it."""
    return run.scorer is not None


def scored_at_init(run: RunSpec) -> bool:
    """Return whether a diet uses the scores of untrained networks."""
    return is_scored(run) and run.score_epoch == 0


def kept_of(run: RunSpec, examples: int) -> int:
    """Return how many of the ``examples`` that a run may use its static diet keeps."""
    return examples if run.keep is None else max(1, round(run.keep * examples))


def diet_problems(run: RunSpec) -> list[Problem]:
    """Return what is wrong with the diet of a run whose single fields are right."""
    problems = []
    keep = run.keep or 1.0
    for name in ("trim", "offset"):
        share = getattr(run, name)
        if share is not None and share + keep > 1 + 1e-9:
            allowed = f"<= 1 - keep = {1 - keep:g}"
            problems.append(Problem(name, share, "leaves fewer examples than keep", allowed))
    registry = vocabulary("score")
    first = getattr(registry[run.score], "first_epoch", 0.0) if registry is not None else 0.0
    if run.score_epoch is not None and run.score_epoch < first:
        message = f"{run.score} looks at a stretch of training"
        problems.append(Problem("score_epoch", run.score_epoch, message, f">= {first:g}"))
    if run.scorer is not None:
        problems += read_overrides(run.scorer)[1]
    return problems


def read_overrides(scorer: str) -> tuple[dict[str, Any], list[Problem]]:
    """Return the fields that a scorer changes, and what is wrong with them.

    Args:
        scorer: ``"self"``, or ``"width=16, epochs=5"``.
    """
    from zoo.spec.run import unknown_field

    values: dict[str, Any] = {}
    problems: list[Problem] = []
    infos = catalogue().fields
    fixed = _not_of_a_scorer()
    for part in () if scorer == "self" else scorer.split(","):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals:
            allowed = "'self', or fields to change, as in 'width=16, epochs=5'"
            problems.append(Problem("scorer", scorer, f"{part!r} sets no field", allowed))
        elif name not in infos:
            problems.append(unknown_field("scorer", name))
        elif name in fixed:
            message = f"{name} is the same for a run and its scorer"
            problems.append(Problem("scorer", scorer, message, "fields of model and training"))
        else:
            value, problem = check_value(infos[name], _parsed(text), f"scorer: {name}")
            values[name] = value
            problems += [problem] if problem is not None else []
    return values, problems


def _not_of_a_scorer() -> frozenset[str]:
    """Return what a scorer cannot change: examples, labels, the diet itself, the seeds."""
    alike = ("train_size", "label_noise", "seed", *SEED_FIELDS)
    return frozenset((*catalogue().under("score", "dynamic", "data"), *alike))


def _parsed(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def canonical_scorer(scorer: str) -> str:
    """Return one spelling for each scorer: fields in alphabetical order, values as Python's."""
    values, problems = read_overrides(scorer)
    if problems or not values:
        return scorer.strip()
    shown = {k: str(v).lower() if isinstance(v, bool) else v for k, v in values.items()}
    return ",".join(f"{name}={shown[name]}" for name in sorted(shown))


def scorer_of(run: RunSpec, scorer: str | None = None) -> RunSpec:
    """Return the spec whose models score for a run: no diet, and seed 0, as the seeds are many.

    Args:
        run: the run.
        scorer: what its scoring models change; None = what the run says.

    Raises:
        SpecError: the fields that the scorer changes do not go together.
    """
    from zoo.spec.run import RunSpec

    changed, problems = read_overrides(scorer or run.scorer or "self")
    if problems:
        raise SpecError(problems)
    values: dict[str, Any] = run.to_dict()
    values |= dict.fromkeys(diet_fields()) | {"score": "none", "dynamic": "none"}
    values |= dict.fromkeys(SEED_FIELDS, 0) | {"seed": 0}
    if run.label_noise > 0 or run.train_size is not None:
        values["noise_seed"] = run.noise_seed
    if {"steps", "epochs", "batch_size"} & changed.keys() and "steps" not in changed:
        values["steps"] = None  # the length is then that in epochs
    return RunSpec(**{**values, **changed})


def random_twin(run: RunSpec) -> RunSpec:
    """Return the random baseline of a run on a static diet: same size, budget and seeds."""
    none: Mapping[str, Any] = dict.fromkeys(diet_fields())
    return run.replace(**{**none, "score": BASELINE, "keep": run.keep, "budget": run.budget})
