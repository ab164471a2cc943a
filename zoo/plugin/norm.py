"""``@plugin.norm``: a user's own normalisation layer, in every family that has norms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from torch import nn

from zoo.architectures.norms.base import NORMS
from zoo.architectures.norms.own import OwnNorm
from zoo.errors import RegistryError
from zoo.fields import Field
from zoo.plugin.signature import arguments_of, check_loading, own_class
from zoo.registry import first_sentence

__all__ = ["norm"]

M = TypeVar("M", bound=Callable[..., nn.Module])


def norm(
    name: str,
    *,
    doc: str = "",
    source: str = "",
    fields: Iterable[Field] = (),
    per_channel: bool = False,
) -> Callable[[M], M]:
    """Register an ``nn.Module`` class as a norm.

    It is called with the number of channels and its own fields, which are its other arguments. The
    module takes and returns ``[B, C]`` after a linear layer and ``[B, C, *spatial]`` after a
    convolution.

    Args:
        name: in sweeps: ``norm = "NAME"``.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.
        fields: own fields with bounds, in place of what the signature says.
        per_channel: it treats channels alike, so that they may be permuted together with its
            tensors of C values; tried before anything is trained.

    Raises:
        RegistryError: the name is taken, or an argument cannot be a field.
    """
    what = f"norm {name!r}"
    check_loading(what)

    def enter(make: M) -> M:
        arguments = arguments_of(what, make, given=(), positional=1, declared=fields)
        if arguments.common:
            taken = ", ".join(arguments.common)
            msg = f"{what}: {taken} is a field of every run, which a norm is not given: rename it"
            raise RegistryError(msg)
        own = {
            "fields": arguments.fields,
            "make": staticmethod(make),
            "per_channel": per_channel,
            "__doc__": make.__doc__,
        }
        kind = own_class(OwnNorm, name, own)
        NORMS.register(name, doc=doc or first_sentence(make), source=source)(kind)
        return make

    return enter
