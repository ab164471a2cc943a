"""``zoo split``, ``zoo audit``, ``zoo snapshot`` and ``zoo export``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.cli.show import human_bytes, plural, print_json
from zoo.errors import Problem, SpecError
from zoo.paths import absolute

if TYPE_CHECKING:
    from zoo.dataset import View

__all__ = ["add_verbs", "audit", "export", "snapshot", "split"]

_SPLIT = """\
A split is a file: part -> run ids, with a hash. Runs that share a value of --by stay together,
dealt out by a hash of their values; or a region of hyper-parameters is held out with --test.

examples:
  zoo split z.zarr --by seed --out split.json
  zoo split z.zarr --by cell --fractions train=0.8,test=0.2 --out split.json
  zoo split z.zarr --test "width >= 64" --out wide.json
"""
_AUDIT = """\
Looks for rows and runs on both sides, equal initial weights, copies of weights (also permuted,
rescaled or with flipped signs), equal answers, and a normalisation that has seen the test part.
Exit code 2 if there is a leak.

examples:
  zoo audit z.zarr --split split.json
  zoo audit z.zarr --by run
  zoo audit z.zarr --train "checkpoint % 2 == 0" --test "checkpoint % 2 == 1"
"""
_EXPORT = """\
examples:
  zoo export z.zarr "epoch == -1" --format hdf5 --out last.h5
  zoo export z.zarr "norm == 'none' and width == 16" --format small-cnn-zoo --out folder
  zoo export z.zarr --format safetensors --split split.json --out folder
"""
_Verb = Callable[..., argparse.ArgumentParser]


def add_verbs(verbs: Any, verb: _Verb, json: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add the verbs and their arguments.

    Args:
        verbs: where they go.
        verb: makes one of (verbs, name, place, short, epilog).
        json: adds ``--json``.
    """
    parser = verb(
        verbs, "split", "zoo.cli.dataset:split", "divide the runs of a store, once and for all",
        _SPLIT,
    )  # fmt: skip
    _rows(parser)
    _by(parser)
    parser.add_argument("--test", metavar="PREDICATE", help="hold out this region instead")
    parser.add_argument("--val", metavar="PREDICATE", help="and validate on this one")
    parser.add_argument("--out", metavar="FILE", required=True, help="the split (.json)")
    json(parser)

    parser = verb(
        verbs, "audit", "zoo.cli.dataset:audit", "look for leakage between the parts of a split",
        _AUDIT,
    )  # fmt: skip
    _rows(parser)
    _by(parser)
    parser.add_argument("--split", metavar="FILE", help="a split of `zoo split`")
    parser.add_argument("--train", metavar="PREDICATE", help="rows of the training part")
    parser.add_argument("--test", metavar="PREDICATE", help="rows of the test part")
    parser.add_argument("--normalization", metavar="FILE", help="of the weights (.npz)")
    parser.add_argument(
        "--tolerance", type=float, default=0.05, metavar="D", help="relative distance of a copy"
    )
    json(parser)

    parser = verb(
        verbs, "snapshot", "zoo.cli.dataset:snapshot",
        "name the rows of a query for good, with a hash of their weights; without a name: list",
    )  # fmt: skip
    _rows(parser)
    parser.add_argument("--name", metavar="NAME", help="letters, digits, '.', '_' and '-'")
    parser.add_argument("--verify", action="store_true", help="hold every snapshot to its hash")
    json(parser)

    parser = verb(
        verbs, "export", "zoo.cli.dataset:export", "write rows in a format that other tools read",
        _EXPORT,
    )  # fmt: skip
    _rows(parser)
    parser.add_argument("--format", required=True, metavar="F", help="'list' names them")
    parser.add_argument("--out", metavar="PATH", help="a file or folder that is not there")
    parser.add_argument("--split", metavar="FILE", help="a split of `zoo split`")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and end")
    json(parser)


def _rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="a zoo (STORE.zarr)")
    parser.add_argument("predicate", nargs="?", metavar="PREDICATE", help="default: all rows")


def _by(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", default="seed", metavar="A,B",
        help="keep together: run, seed (default), cell, architecture, or columns",
    )  # fmt: skip
    parser.add_argument("--apart", metavar="A", help="share neither: --by cell --apart seed")
    parser.add_argument(
        "--fractions", type=_fractions, metavar="P=F,...", help="train=0.7,val=0.15,test=0.15"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the assignment")


def _fractions(text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        msg = f"{text!r}: write train=0.8,test=0.2"
        raise argparse.ArgumentTypeError(msg) from None


def _view(args: argparse.Namespace) -> View:
    import zoo

    return zoo.open(args.store).query(args.predicate)


def _make_split(args: argparse.Namespace, view: View) -> Any:
    from zoo.dataset.splits import FRACTIONS, split_by

    names = [name.strip() for name in args.by.split(",")]
    by = names[0] if len(names) == 1 else names
    return split_by(
        view, by, apart=args.apart, fractions=args.fractions or FRACTIONS, seed=args.seed
    )


def split(args: argparse.Namespace) -> int:
    """Divide the runs and write the split down."""
    from zoo.dataset.splits import split_where

    view = _view(args)
    if args.test:
        regions = {"test": args.test} | ({"val": args.val} if args.val else {})
        made = split_where(view, **regions)
    else:
        made = _make_split(args, view)
    made.save(args.out)
    if args.json:
        sizes = {name: len(runs) for name, runs in made.parts.items()}
        print_json({"hash": made.hash, "by": made.by, "runs": sizes, "file": args.out})
    else:
        print(
            f"{made}\nwritten to {args.out}; look for leakage: zoo audit STORE --split {args.out}"
        )
    return 0


def audit(args: argparse.Namespace) -> int:
    """Look for leakage; 2 if there is any."""
    import zoo
    from zoo.dataset.audit import audit as look
    from zoo.dataset.normalization import Normalization
    from zoo.dataset.splits import Split

    opened = zoo.open(args.store)
    if (args.train is None) != (args.test is None):
        problem = Problem("--train, --test", None, "give both or neither")
        raise SpecError([problem], "zoo audit")
    if args.train is not None:
        parts = {"train": opened.query(args.train), "test": opened.query(args.test)}
    else:
        view = opened.query(args.predicate)
        chosen = Split.load(args.split) if args.split else _make_split(args, view)
        parts = chosen.views(view)
    fitted = Normalization.load(args.normalization) if args.normalization else None
    report = look(parts, normalization=fitted, tolerance=args.tolerance)
    print_json(report.to_json()) if args.json else print(report)
    return 0 if report.clean else 2


def snapshot(args: argparse.Namespace) -> int:
    """Name the rows of a query, or list the names."""
    import zoo

    if args.name:
        taken = [_view(args).snapshot(args.name)]
    else:
        opened = zoo.open(args.store)
        taken = list(opened.snapshots())
        if args.verify:
            for known in taken:
                opened.snapshot(known.name, verify=True)
    if args.json:
        print_json([{"name": s.name, "hash": s.hash, "rows": s.rows} for s in taken])
    else:
        for s in taken:
            print(f"{s.name}  {plural(s.rows, 'row')}  sha256 {s.hash}")
        if not taken:
            print("no snapshots")
    return 0


def export(args: argparse.Namespace) -> int:
    """Write rows in another format."""
    from zoo.dataset.exports import EXPORTS
    from zoo.dataset.splits import Split

    if args.format == "list":
        formats = [{"format": name, "read by": EXPORTS[name].readers} for name in EXPORTS]
        from zoo.report import format_table

        print_json(formats) if args.json else print(format_table(formats))
        return 0
    form = EXPORTS[args.format]
    if args.out is None:
        raise SpecError([Problem("--out", None, "where to?", "a path")], "zoo export")
    view = _view(args)
    size = 4 * sum(
        len(part) * view.zoo.plan.cohort(name).params for name, part in view.by_cohort().items()
    )
    facts: dict[str, Any] = {"format": args.format, "rows": len(view), "weight_bytes": size}
    if not args.dry_run:
        chosen = Split.load(args.split) if args.split else None
        made = form.write(view, absolute(args.out), chosen)
        facts |= {"path": str(made.path), "files": made.files, "bytes": made.bytes}
    if args.json:
        print_json(facts)
    elif args.dry_run:
        print(f"{plural(len(view), 'row')}, {human_bytes(size)} of weights, to {args.out}")
    else:
        print(f"{made.path}: {plural(made.files, 'file')}, {human_bytes(made.bytes)}")
    return 0
