"""``@plugin.architecture``: a user's own ``nn.Module``, trained stacked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

from torch import nn

from zoo.architectures.families import ARCHITECTURES, Family
from zoo.architectures.module import module_network
from zoo.architectures.network import Network
from zoo.data.shape import DataShape
from zoo.errors import Problem, SpecError
from zoo.fields import Field
from zoo.plugin.signature import arguments_of, check_loading
from zoo.registry import first_sentence
from zoo.spec.common import COMMON
from zoo.spec.run import RunSpec

__all__ = ["architecture"]

M = TypeVar("M", bound=Callable[..., nn.Module])

#: What phasezoo's own families read, and a module only if it takes it as an argument.
_OF_FAMILIES = ("width", "activation", "norm", "weight_transform", "dropout")
#: Different networks of an architecture that are kept.
_MOST_NETWORKS = 16
_GIVEN = ("example_shape", "outputs", "tokens")


def architecture(
    name: str, *, doc: str = "", source: str = "", fields: Iterable[Field] = ()
) -> Callable[[M], M]:
    """Register an ``nn.Module`` class, or a function that makes one, as an architecture.

    It is called with those of ``example_shape`` (channels first), ``outputs`` (classes, or values
    that an example is given) and ``tokens`` (how many there are; None for numbers) that it takes.
    Every other argument is a field: one of every run (``width``, ``activation``) or one of its own,
    with the argument's default, type and line in the docstring. The module takes
    ``[B, *example_shape]``, tokens as int64, and returns ``[B, outputs]``, or
    ``[B, T, outputs]`` where every position has a label.

    Args:
        name: in sweeps: ``architecture = "NAME"``.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.
        fields: own fields with bounds, in place of what the signature says.

    Raises:
        RegistryError: the name is taken, or an argument cannot be a field.

    Example:
        >>> @plugin.architecture("tiny")  # doctest: +SKIP
        ... class Tiny(nn.Module):
        ...     def __init__(self, example_shape, outputs, width: int = 16): ...
    """
    what = f"architecture {name!r}"
    check_loading(what)

    def enter(make: M) -> M:
        arguments = arguments_of(what, make, given=_GIVEN, declared=fields)
        fixes = {n: COMMON[n].default for n in _OF_FAMILIES if n not in arguments.common}

        @lru_cache(maxsize=_MOST_NETWORKS)
        def network(data: DataShape, options: tuple[tuple[str, Any], ...]) -> Network:
            known: dict[str, Any] = {
                "example_shape": data.example, "outputs": data.outputs, "tokens": data.tokens,
            }  # fmt: skip
            given = {**{n: known[n] for n in arguments.given}, **dict(options)}
            return module_network(lambda: make(**given), name, data, dict(options))

        def build(run: RunSpec, data: DataShape) -> Network:
            # to try a module takes a while, and every model that is loaded asks for it
            found = network(data, tuple(arguments.of(run).items()))
            if found.bits_vary and run.precision != "float32":
                message = f"{name} is a module of your own, which computes in float32"
                raise SpecError([Problem("precision", run.precision, message, "float32")])
            return found

        family = Family(build, arguments.fields, fixes, tokens=True)
        ARCHITECTURES.register(name, doc=doc or first_sentence(make), source=source)(family)
        return make

    return enter
