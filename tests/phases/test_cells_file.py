"""Cells from a CSV file: units, missing numbers, and the stand-in for the published grid."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from synthetic import grid, write

from zoo.cli import main
from zoo.errors import SpecError
from zoo.phases import SETTINGS, label, read_cells, settle_units, thresholds
from zoo.phases.thresholds import AGREEMENT


def agreement(path, drawn, **said):
    """Return the share of cells that get the drawn label with the published thresholds."""
    found = read_cells(path, units=said)
    return float((label(found.cells, SETTINGS["published"], draws=1).phases == drawn).mean())


def test_the_stand_in_has_the_published_arrangement():
    drawn, columns = grid()
    assert len(drawn) == 169
    counts = {name: int((drawn == name).sum()) for name in np.unique(drawn)}
    assert set(counts) == {"I", "II", "III", "IV-A", "IV-B"}
    at = {(w, b): p for w, b, p in zip(columns["load"], columns["temperature"], drawn, strict=True)}
    assert (at[2, 512], at[128, 16], at[8, 512]) == ("I", "II", "III")
    assert (at[128, 1024], at[128, 64]) == ("IV-A", "IV-B")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
def test_the_stand_in_is_labelled_as_drawn(tmp_path, seed, noise):
    drawn, columns = grid(seed, noise)
    share = agreement(write(tmp_path / "grid.csv", columns), drawn)
    assert share == 1.0 if noise == 0.0 else share >= 0.85
    # shuffled labels do not agree: the share means something
    assert (np.random.default_rng(seed).permutation(drawn) == drawn).mean() < 0.5


def test_units_are_found_out_and_change_nothing(tmp_path):
    drawn, c = grid(1, 0.05)
    whole = agreement(write(tmp_path / "a.csv", c), drawn)
    other = write(
        tmp_path / "b.csv",
        c,
        train_error=c["train_error"] / 100,
        mode_connectivity=c["mode_connectivity"] / 100,
        lambda_max=np.log(c["lambda_max"]) - 3,
        trace=np.log(c["trace"]),
    )
    found = read_cells(other)
    assert {n: u.unit for n, u in found.units.items()} == {
        "train_error": "fraction", "mode_connectivity": "fraction", "lambda_max": "log",
        "trace": "plain", "cka": "softmax",
    }  # fmt: skip
    assert agreement(other, drawn) == whole
    np.testing.assert_allclose(found.cells.value("train_error"), c["train_error"], rtol=1e-12)
    again = read_cells(other, units={"trace": "log"})
    np.testing.assert_allclose(again.cells.value("trace"), c["trace"], rtol=1e-12)
    assert again.units["trace"].why == "as you say"


def test_the_next_hardness_test_stands_in(tmp_path):
    drawn, c = grid(2, 0.02)
    for left in ({"train_loss"}, {"train_loss", "train_error"}, {"train_loss", "trace"}):
        path = write(tmp_path / "a.csv", c, **dict.fromkeys(left))
        assert agreement(path, drawn) >= 0.85
    gone = c["train_loss"].copy()
    gone[::3] = math.nan
    found = read_cells(write(tmp_path / "b.csv", c, train_loss=gone))
    labels = label(found.cells, SETTINGS["published"])
    assert (labels.phases == drawn).mean() >= 0.85
    assert set(labels.decision.hard_by[::3]) == {"train_error"}
    assert set(labels.decision.hard_by[1::3]) == {"train_loss"}


@pytest.mark.parametrize(
    ("loss", "error", "unit"),
    [
        ([1.0, 0.1], [40.0, 2.0], "percent"),
        ([1.0, 0.1], [0.4, 0.02], "fraction"),
        ([0.02, 0.001], [0.5, 0.0], "percent"),  # half the examples wrong costs 0.35 nats at least
        ([0.5, 0.001], [0.6, 0.0], "fraction"),
        ([0.01, 0.001], [0.0, 0.0], "percent"),
        (None, [0.4, 0.02], "fraction"),
        (None, [1.4, 0.02], "percent"),
    ],
)
def test_percent_or_fraction(loss, error, unit):
    columns = {"train_error": np.array(error)}
    if loss is not None:
        columns["train_loss"] = np.array(loss)
    choice = settle_units(columns, {})["train_error"]
    assert (choice.column, choice.unit) == ("train_error", unit)
    assert str(choice).startswith(f"train_error: read as {unit}, ")


def test_connectivity_follows_what_proves_more():
    small, large = np.array([-0.4, 0.02]), np.array([-30.0, 0.5])
    percent, fraction = np.array([60.0, 0.0]), np.array([0.6, 0.0])

    def unit(mc, error=None, said=None):
        columns = {"mode_connectivity": mc} | ({} if error is None else {"train_error": error})
        return settle_units(columns, said or {})["mode_connectivity"].unit

    assert unit(large) == unit(large, fraction) == "percent"
    assert unit(small) == unit(small, percent) == "percent"
    assert unit(small, fraction) == "fraction"
    assert unit(small, percent, {"mode_connectivity": "fraction"}) == "fraction"


def test_similarities_of_logits_have_their_own_cut(tmp_path, capsys):
    drawn, c = grid(0, 0.02)
    path = write(tmp_path / "a.csv", c, cka=np.where(c["cka"] > 0.5, c["cka"] + 0.11, 0.6))
    assert main(["label", "--cells", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["units"]["cka"]["unit"] == "logits"
    assert facts["thresholds"]["cka"] == 0.82
    assert np.mean([r["phase"] == d for r, d in zip(facts["cells"], drawn, strict=True)]) >= 0.85
    named = write(tmp_path / "b.csv", {**c, "cka_logits": c["cka"]}, cka=None)
    assert read_cells(named).units["cka"].unit == "logits"


def test_missing_numbers_of_any_spelling(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "Load;Temperature;train_loss;mode_connectivity;CKA;note\n2;16;0,5;-3;0.4;a\n".replace(
            "0,5", "0.5"
        )
        + "4;16;nan;NaN;;b\n8;16;inf;NA;-;c\n16;16;0.001;0.1;None;d\n32;16;0.001;0.1;0.8;e\n"
    )
    found = read_cells(path)
    assert found.ignored == ("note",)
    labels = label(found.cells, SETTINGS["published"])
    assert labels.phases.tolist() == ["I", "undetermined", "X", "undetermined", "IV-B"]
    assert labels.decision.candidates[3] == "IV-A|IV-B"
    assert found.cells.load.tolist() == ["2", "4", "8", "16", "32"]


def test_standard_errors_and_classes_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "load,temperature,train_loss,train_loss_se,train_error,train_error_se,"
        "mode_connectivity,mode_connectivity_se,cka,cka_se,classes\n"
        "2,16,0.03,0.01,0.02,0.001,-0.03,0.005,0.4,0.01,10\n"
        "4,16,0.65,0.01,0.3,0.001,-0.03,0.005,0.4,0.01,2\n"
    )
    found = read_cells(path)
    assert found.cells.error("train_error")[0] == pytest.approx(0.1)
    assert found.cells.error("mode_connectivity")[0] == pytest.approx(0.5)
    labels = label(found.cells, SETTINGS["published"])
    assert labels.phases.tolist() == ["I", "X"]
    assert labels.decision.margin[0] == pytest.approx(2.0)
    assert labels.confidence_from == "standard errors"
    plain = path.read_text().replace(",classes", "").replace(",10\n", "\n").replace(",2\n", "\n")
    path.write_text(plain)
    assert label(read_cells(path).cells, SETTINGS["published"]).phases[1] == "I"
    assert label(read_cells(path, classes=2).cells, SETTINGS["published"]).phases[1] == "X"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("load,temperatur,cka\n1,2,3\n", "temperature: no such column; rename 'temperatur'"),
        ("load,temperature,loss\n1,2,3\n", "no column that the rule reads"),
        ("load,temperature,train_loss\n1,2,x\n1,2,y\n", "2 problems"),
        ("load,temperature,train_loss\n1,2\n", "line 2"),
        ("load,temperature,train_loss\n", "no rows"),
        ("", "no rows"),
        ("load,temperature,cka,cka\n1,2,3,4\n", "is there twice"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        read_cells(path)


def test_bad_units_and_paths(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        read_cells(tmp_path / "none.csv")
    with pytest.raises(SpecError, match="percent, fraction"):
        settle_units({}, {"train_error": "permille"})


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def grid_csv(tmp_path):
    drawn, columns = grid(0, 0.02)
    return write(tmp_path / "grid.csv", columns), drawn


def test_the_command_prints_a_diagram_and_says_what_it_took(grid_csv, capsys):
    path, _ = grid_csv
    assert main(["label", "--cells", str(path)]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("temperature \\ load"))
    assert lines[head].split()[3:] == ["2", "3", "4", "6", "8", "11", "16", "23", "32", "45", "64",
                                       "91", "128"]  # fmt: skip
    assert "II" in lines[head + 2]
    assert "train_error: read as percent" in out
    assert "train_loss   0.01 " in out
    assert "arXiv 2107.11228" in out


def test_csv_and_json_keep_the_order_of_the_file(grid_csv, capsys):
    path, drawn = grid_csv
    assert main(["label", "--cells", str(path), "--csv"]) == 0
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    assert "note: cka: read as softmax" in captured.err
    given = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [r["load"] for r in rows] == [r["load"] for r in given]
    assert np.mean([r["phase"] == d for r, d in zip(rows, drawn, strict=True)]) >= 0.85
    assert main(["label", "--cells", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [r["phase"] for r in facts["cells"]] == [r["phase"] for r in rows]
    assert facts["counts"]["X"] == 0


def test_a_boundary_is_unknown_where_no_error_is_known(tmp_path, capsys):
    drawn, c = grid(0, 0.02)
    known = np.arange(len(drawn)) % 2 == 0
    errors = {"train_loss": 0.001, "mode_connectivity": 0.3, "cka": 0.01}
    columns = {f"{name}_se": np.where(known, value, math.nan) for name, value in errors.items()}
    path = write(tmp_path / "grid.csv", {**c, **columns})
    assert main(["label", "--cells", str(path), "--json"]) == 0
    near = [row["boundary"] for row in json.loads(capsys.readouterr().out)["cells"]]
    assert {type(b) for b, k in zip(near, known, strict=True) if k} == {bool}
    assert {b for b, k in zip(near, known, strict=True) if not k} == {None}
    assert main(["label", "--cells", str(path), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["boundary"] for row in rows] == ["" if b is None else str(b) for b in near]
    assert main(["label", "--cells", str(path)]) == 0
    out = capsys.readouterr().out
    count, unknown = near.count(True), near.count(None)
    assert f"{count} on a boundary (marked ~); {unknown} with an unknown margin" in out
    diagram = out.partition("cells:")[0]
    assert diagram.count("~") == count > 0


def test_the_command_prints_how_far_each_setting_agrees_with_the_grid(grid_csv, capsys):
    path, _ = grid_csv
    for setting in ("published", "zoo"):
        assert main(["label", "--cells", str(path), "--setting", setting]) == 0
        out = capsys.readouterr().out
        for name, percent in AGREEMENT.items():
            assert f"{percent:g} % by {name!r}" in out


def test_options_reach_the_rule(grid_csv, capsys):
    path, _ = grid_csv

    def counts(*words):
        assert main(["label", "--cells", str(path), "--json", *words]) == 0
        return json.loads(capsys.readouterr().out)["counts"]

    plain = counts()
    assert counts("-t", "cka=2")["IV-B"] == 0
    assert counts("--threshold", "connected=1000")["III"] == 0
    assert counts("-t", "train_loss=1e9")["I"] == 0
    assert counts("--hard", "trace") != plain
    assert counts("-t", "cka=data")["IV-B"] > 0
    assert counts("--setting", "zoo", "-t", "cka=0.71") != plain
    assert counts("--connectivity-unit", "fraction")["III"] >= plain["III"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "neither is given"),
        (("a.zarr", "--cells", "b.csv"), "both are given"),
        (("--cells", "b.csv", "--draws", "0"), ">= 1"),
        (("--cells", "GRID", "-t", "cka"), "NAME=NUMBER"),
        (("--cells", "GRID", "-t", "ck=1"), "did you mean 'cka'"),
        (("--cells", "GRID", "--hard", "los"), "unknown test"),
        (("--cells", "GRID", "--setting", "mine"), "zoo"),
    ],
)
def test_bad_command_lines(grid_csv, capsys, words, message):
    path, _ = grid_csv
    code = main(["label", *[str(path) if w == "GRID" else w for w in words]])
    assert code == 1
    assert message in capsys.readouterr().err


def test_thresholds_of_the_other_setting_are_not_the_published_ones():
    assert thresholds("zoo").cka is None
    assert SETTINGS["published"].cka == 0.71


def test_cells_that_the_diagram_hides_are_counted(tmp_path, capsys):
    path = tmp_path / "cells.csv"
    rows = ["load,temperature,train_loss", "1,8,0.5", "1,8,0.001", "2,8,0.5"]
    path.write_text("\n".join(rows) + "\n")
    assert main(["label", "--cells", str(path)]) == 0
    assert "(cells that others at the same point hide: 1)" in capsys.readouterr().out
    path.write_text("\n".join(rows[:2] + rows[3:]) + "\n")
    assert main(["label", "--cells", str(path)]) == 0
    assert "hide" not in capsys.readouterr().out
