"""``zoo landscape``: measure the loss landscape of a trained store's models and cells."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from zoo.cli.data_option import given_data
from zoo.cli.show import plural, print_json
from zoo.errors import Problem, SpecError

if TYPE_CHECKING:
    from zoo.launch.stages import StageSummary

__all__ = ["EXAMPLES", "add_arguments", "landscape"]

EXAMPLES = """\
Adds columns of models, and tables of cells and pairs, to a store that is trained to its end; the
weights are never touched. Safe to interrupt and to repeat: the same command resumes, and what was
computed for another choice of metrics or checkpoints is taken over. See docs/landscape.md.

examples:
  zoo landscape z.zarr
  zoo landscape z.zarr --metrics curvature,similarity --checkpoints log --workers 4
  zoo landscape z.zarr --set connectivity.min_steps=800 --set probes.train=2048
  zoo landscape z.zarr --dry-run
  zoo query z.zarr "epoch == -1 and lambda_max < 20" --columns run_id,lambda_max,hessian_trace
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "--metrics", "-m", metavar="A,B",
        help="which metrics (default: all but the costly spectrum); 'list' names them",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoints", choices=("last", "log", "all"), default="last",
        help="each run's last checkpoint (default), about ten spread by their logarithm, or all",
    )  # fmt: skip
    parser.add_argument(
        "--set", metavar="METRIC.OPTION=VALUE", action="append", default=[],
        help="an option of a metric, or probes.train, probes.test, probes.mixup (numbers of "
        "examples); may be given again; --metrics list shows the options",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and end")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")


def landscape(args: argparse.Namespace) -> int:
    """Run the stage, or say what it would do."""
    from zoo.launch.progress import reporter
    from zoo.launch.stages import run_stage
    from zoo.stages.landscape_settings import NAME, landscape_settings
    from zoo.store import read_plan

    if args.metrics == "list":
        from zoo.cli.list import names

        return names(argparse.Namespace(kind="metric", json=args.json))
    if args.store is None:
        fix = "`zoo landscape --metrics list` needs none"
        raise SpecError([Problem("STORE", None, "is missing", "a store", fix)], "landscape")
    chosen = None if args.metrics is None else [n.strip() for n in args.metrics.split(",")]
    options = _options(args.set)
    settings = landscape_settings(
        chosen,
        checkpoints=args.checkpoints,
        probes=options.pop("probes", {}),
        options=options,
        plan=read_plan(args.store),
    )
    if args.dry_run:
        return _dry_run(args, settings)
    progress = None if args.quiet else reporter(sys.stderr)
    summary = run_stage(
        args.store,
        NAME,
        settings,
        workers=args.workers,
        progress=progress,
        paths=given_data(args),
    )
    if args.json:
        print_json(summary.to_json())
    else:
        _print_summary(args.store, summary)
    return 0 if summary.published else 2


def _options(given: list[str]) -> dict[str, dict[str, Any]]:
    """Return ``{metric: {option: value}}``; what the names and values mean is checked later."""
    found: dict[str, dict[str, Any]] = {}
    problems = []
    for text in given:
        place, _, value = text.partition("=")
        metric, _, option = place.partition(".")
        try:
            read = json.loads(value)
        except ValueError:
            read = None
        if read is None or not metric or not option:
            allowed = "METRIC.OPTION=VALUE, the value a number or a list of them"
            fix = "as in --set connectivity.min_steps=800"
            problems.append(Problem("--set", text, "cannot be read", allowed, fix))
        else:
            found.setdefault(metric.strip(), {})[option.strip()] = read
    if problems:
        raise SpecError(problems, "landscape")
    return found


def _dry_run(args: argparse.Namespace, settings: dict[str, Any]) -> int:
    from zoo.stages.landscape import LANDSCAPE
    from zoo.stages.landscape_settings import NAME
    from zoo.store import StageFolder

    folder = StageFolder(args.store, NAME, settings)
    parts = LANDSCAPE.parts(folder.paths.root, settings)
    done = folder.parts_done()
    left = [part for part in parts if part.key not in done]
    facts = {
        "store": str(args.store),
        "metrics": settings["metrics"],
        "checkpoints": settings["checkpoints"],
        "parts": len(parts),
        "parts_to_do": len(left),
        "measurements_to_do": sum(part.models for part in left),
        "teraflop": sum(part.cost for part in left) * settings["probes"]["train"] / 1e12,
    }
    if args.json:
        print_json(facts)
        return 0
    print(f"Would measure {', '.join(settings['metrics'])} in {args.store}:")
    print(f"  parts  {len(left):,} to do of {len(parts):,}")
    print(
        f"  values of {facts['measurements_to_do']:,} models, all metrics and checkpoints counted"
    )
    print(f"  about  {facts['teraflop']:.3g} TFLOP")
    return 0


def _print_summary(store: str, summary: StageSummary) -> None:
    from zoo.launch.progress import duration

    if summary.computed:
        print(f"Measured {plural(summary.computed, 'part')} in {duration(summary.seconds)}.")
    elif summary.published:
        print("Nothing to do: every value is there.")
    print(f"{store}: {summary.done:,} of {plural(summary.parts, 'part')} done")
    for failed in summary.failures:
        print(f"  failed: part {failed.task.key}: {failed.reason}")
    if summary.stopped:
        print("Stopped before the end; the same command resumes.")
    elif not summary.published:
        print("Not complete; the same command retries what is missing.")
