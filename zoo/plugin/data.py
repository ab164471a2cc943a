"""``@plugin.data``: a user's own data set, made or read by a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.base import DATASETS, WINDOW_OPTIONS, DataSource
from zoo.errors import DataError, RegistryError
from zoo.fields import Field
from zoo.plugin.signature import arguments_of, check_loading
from zoo.registry import first_sentence

__all__ = ["data"]

F = TypeVar("F", bound=Callable[..., Any])


def data(
    name: str,
    *,
    doc: str = "",
    citation: str = "",
    licence: str = "",
    function: Callable[[Tensor], Tensor] | None = None,
    fields: Iterable[Field] = (),
) -> Callable[[F], F]:
    """Register a function that returns a data set.

    It returns a mapping of arrays that are named after split and role: ``train_x``, ``train_y``,
    ``test_x`` and ``test_y`` are examples ``[N, *example_shape]`` (channels first) and targets
    (integer labels ``[N]``, zeros and ones ``[N, C]``, or floats); :mod:`zoo.data.splits` lists
    the others (tokens, sequences, labels of positions, weights, masks, further splits, the bounds
    ``low`` and ``high`` of a domain). What it returns is hashed when a sweep is planned, and must
    be the same each time: draw random numbers from a generator with a fixed seed.

    Its arguments are fields, each with a default. Besides them a run has ``context`` and
    ``window_stride``, by which sequences are cut into windows.

    Args:
        name: in sweeps: ``data = "NAME"``.
        doc: one line; by default the first of the docstring.
        citation: where it was published.
        licence: of the data.
        function: from points ``[N, *example_shape]`` to their targets ``[N, ...]``, both tensors:
            with the sampler ``fresh`` models train on new points of the domain at every step.
        fields: own fields with bounds, in place of what the signature says.

    Raises:
        RegistryError: the name is taken, or an argument cannot be a field.
    """
    what = f"data set {name!r}"
    check_loading(what)

    def enter(make: F) -> F:
        own = arguments_of(what, make, given=(), declared=fields)
        taken = [*own.common, *(n for n in WINDOW_OPTIONS if n in own.fields)]
        if taken:
            msg = f"{what}: argument {taken[0]!r} is a field with a meaning of its own: rename it"
            raise RegistryError(msg)

        def read(path: Path | None, **options: Any) -> dict[str, NDArray[Any]]:
            found = make(**options)
            if isinstance(found, Mapping):
                return {str(n): np.asarray(array) for n, array in found.items()}
            msg = f"{what}: returns {type(found).__name__}; a mapping of named arrays is wanted"
            raise DataError(msg)

        DATASETS.register(name, doc=doc or first_sentence(make), source=citation)(
            DataSource(
                name=name, source="generated", licence=licence or "the user's own",
                citation=citation, example_shape=None, classes=None, sizes=None, read=read,
                options={**own.fields, **WINDOW_OPTIONS}, function=function,
            )
        )  # fmt: skip
        return make

    return enter
