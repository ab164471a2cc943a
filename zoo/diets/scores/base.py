"""What a score is: how much each training example matters, as models see it; higher = harder.

Every score is defined on one model (or on the data alone); the scores of a diet are means over
independently initialised and shuffled models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zoo.architectures import Network
from zoo.architectures.op import Params
from zoo.registry import Registry

__all__ = ["FROM_MODELS", "KINDS", "SCORES", "Outputs", "Score", "ScoreRegistry", "Trajectory"]

#: What a score is computed from.
KINDS = ("nothing", "data", "file", "point", "features", "trajectory", "subsets")
#: Kinds that need models, trained before the zoo is.
FROM_MODELS = ("point", "features", "trajectory", "subsets")

#: Fields that a diet of any score reads, with their defaults.
_SIZE = {"keep": 0.5, "balance": "none", "budget": "steps"}
_CHOICE = {**_SIZE, "select": "hardest"}
_SCORED = {**_CHOICE, "score_epoch": 10.0, "score_seeds": 10, "scorer": "self"}


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What G models make of some examples at one moment, in eval mode.

    Args:
        network: the architecture.
        params: every tensor of the models, each ``[G, *shape]``.
        x: ``[G, B, T, C_in]`` the examples in the stacked form.
        logits: ``[G, B, C]`` float32.
        labels: ``[B]`` or ``[G, B]`` int64, as trained on.
    """

    network: Network
    params: Params
    x: Tensor
    logits: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
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
            ``nothing``: not called; ``data``: arrays ``[N, D]``, ``[N]`` to ``[N]``;
            ``file``: the path to ``[N]``; ``point``: :class:`Outputs` to ``[G, B]``;
            ``features``: one model's last features ``[N, F]``, labels ``[N]``, C to ``[N]``;
            ``trajectory``: :class:`Trajectory` to ``[G, N]``;
            ``subsets``: correct ``[M, N]``, member ``[M, N]`` to ``[N]``.
        doc: one line, with the unit.
        source: author, year, arXiv.
        compute: the function.
        own: defaults of diet fields that differ from those of other scores.
        first_epoch: the lowest score epoch that makes sense.
    """

    kind: str
    doc: str
    source: str
    compute: Callable[..., Any]
    own: Mapping[str, Any] = field(default_factory=dict)
    first_epoch: float = 0.0

    @property
    def fields(self) -> dict[str, Any]:
        """The run-spec fields that a diet of this score reads, with their defaults."""
        if self.kind == "nothing":
            return {**_SIZE, **self.own}
        return {**(_SCORED if self.kind in FROM_MODELS else _CHOICE), **self.own}


class ScoreRegistry(Registry[Any]):
    """The scores; besides its names it has every ``file:PATH``, a user's own."""

    def __contains__(self, name: object) -> bool:
        own = isinstance(name, str) and name.startswith("file:") and len(name) > len("file:")
        return super().__contains__(name) or own

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__("file:PATH" if name.startswith("file:") else name)


SCORES = ScoreRegistry("score", field="score")


@dataclass(frozen=True, slots=True)
class _NoScore:
    """No diet."""

    kind: str = "none"
    doc: str = "no static diet: every example is kept"
    source: str = ""


SCORES.register("none")(_NoScore())
