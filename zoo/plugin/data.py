"""``@plugin.data``: a user's own data set, made or read by a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from zoo.data.base import DATASETS, Arrays, DataSource
from zoo.errors import DataError, RegistryError
from zoo.plugin.signature import check_loading
from zoo.registry import first_sentence

__all__ = ["data"]

F = TypeVar("F", bound=Callable[..., Any])


def data(name: str, *, doc: str = "", citation: str = "", licence: str = "") -> Callable[[F], F]:
    """Register a function that returns a data set.

    It returns a mapping with ``train_x``, ``train_y``, ``test_x`` and ``test_y``: examples
    ``[N, *example_shape]`` (channels first) and targets (integer labels ``[N]``, zeros and ones
    ``[N, C]``, or floats). What it returns is hashed when a sweep is planned, and must be the same
    each time: draw random numbers from a generator with a fixed seed.

    Args:
        name: in sweeps: ``data = "NAME"``.
        doc: one line; by default the first of the docstring.
        citation: where it was published.
        licence: of the data.

    Raises:
        RegistryError: the name is taken, or the function takes arguments that it must be given.
    """
    what = f"data set {name!r}"
    check_loading(what)

    def enter(function: F) -> F:
        needed = [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        if needed:
            msg = f"{what}: is called without arguments, and {', '.join(needed)} has no default"
            raise RegistryError(msg)

        def read(path: Path | None) -> Arrays:
            found = function()
            if isinstance(found, Mapping):
                missing = [n for n in Arrays._fields if n not in found]
                if missing:
                    held = ", ".join(map(str, found)) or "nothing"
                    msg = f"{what}: {', '.join(missing)} is missing; it has {held}"
                    raise DataError(msg)
                return Arrays(*(np.asarray(found[n]) for n in Arrays._fields))
            msg = f"{what}: returns {type(found).__name__}; a mapping of four arrays is wanted"
            raise DataError(msg)

        DATASETS.register(name, doc=doc or first_sentence(function), source=citation)(
            DataSource(
                name=name, source="generated", licence=licence or "the user's own",
                citation=citation, example_shape=None, classes=None, sizes=None, read=read,
            )
        )  # fmt: skip
        return function

    return enter
