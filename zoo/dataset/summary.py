"""What a zoo and a view say about themselves: counts, what varies, how good the models are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset.any_view import AnyView, AnyZoo, V
from zoo.dataset.table import group_codes

__all__ = [
    "describe_view",
    "describe_zoo",
    "human_bytes",
    "known_values",
    "value_span",
    "view_line",
    "zoo_info",
    "zoo_line",
]

_SHOWN_VALUES = 6
_SHOWN_TEXT = 32


def zoo_info(zoo: AnyZoo) -> dict[str, Any]:
    """Return the contents of a zoo, JSON-ready; sizes in bytes, before compression."""
    plan = zoo.plan
    recorded = [int(table.recorded.sum()) for table in zoo.tables]
    runs = [run for cohort in plan.cohorts for run in cohort.runs]
    return {
        "name": plan.name,
        "path": None if zoo.path is None else str(zoo.path),
        "runs": plan.models,
        "status": zoo.status(),
        "checkpoints": {
            "recorded": sum(recorded),
            "planned": sum(c.models * c.checkpoints for c in plan.cohorts),
        },
        "weight_bytes": sum(n * 4 * c.params for n, c in zip(recorded, plan.cohorts, strict=True)),
        "axes": dict(plan.axes),
        "varies": {name: _distinct([getattr(r, name, None) for r in runs]) for name in zoo.varying},
        "record": plan.record.to_dict(),
        "data": {
            name: {k: v for k, v in facts.items() if k != "probe_indices"}
            for name, facts in plan.data.items()
        },
        "cohorts": [
            {
                "id": c.id,
                "key": dict(c.key),
                "models": c.models,
                "checkpoints": c.checkpoints,
                "params": c.params,
                "tasks": len(list(c.tasks())),
                "backend": c.backend,
                "recorded": n,
            }
            for n, c in zip(recorded, plan.cohorts, strict=True)
        ],
    }


def describe_zoo(zoo: AnyZoo, *, brief: bool = False) -> str:
    """Return the contents of a zoo as text.

    Args:
        zoo: the zoo.
        brief: leave out data sets and cohorts one by one.
    """
    info = zoo_info(zoo)
    points = info["checkpoints"]
    cohorts = info["cohorts"]
    status = ", ".join(f"{n:,} {state}" for state, n in info["status"].items() if n)
    where = f" at {info['path']}" if info["path"] else ""
    lines = [
        f"Zoo {info['name']!r}{where}",
        f"  runs         {info['runs']:,} ({status})" if status else "  runs         0",
        f"  checkpoints  {points['recorded']:,} of {points['planned']:,} recorded"
        f" ({human_bytes(info['weight_bytes'])} of weights)",
    ]
    if info["axes"]:
        shown = ", ".join(f"{axis} = {name}" for axis, name in info["axes"].items())
        lines.append(f"  axes         {shown}")
    if zoo.varying:
        spans = [f"{name} {value_span(values)}" for name, values in info["varies"].items()]
        lines.append("  varies       " + "; ".join(spans))
    if brief:
        sizes = _distinct([c["params"] for c in cohorts])
        lines.append(f"  cohorts      {len(cohorts)} ({value_span(sizes)} parameters)")
        return "\n".join(lines)
    for name, facts in info["data"].items():
        shown = ", ".join(
            f"{key} {str(value)[:_SHOWN_TEXT]}"
            for key, value in facts.items()
            if isinstance(value, str | int | float)
        )
        lines.append(f"  data         {name}: {shown}")
    for c, cohort in zip(cohorts, zoo.plan.cohorts, strict=True):
        shared = [f"{name} {cohort.key[name]}" for name in zoo.varying if name in cohort.key]
        lines.append(
            f"  cohort       {c['id']}: {c['models']} models x {c['checkpoints']} checkpoints x "
            f"{c['params']:,} parameters, {c['recorded']:,} recorded, {c['tasks']} "
            f"task{'s' if c['tasks'] != 1 else ''}, {c['backend']}"
            + (f" ({', '.join(shared)})" if shared else "")
        )
    return "\n".join(lines)


def zoo_line(zoo: AnyZoo) -> str:
    """Return one line on a zoo, for its ``repr``."""
    status = ", ".join(f"{n:,} {state}" for state, n in zoo.status().items() if n)
    recorded = sum(int(table.recorded.sum()) for table in zoo.tables)
    runs = f"{_counted(len(zoo), 'run')} ({status})" if status else "no runs"
    return f"<Zoo {zoo.name!r}: {runs}, {_counted(recorded, 'checkpoint')}>"


def view_line(view: AnyView) -> str:
    """Return one line on a view, for its ``repr``."""
    return f"<View of zoo {view.zoo.name!r}: {_view_size(view)}>"


def known_values(view: AnyView) -> str:
    """Return the values that there are in the columns that an empty view's query asked for.

    Empty where the query read no column.
    """
    if not any(table.recorded.any() for table in view.zoo.tables):
        return "no checkpoint is recorded yet"
    spans = []
    # from_end stands for a negative epoch, which every run has
    asked = [name for name in view.asked if name != "from_end"] or view.asked
    for name in asked:
        parts = [
            np.broadcast_to(column, table.recorded.shape)[table.recorded]
            for table in view.zoo.tables
            for column in table.broadcast([name]).values()
        ]
        values = np.unique(np.concatenate(parts)) if parts else np.empty(0)
        if len(values):
            spans.append(f"{name} {value_span(_plain(values))}")
    return f"recorded checkpoints have: {'; '.join(spans)}" if spans else ""


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _one_each(view: V) -> V:
    """Return one row of each run: enough for its columns, and integers are quicker than text."""
    return view.take(group_codes([view.cohort_index, view["row"]])[1])


def _view_size(view: AnyView) -> str:
    if not len(view):
        return "no checkpoints"
    runs, cohorts = len(_one_each(view)), len(view.cohorts)
    return (
        f"{_counted(len(view), 'checkpoint')} of {_counted(runs, 'run')} in"
        f" {_counted(cohorts, 'cohort')}"
    )


def describe_view(view: AnyView) -> str:
    """Return what a view holds as text: counts, what varies, metrics, what to do next."""
    lines = [f"View of zoo {view.zoo.name!r}: {_view_size(view)}"]
    if not len(view):
        known = known_values(view)
        return "\n".join([*lines, f"  {known}"] if known else lines)
    one_each = _one_each(view)
    columns = {name: one_each[name] for name in view.zoo.varying}
    varying = [name for name, values in columns.items() if len(np.unique(values)) > 1]
    if varying:
        spans = [f"{name} {value_span(_plain(columns[name]))}" for name in varying]
        lines.append("  varies         " + "; ".join(spans))
    lines.append(f"  epoch          {value_span(_plain(view['epoch']))}")
    for name in (view.zoo.headline(), "train_loss"):
        values = view[name]
        values = values[np.isfinite(values)]
        if len(values):
            low, mid, high = (float(f(values)) for f in (np.min, np.median, np.max))
            lines.append(f"  {name:<13}  {low:.4g} to {high:.4g}, median {mid:.4g}")
    layouts = view.layouts
    shape = f"[{len(view)}, {layouts[0].params}]"
    read = f".stacked_weights() {shape}" if len(layouts) == 1 else ".weights() by cohort"
    lines.append(f"  .table()  {read}  .model(i)  .trajectory(i)  .torch_dataset()")
    return "\n".join(lines)


def value_span(values: Sequence[Any]) -> str:
    """Return distinct values as short text: a list of a few, otherwise the range and the count."""
    distinct = _distinct(values)
    if len(distinct) <= _SHOWN_VALUES:
        return ", ".join(_short(v) for v in distinct)
    numbers = [v for v in distinct if isinstance(v, int | float) and not isinstance(v, bool)]
    if numbers:
        return f"{_short(min(numbers))} to {_short(max(numbers))} ({len(distinct)} values)"
    return (
        ", ".join(_short(v) for v in distinct[:_SHOWN_VALUES]) + f", ... ({len(distinct)} values)"
    )


def human_bytes(count: float) -> str:
    """Return a number of bytes with a decimal unit: ``"1.2 GB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _plain(values: NDArray[Any]) -> list[Any]:
    return [None if v != v else v for v in np.unique(values).tolist()]


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values, sorted, None first."""
    distinct = set(values)
    rest = sorted(v for v in distinct if v is not None)
    return [None, *rest] if None in distinct else rest


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
