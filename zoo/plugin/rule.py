"""``@plugin.phase_rule``: a user's own rule for the phase of a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from zoo.errors import RegistryError
from zoo.phases.rule import UNDETERMINED
from zoo.phases.rules import RULES, PhaseRule
from zoo.plugin.signature import check_loading
from zoo.registry import first_sentence

__all__ = ["phase_rule"]

F = TypeVar("F", bound=Callable[..., Any])


def phase_rule(
    name: str, *, phases: Iterable[str], floats: bool = False, doc: str = "", source: str = ""
) -> Callable[[F], F]:
    """Register a function from cells to their phases.

    ``f(cells)``: ``cells.value("train_loss")`` is ``[N]``, NaN where it is not known; so are
    ``train_error``, ``lambda_max``, ``trace``, ``mode_connectivity``, ``cka`` and every other
    number of the table of cells. It returns ``[N]`` names out of ``phases``, or
    ``"undetermined"``. ``zoo label STORE --rule NAME`` applies it.

    Args:
        name: of the rule.
        phases: what it may say.
        floats: whether it also takes cells of models that fit floats.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.

    Raises:
        RegistryError: the name is taken, or no phases are given.
    """
    what = f"phase rule {name!r}"
    check_loading(what)
    named = tuple(phases)
    if not named or len(set(named)) < len(named) or UNDETERMINED in named:
        msg = f"{what}: phases = {named!r}; give different names, without {UNDETERMINED!r}"
        raise RegistryError(msg)

    def enter(function: F) -> F:
        RULES.register(name, doc=doc or first_sentence(function), source=source)(
            PhaseRule(named, function, floats)
        )
        return function

    return enter
