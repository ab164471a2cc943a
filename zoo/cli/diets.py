"""``zoo score`` and ``zoo diets``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zoo.cli.data_option import given_data
from zoo.cli.show import plural, print_json
from zoo.errors import Problem, SpecError

if TYPE_CHECKING:
    from zoo.diets.demand import ScoringJob
    from zoo.train.plan import Plan

__all__ = ["add_score_arguments", "add_view_arguments", "diets", "score", "scoring_line"]

SCORE_EXAMPLES = """\
Without --scores this does what `zoo run` does before it trains: the scores that the diets of a
store need, and the choice of their examples; and what it does after training: the models on the
examples that they dropped. `zoo submit` makes the first a job that training waits for. With
--scores it scores more than that, for the record; nothing that is there changes.

examples:
  zoo score datasets_out/diet.zarr
  zoo score datasets_out/diet.zarr --scores el2n,grand,forgetting --epochs 1,5,10 --seeds 10
  zoo score datasets_out/diet.zarr --scores grand --epochs 0 --allow-init --scorer width=16
"""

DIETS_EXAMPLES = """\
examples:
  zoo diets datasets_out/diet.zarr
  zoo diets datasets_out/diet.zarr --plot keep.png --page examples.png --score el2n --epoch 5
"""


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        msg = f"{text!r} is not a list of numbers with commas between them"
        raise argparse.ArgumentTypeError(msg) from None


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``zoo score`` takes besides the store."""
    parser.add_argument("--scores", type=_names, metavar="A,B", help="score more than diets need")
    parser.add_argument("--epochs", type=_numbers, metavar="E,F", help="at these epochs")
    parser.add_argument("--seeds", type=int, default=10, metavar="S", help="models (default 10)")
    parser.add_argument("--scorer", metavar="FIELDS", help="what the models change: width=16")
    parser.add_argument(
        "--allow-init", action="store_true", help="allow scores of untrained networks (epoch 0)"
    )
    parser.add_argument("--workers", "-j", type=int, metavar="N", help="processes (default: cores)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and end")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``zoo diets`` takes besides the store."""
    parser.add_argument(
        "--plot", metavar="FILE", help="draw accuracy against keep, a line per rule"
    )
    parser.add_argument("--page", metavar="FILE", help="draw the easiest and hardest examples")
    parser.add_argument("--score", metavar="NAME", help="score of the page (default: el2n)")
    parser.add_argument("--epoch", type=float, metavar="E", help="its epoch (default: the last)")


def score(args: argparse.Namespace) -> int:
    """Run the scoring stage of a store."""
    from zoo.launch.diets import measure_diets
    from zoo.launch.progress import reporter
    from zoo.launch.stages import run_stage
    from zoo.stages.score import OWN, SCORING, extra_settings, jobs_of
    from zoo.store import StageFolder, read_plan, task_states

    plan = read_plan(args.store)
    settings = OWN if not args.scores else extra_settings(_extra_jobs(args, plan))
    jobs = jobs_of(plan, settings)
    done = len(StageFolder(args.store, SCORING.name, settings).parts_done())
    if args.dry_run:
        facts = {"store": args.store, "jobs": [_facts(job) for job in jobs], "parts_done": done}
        if args.json:
            print_json(facts)
        else:
            print(f"Would score for {args.store}; {plural(done, 'part')} done:")
            print("\n".join(f"  {scoring_line(job)}" for job in jobs) or "  nothing")
        return 0
    progress = None if args.quiet else reporter(sys.stderr)
    options: dict[str, Any] = {
        "workers": args.workers,
        "progress": progress,
        "paths": given_data(args),
    }
    summary = run_stage(args.store, SCORING.name, settings, **options)
    if not args.scores and all(state.sealed for state in task_states(args.store)):
        measure_diets(args.store, plan, **options)
    if args.json:
        print_json({**summary.to_json(), "jobs": [_facts(job) for job in jobs]})
    else:
        print(f"{args.store}: {plural(summary.done, 'part')} of {summary.parts} done")
        for job in jobs:
            print(f"  {scoring_line(job)}")
        for failed in summary.failures:
            print(f"  failed: {failed.task.key}: {failed.reason}")
    return 0 if summary.published else 2


def _extra_jobs(args: argparse.Namespace, plan: Plan) -> Sequence[ScoringJob]:
    """Return jobs for every different scorer of the store's runs."""
    from zoo.diets.demand import make_job
    from zoo.spec.diet import INIT_REASON

    problems = []
    if not args.epochs:
        problems.append(Problem("epochs", None, "is missing", "numbers", "give --epochs 1,5,10"))
    elif 0.0 in args.epochs and not args.allow_init:
        problems.append(Problem("epochs", 0, INIT_REASON, "> 0", "or give --allow-init"))
    if args.seeds < 1:
        problems.append(Problem("seeds", args.seeds, "not a number of models", ">= 1"))
    if problems:
        raise SpecError(problems, "score")
    found = {}
    for cohort in plan.cohorts:
        examples = int(plan.data[plan.data_key(cohort.runs[0])]["train_examples"])
        for run in cohort.runs:
            wanted = (args.scores, args.epochs, args.seeds)
            for job in make_job(run, examples, *wanted, scorer=args.scorer):
                found[job.id] = job
    return tuple(found.values())


def _facts(job: ScoringJob) -> dict[str, Any]:
    raw = job.to_json()
    return {"id": job.id, "table": f"scores-{job.id}", "parts": job.blocks, **raw}


def scoring_line(job: ScoringJob) -> str:
    """Return a scoring job in one line."""
    at = ", ".join(f"{epoch:g}" for epoch in job.epochs)
    how = " on random subsets" if job.subsets else ""
    noise = f", label noise {job.scorer.label_noise:g}" if job.scorer.label_noise else ""
    what = f"{job.scorer.architecture} of width {job.scorer.width} on {job.scorer.data}{noise}"
    models = plural(job.seeds, "model")
    return f"{job.id}: {models} ({what}){how}, {', '.join(job.scores)} at epochs {at}"


def diets(args: argparse.Namespace) -> int:
    """Show what was scored, how far scores agree, and how accurate the diets are."""
    import zoo
    from zoo.report.diet_accuracy import accuracy_by_keep, pooled_by_diet
    from zoo.report.pooling import unfinished
    from zoo.report.score_tables import score_report

    given = given_data(args)
    opened = zoo.open(args.store, paths=given)
    tables = score_report(args.store, paths=given)
    cells = accuracy_by_keep(opened)
    lost = unfinished(opened.query("epoch == -1"))
    smallest = _smallest(opened)
    if args.json:
        rows = [{name: getattr(cell, name) for name in cell.__slots__} for cell in cells]
        print_json(_plain({"tables": tables, "accuracy": rows, "smallest_class": smallest}))
    else:
        _print_tables(tables)
        _print_accuracy(cells, opened.headline(), smallest, pooled_by_diet(opened), lost)
    _draw(opened, args)
    return 0


def _plain(value: Any) -> Any:
    """Return a value with None for what is no number in JSON."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


def _smallest(opened: Any) -> dict[str, int]:
    """Return rule and size -> the fewest examples of a class that any of its runs keeps."""
    from zoo.report.diet_accuracy import rule_name

    if "kept_smallest_class" not in opened.column_info:
        return {}
    view = opened.query("step == 0")
    pairs = zip(
        view.column("run_id").tolist(), view.column("kept_smallest_class").tolist(), strict=True
    )
    out: dict[str, int] = {}
    for run_id, count in pairs:
        run = opened.run(run_id).spec
        if run.keep is not None and count == count:
            name = f"{rule_name(run)}, keep {run.keep:g}"
            out[name] = min(out.get(name, int(count)), int(count))
    return out


def _print_tables(tables: list[dict[str, Any]]) -> None:
    from zoo.report import format_table

    if not tables:
        print("no scores of models; `zoo score STORE --scores el2n --epochs 5` makes some")
    for table in tables:
        spec = table["scorer"]
        what = f"{spec['architecture']} of width {spec['width']} on {spec['data']}"
        noise = f", label noise {spec['label_noise']:g}" if spec["label_noise"] else ""
        print(f"{table['table']}: {plural(table['models'], 'model')}, {what}{noise}")
        if table["accuracy"]:
            accuracy = zip(table["epochs"], table["accuracy"], strict=True)
            shown = ", ".join(f"{a:.3f} at epoch {e:g}" for e, a in accuracy)
            print(f"  accuracy on the training set: {shown}")
        print("  rank correlations (Spearman) of seeds, with the last epoch and the input norm:")
        print(format_table(table["scores"], limit=60))
        between = [
            {"epoch": b["epoch"], "scores": " ~ ".join(b["scores"]), "spearman": b["spearman"]}
            for b in table["between"]
        ]
        if between:
            print("  between scores:")
            print(format_table(between, limit=60))
        print()


def _print_accuracy(
    cells: Sequence[Any],
    value: str,
    smallest: dict[str, int],
    pooled: dict[str, list[Any]],
    lost: dict[str, int],
) -> None:
    from zoo.diets.keep import FEW
    from zoo.report import format_table
    from zoo.report.pooling import pooled_words

    rows = [
        {
            "label_noise": cell.label_noise,
            **({"other fields": cell.rest} if any(c.rest for c in cells) else {}),
            "rule": cell.rule,
            "keep": cell.keep,
            "runs": len(cell.values),
            value: cell.mean,
            "half of 95 % CI": cell.half,
        }
        for cell in cells
    ]
    over = pooled_words(pooled) or "one run"
    print(f"{value.replace('_', ' ')} of each run's last checkpoint, mean over {over}:")
    print(format_table(rows, limit=200))
    if lost:
        states = ", ".join(f"{count:,} {state}" for state, count in lost.items())
        print(f"not trained to the end: {states}; they count with their last recorded checkpoint")
    few = {name: count for name, count in smallest.items() if count < FEW}
    if few:
        print(f"\nfewer than {FEW} examples of a class are kept by:")
        for name, count in few.items():
            print(f"  {name}: {count}")


def _draw(opened: Any, args: argparse.Namespace) -> None:
    from zoo.errors import QueryError, ZooError
    from zoo.report.diet_accuracy import keep_plot
    from zoo.report.example_page import example_page
    from zoo.report.picture_file import check_picture

    for path in filter(None, (args.plot, args.page)):
        check_picture(path)
    written = []
    try:
        if args.plot:
            written.append(keep_plot(opened, args.plot))
        if args.page:
            page = example_page(
                args.store, args.page, score=args.score, epoch=args.epoch, paths=opened.given
            )
            written.append(page)
    except ValueError as error:
        if isinstance(error, ZooError):
            raise
        msg = f"cannot draw: {error}"
        raise QueryError(msg) from error
    for file in written if not args.json else ():
        print(f"picture: {file}")
