"""``zoo init``: a small, commented sweep file to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.cli.show import print_json
from zoo.errors import DataError, Problem, SpecError, unknown_name

__all__ = ["init"]

_TEMPLATE = """\
# A sweep: every combination of the values in [grid] is a model.
# `zoo plan {file}` says what it means and how long it takes; `zoo run {file} --out {stem}.zarr`
# trains it, and can be interrupted and repeated at any time.
# `zoo list` names every field, optimizer, norm, data set, ...
name = "{stem}"
description = "a first zoo on {data}"

[axes]                       # the two axes of the phase diagram: any two fields that vary
load = "width"
temperature = "batch_size"

[base]                       # one value for every run
data = "{data}"
{size}optimizer = "sgd"
momentum = 0.9
lr = 0.1
epochs = 5

[grid]                       # 3 x 2 x 2 = 12 runs
width = [8, 16, 32]
batch_size = [32, 128]
seed = {{range = [0, 2]}}      # two repetitions of each: 0 and 1

[record]
every_epochs = 1             # a checkpoint per epoch, and one of the initialisation
probe_size = 64              # test examples whose outputs are recorded too
{paths}"""

_PATHS = """
[paths]                      # where the files are: {files}
{key} = "{place}"
"""


def init(args: argparse.Namespace) -> int:
    """Write a sweep file; never over an existing one."""
    text = _sweep_text(Path(args.file), args.data)
    try:
        with Path(args.file).open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        fix = "give another name, or remove it first"
        raise SpecError([Problem("FILE", args.file, "exists already", "", fix)], "init") from None
    if args.json:
        print_json({"file": args.file, "data": args.data})
        return 0
    print(f"Wrote {args.file}: 12 runs on {args.data}. Next: zoo plan {args.file}")
    return 0


def _sweep_text(file: Path, data: str) -> str:
    from zoo.data import DATASETS

    if data not in DATASETS:
        raise SpecError([unknown_name("--from", data, "unknown data set", DATASETS)], "init")
    about = DATASETS[data]
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in file.stem)
    stem = stem.lstrip("._-") or "sweep"
    train = about.sizes[0] if about.sizes else None
    size = "" if train is None or train <= 5000 else "train_size = 5000            # of them\n"
    paths = ""
    if about.source == "user-path" and _missing(data):
        key = f'"{data}"' if ":" in data else data
        paths = _PATHS.format(files=about.files or "a path", key=key, place=f"path/to/{about.name}")
    return _TEMPLATE.format(file=file, stem=stem, data=data, size=size, paths=paths)


def _missing(data: str) -> bool:
    from zoo.data import DATASETS
    from zoo.data.files import find_path
    from zoo.errors import MissingDataError

    try:
        find_path(DATASETS[data], None)
    except (MissingDataError, DataError):
        return True
    return False
