"""What a score is: how much each training example matters, as models see it; higher = harder.

Every score is defined on one model (or on the data alone); the scores of a diet are means over
independently initialised and shuffled models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zoo.architectures import Network
from zoo.architectures.op import Params
from zoo.fields import Field, Fields, named
from zoo.objectives import Objective
from zoo.registry import Registry
from zoo.spec.limits import MAX_EPOCHS, MAX_SCORE_SEEDS

__all__ = [
    "FROM_MODELS",
    "KINDS",
    "SCORES",
    "SCORE_SEEDS",
    "EpochTrail",
    "Outputs",
    "Score",
    "ScoreRegistry",
]

#: What a score is computed from.
KINDS = ("nothing", "data", "file", "point", "features", "trajectory", "subsets")
#: Kinds that need models, trained before the zoo is.
FROM_MODELS = ("point", "features", "trajectory", "subsets")

SCORE_SEEDS = Field(
    "score_seeds", "int", 10, "scoring models a score is the mean of", low=1, high=MAX_SCORE_SEEDS
)
#: Fields that a diet of any score reads.
_SIZE = named(
    Field("keep", "float", 0.5, "share of the training examples kept", above=0, high=1),
    Field("balance", "str", "none", "class: every class keeps the same share"),
    Field("budget", "str", "steps", "steps or epochs: what a diet leaves as it is"),
)
#: Of one that ranks them.
_CHOICE = _SIZE | named(Field("select", "str", "hardest", "which examples of the ranking are kept"))
#: Of one that trains models first.
_SCORED = _CHOICE | named(
    Field(
        "score_epoch",
        "float",
        10.0,
        "epoch of the scoring models that scores",
        low=0,
        high=MAX_EPOCHS,
    ),
    SCORE_SEEDS,
    Field("scorer", "str", "self", "self, or fields that scoring models change: width=16"),
)
#: Of a file of scores.
_FILE = named(
    Field(
        "score_sha256",
        "str",
        None,
        "sha256 of a user's own scores; set when planning",
        planned=True,
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What G models make of some examples at one moment, in eval mode.

    Args:
        network: the architecture.
        objective: what the models minimise.
        params: every tensor of the models, each ``[G, *shape]``.
        x: ``[G, B, T, C_in]`` the examples in the stacked form.
        logits: ``[G, B, C]`` float32.
        targets: ``[G, B]`` int64 labels as trained on, or ``[G, B, C]`` values.
    """

    network: Network
    objective: Objective
    params: Params
    x: Tensor
    logits: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class EpochTrail:
    """What G models made of the examples after each of T whole epochs, from the first on.

    Args:
        correct: ``[G, T, N]`` bool.
        margin: ``[G, T, N]`` float32, the label's logit minus the largest other.
    """

    correct: Tensor
    margin: Tensor


@dataclass(frozen=True, slots=True)
class Score:
    """One score.

    Args:
        kind: one of :data:`KINDS`, which says what ``compute`` takes and returns:
            ``nothing``: N to ``[N]``; ``data``: arrays ``[N, D]``, ``[N]``, and the score's own
            fields by name, to ``[N]``;
            ``file``: the path to ``[N]``; ``point``: :class:`Outputs` to ``[G, B]``;
            ``features``: one model's last features ``[N, F]``, labels ``[N]``, C to ``[N]``;
            ``trajectory``: :class:`EpochTrail` to ``[G, N]``;
            ``subsets``: correct ``[M, N]``, member ``[M, N]`` to ``[N]``.
        doc: one line, with the unit.
        source: author, year, arXiv.
        compute: the function.
        own: further fields, and those of other scores with another default.
        first_epoch: the lowest score epoch that makes sense.
        needs: of the objective; see :meth:`zoo.objectives.Objective.lack`.
        last_layer: whether it reads what enters the last layer of scoring models.

    Raises:
        ValueError: a score from models with a field of its own: its table in the store is known by
            name, epoch and seeds alone.
    """

    kind: str
    doc: str
    source: str
    compute: Callable[..., Any]
    own: Fields = field(default_factory=dict)
    first_epoch: float = 0.0
    needs: str = ""
    last_layer: bool = False

    def __post_init__(self) -> None:
        if self.options and self.kind != "data":
            msg = f"a score of kind {self.kind!r} cannot have fields of its own: {self.options}"
            raise ValueError(msg)

    @property
    def options(self) -> tuple[str, ...]:
        """The fields that only this score reads, and that ``compute`` is given."""
        return tuple(name for name in self.own if name not in {**_SCORED, **_FILE})

    @property
    def fields(self) -> Fields:
        """The run-spec fields that a diet of this score reads."""
        if self.kind == "nothing":
            return {**_SIZE, **self.own}
        if self.kind == "file":
            return {**_CHOICE, **_FILE, **self.own}
        return {**(_SCORED if self.kind in FROM_MODELS else _CHOICE), **self.own}


class ScoreRegistry(Registry[Any]):
    """The scores; besides its names it has every ``file:PATH``, a user's own."""

    def key(self, name: str) -> str:
        """Return ``"file:PATH"`` for every path."""
        return "file:PATH" if name.startswith("file:") and len(name) > len("file:") else name


SCORES = ScoreRegistry("score", field="score")


@dataclass(frozen=True, slots=True)
class _NoScore:
    """No diet."""

    kind: str = "none"
    doc: str = "no static diet: every example is kept"
    source: str = ""


SCORES.register("none")(_NoScore())
