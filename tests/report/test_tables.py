"""Text tables and group statistics."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from fabricated import make_store
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zoo.dataset import Zoo
from zoo.errors import QueryError
from zoo.report import format_table, group_table, json_rows

ROWS = [
    {"name": "a", "width": 8, "lr": 0.1, "acc": 0.91234, "flops": 1.5e12, "note": None},
    {"name": "bb|c", "width": 128, "lr": 0.001, "acc": math.nan, "flops": 2e9, "note": "x"},
]


def test_plain_table_aligns_numbers_right_and_text_left():
    assert format_table(ROWS).splitlines() == [
        "name  width     lr     acc    flops  note",
        "----  -----  -----  ------  -------  ----",
        "a         8  0.100  0.9123  1.5e+12  -",
        "bb|c    128  0.001       -    2e+09  x",
    ]


def test_markdown_table_escapes_bars():
    assert format_table(ROWS, ["name", "width"], style="markdown").splitlines() == [
        "| name | width |",
        "| :--- | ---: |",
        "| a | 8 |",
        "| bb\\|c | 128 |",
    ]


def test_a_value_is_never_a_line_or_a_command_of_the_terminal():
    rows = [{"x": "a\nb\x1b[31m\r", "b|c": "d|e"}]
    assert format_table(rows).splitlines()[2:] == ["a\\nb\\x1b[31m\\r  d|e"]
    assert format_table(rows, style="markdown").splitlines() == [
        "| x | b\\|c |",
        "| :--- | :--- |",
        "| a\\nb\\x1b[31m\\r | d\\|e |",
    ]


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.5, 0.25], ["0.50", "0.25"]),
        ([1.0, 2.0], ["1", "2"]),
        ([1e-5, 0.1], ["1e-05", "0.1"]),
        ([12345.678, 1.0], ["12346", "1"]),
        ([0.0, 0.0], ["0", "0"]),
        ([-0.5, math.inf], ["-0.5", "inf"]),
        ([math.nan, None], ["-", "-"]),
        ([True, False], ["True", "False"]),
        ([2**40, 3], ["1099511627776", "3"]),
        ([36391680.0, 1.0], ["3.639e+07", "1"]),
        ([2.302585, 0.01], ["2.303", "0.010"]),
        ([0.97222, 0.98611], ["0.9722", "0.9861"]),
    ],
)
def test_cells(values, cells):
    lines = format_table([{"x": v} for v in values]).splitlines()
    assert [line.strip() for line in lines[2:]] == cells


@settings(max_examples=200, deadline=None)
@example([0.03125])
@given(st.lists(st.floats(width=32) | st.none() | st.integers(-(2**40), 2**40), min_size=1))
def test_a_cell_reads_back_to_three_digits_of_the_largest(values):
    cells = [line.strip() for line in format_table([{"x": v} for v in values]).splitlines()[2:]]
    finite = [abs(v) for v in values if v is not None and math.isfinite(v)]
    for value, cell in zip(values, cells, strict=True):
        if value is None or math.isnan(value):
            assert cell == "-"
        elif math.isinf(value):
            assert float(cell) == value
        else:
            assert abs(float(cell) - value) <= 1e-3 * max(finite)


def test_limit_says_how_many_there_are():
    text = format_table([{"x": i} for i in range(9)], limit=2)
    assert text.splitlines()[-1] == "... 2 of 9 rows"
    assert len(text.splitlines()) == 5
    assert "of" not in format_table([{"x": i} for i in range(2)], limit=2)


def test_empty_tables_keep_their_head():
    zoo = Zoo(make_store())
    assert (
        format_table(zoo.query(width=999), ["run_id", "width"]).splitlines()[0] == "run_id  width"
    )
    assert json_rows(zoo.query(width=999)) == []
    assert format_table([], ["a"]).splitlines() == ["a", "-"]


def test_views_structured_arrays_and_dicts_give_the_same_table():
    view = Zoo(make_store(1)).query("epoch == -1")
    names = ["run_id", "width", "beta1", "epoch", "test_accuracy"]
    text = format_table(view, names)
    assert text == format_table(view.table(names))
    assert text == format_table(list(view), names)
    rows = json_rows(view, names)
    assert rows == json_rows(view.table(names))
    assert rows == [{k: r[k] for k in names} for r in view]
    json.dumps(rows, allow_nan=False)


def test_wrong_requests():
    with pytest.raises(ValueError, match="plain, markdown"):
        format_table(ROWS, style="html")
    with pytest.raises(KeyError, match="there are: name, width"):
        format_table(ROWS, ["nam"])
    view = Zoo(make_store()).query()
    with pytest.raises(QueryError, match="did you mean 'width'"):
        group_table(view, "widht")
    with pytest.raises(ValueError, match="is text"):
        group_table(view, "width", "norm")
    with pytest.raises(ValueError, match="at least one"):
        group_table(view, [])


@pytest.mark.parametrize("by", ["norm", ["width", "batch_size"], ["beta1", "lr", "status"]])
@pytest.mark.parametrize("value", ["test_accuracy", "grad_norm", "beta1"])
def test_groups_equal_those_of_pandas(by, value):
    view = Zoo(make_store(4, models=(20, 15))).query()
    ours = group_table(view, by, value)
    frame = pd.DataFrame.from_records(view.table())
    grouped = frame.astype({value: float}).groupby(by, dropna=False, sort=True)[value]
    theirs = grouped.agg(["count", "mean", "std", "min", "max"]).reset_index()
    assert len(ours) == len(theirs) > 1
    for name in [by] if isinstance(by, str) else by:
        np.testing.assert_array_equal(ours[name], theirs[name].to_numpy(dtype=ours[name].dtype))
    np.testing.assert_array_equal(ours["n"], theirs["count"])
    for name in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, atol=1e-15)
