"""The option ``--data NAME=PATH`` of every verb that reads data, and what a plan says of data."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoo.train.plan import Plan

__all__ = ["add_data_option", "given_data", "print_data", "shown_data"]


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument(
        "--data", metavar="NAME=PATH", action="append", default=[], type=_pair,
        help="where the files of a data set (npz:wells=PATH) or a score (file:mine.npy=PATH) are; "
        "goes before ZOO_DATA_<NAME> and before what the sweep or the store says; repeatable",
    )  # fmt: skip


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not name.strip() or not equals or not path.strip():
        msg = f"{text!r} is not NAME=PATH, as in npz:wells=data/wells.npz"
        raise argparse.ArgumentTypeError(msg)
    return name.strip(), path.strip()


def given_data(args: argparse.Namespace) -> dict[str, str]:
    """Return data set or score file -> path, as the option gives it."""
    return dict(args.data)


def shown_data(plan: Plan, paths: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return size, shape and classes of each data set of a plan, and what is doubtful about it.

    Data that are not on this machine, as those of a copied store may be, raise no doubts.
    """
    from zoo.data.doubts import doubts
    from zoo.errors import ZooError
    from zoo.train.task_data import planned_data

    names = ("splits", "example_shape", "classes", "target", "positions", "tokens")
    found = {}
    for name, facts in plan.data.items():
        found[name] = {key: facts[key] for key in names if key in facts} | {"doubts": []}
        with contextlib.suppress(ZooError):
            found[name]["doubts"] = list(doubts(planned_data(plan, name, paths)))
    return found


def print_data(facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the data sets of a plan."""
    from zoo.data.doubts import in_words

    for name, data in facts.items():
        unit = "classes" if data["target"] == "class" else "values each"
        if "positions" in data:
            unit += f" at {' x '.join(map(str, data['positions']))} positions"
        sizes = " + ".join(f"{count:,}" for count in data["splits"].values())
        form = in_words(data["example_shape"])
        if "tokens" in data:
            form = f"{data['example_shape'][0]} tokens, {data['tokens']} different ones"
        print(f"  data      {name}: {sizes} examples of {form}, {data['classes']} {unit}")
        for doubt in data["doubts"]:
            print(f"  warning   {name}: {doubt}")
