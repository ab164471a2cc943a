"""Fields from a signature: the arguments of a user's class or function, as a run's fields."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from zoo.errors import RegistryError
from zoo.fields import KINDS, Field, Fields, named
from zoo.registry import loading
from zoo.spec.catalogue import field_infos
from zoo.spec.common import COMMON

__all__ = ["Arguments", "arguments_of", "check_loading", "check_numbers", "own_class"]

C = TypeVar("C")
_KINDS = {kind: name for name, kind in KINDS.items()} | {name: name for name in KINDS}


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a class or function of a user's takes by name.

    Args:
        given: arguments that phasezoo itself gives.
        common: arguments that are fields of every run.
        fields: arguments that become fields of the runs that use the entry.
    """

    given: tuple[str, ...]
    common: tuple[str, ...]
    fields: Fields

    def of(self, run: Any) -> dict[str, Any]:
        """Return the values of the arguments that are fields of a run."""
        return {name: getattr(run, name) for name in (*self.common, *self.fields)}


def check_loading(what: str) -> None:
    """Make sure that a plug-in is being loaded, so that workers and stores can know its content.

    Raises:
        RegistryError: none is.
    """
    if not loading():
        msg = (
            f"{what}: an entry is registered by a plug-in alone, whose content is hashed: put it"
            " into a file of its own and give --plugin FILE, or call zoo.load_plugin('FILE')"
        )
        raise RegistryError(msg)


def arguments_of(
    what: str,
    function: Callable[..., Any],
    *,
    given: Iterable[str],
    positional: int = 0,
    declared: Iterable[Field] = (),
    per: Literal["model", "cohort"] = "cohort",
) -> Arguments:
    """Return the arguments of a user's class or function.

    Args:
        what: the entry, for messages.
        function: the class or function.
        given: names that phasezoo gives, if they are there.
        positional: how many arguments phasezoo gives by position, before all others.
        declared: fields with bounds and docs, in place of what the signature says.
        per: how runs that differ in a field stack.

    Raises:
        RegistryError: an argument that cannot be a field.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        msg = f"{what}: its arguments cannot be read: {error}"
        raise RegistryError(msg) from None
    known, own = tuple(given), named(*declared)
    found: dict[str, list[Any]] = {"given": [], "common": [], "fields": []}
    docs = _argument_docs(function)
    for name, parameter in list(signature.parameters.items())[positional:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in known:
            found["given"].append(name)
        elif name in COMMON:
            if per == "cohort" and COMMON[name].per != "cohort":
                msg = (
                    f"{what}: argument {name!r} is a field that differs from model to model, and"
                    " an entry of this kind is shared by a cohort: take another name"
                )
                raise RegistryError(msg)
            found["common"].append(name)
        else:
            doc = docs.get(name, f"{name} of {what}")
            found["fields"].append(own.pop(name, None) or _field(what, parameter, doc, per))
    if own:
        msg = f"{what}: fields declares {', '.join(own)}, which it does not take as an argument"
        raise RegistryError(msg)
    return Arguments(tuple(found["given"]), tuple(found["common"]), named(*found["fields"]))


def check_numbers(what: str, arguments: Arguments, common: Collection[str] = ()) -> None:
    """Make sure that the arguments of a function differ from model to model as numbers.

    Args:
        what: the entry, for messages.
        arguments: of the function.
        common: fields of every run that it may take.

    Raises:
        RegistryError: one is no number, or a field of every run that it may not take.
    """
    odd = [n for n, field in arguments.fields.items() if field.kind not in ("int", "float")]
    odd += [n for n in arguments.common if n not in common]
    if odd:
        msg = (
            f"{what}: argument {', '.join(odd)} must be a number of its own, not a field of every"
            " run"
        )
        raise RegistryError(msg)


def own_class(base: type[C], name: str, members: dict[str, Any]) -> type[C]:
    """Return the class of an entry.

    Args:
        base: what it is of.
        name: of the entry.
        members: its attributes.
    """
    return type(f"Own{name.title().replace('_', '')}", (base,), members)


def _field(what: str, parameter: inspect.Parameter, doc: str, per: str) -> Field:
    """Return the field of an argument; one that there is already, with the argument's default."""
    name, default = parameter.name, parameter.default
    if default is parameter.empty:
        msg = f"{what}: argument {name!r} needs a default, which runs have that do not give it"
        raise RegistryError(msg)
    known = field_infos().get(name)
    annotation = parameter.annotation
    kind = _KINDS.get(annotation) or _KINDS.get(type(default))
    try:
        if known is not None and known.per == per:
            return known.at(float(default) if known.kind == "float" else default)
        if kind is None:
            msg = f"argument {name!r} is {annotation!r}; a field is int, float, str or bool"
            raise ValueError(msg)
        value = float(default) if kind == "float" else default
        return Field(name, kind, value, doc, per=per)
    except (TypeError, ValueError) as error:
        msg = f"{what}: {error}"
        raise RegistryError(msg) from None


def _argument_docs(function: Callable[..., Any]) -> dict[str, str]:
    """Return argument -> its line in an ``Args:`` section."""
    text = inspect.getdoc(function) or ""
    _, _, section = text.partition("Args:\n")
    found = {}
    for line in section.splitlines():
        if not line.startswith(" "):
            break
        match = re.match(r"\s+(\w+):\s+(.*\S)", line)
        if match:
            found[match[1]] = match[2].rstrip(".")
    return found
