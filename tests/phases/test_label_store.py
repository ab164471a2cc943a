"""Labels in a store: versions, inherited columns, queries, and nothing else touched."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

import zoo
from zoo.cli import main
from zoo.errors import StoreError, UnknownNameError
from zoo.phases import INPUTS, label_store, read_labels, store_cells, thresholds
from zoo.store import (
    TableColumn,
    content_hash,
    publish_table,
    read_derived,
    read_plan,
    read_table,
    table_names,
    verify_store,
)

#: What the cells of the made-up table say, in order; the last two have fewer numbers.
NUMBERS = [
    (0.5, 20.0, -8.0, 0.3), (0.5, 20.0, 3.0, 0.3), (0.001, 0.0, -4.0, 0.6), (0.001, 0.0, 0.0, 0.5),
    (0.001, 0.0, 0.0, 0.52), (0.001, 0.0, 0.0, 0.9), (0.001, 0.0, 0.0, 0.92),
    (0.001, 0.0, 0.0, math.nan),
]  # fmt: skip
EXPECTED = ["I", "II", "III", "IV-A", "IV-A", "IV-B", "IV-B", "undetermined"]
SEEDS = 3


def publish_cells(path, *, name="v1", shift=0.0):
    """Publish made-up tables of cells and pairs, three runs per cell; return the members."""
    plan = read_plan(path)
    ids = [i for cohort in plan.cohorts for i in cohort.run_ids]
    n = len(NUMBERS)
    members = np.array(ids[: n * SEEDS]).reshape(n, SEEDS)
    loss, error, mc, cka = (np.array(column) for column in zip(*NUMBERS, strict=True))
    cell = np.array([f"c{i}" for i in range(n)])
    numbers = {"train_loss": loss, "train_error": error, "lambda_max": loss * 10,
               "hessian_trace": loss * 90, "mode_connectivity": mc + shift, "cka": cka}  # fmt: skip
    columns = {
        "cell": cell, "cohort": np.full(n, plan.cohorts[0].id),
        "load": np.array([str(2 ** (i % 4)) for i in range(n)]),
        "temperature": np.array([str(2 ** (i // 4)) for i in range(n)]),
        "models": np.full(n, SEEDS), "finite_models": np.full(n, SEEDS),
        "collapsed_models": np.zeros(n, np.int64), "chance_loss": np.full(n, math.log(10)),
        **numbers, **{f"{k}_se": np.full(n, 0.01) for k in numbers},
    }  # fmt: skip
    table = {k: TableColumn(("cell",), v, k) for k, v in columns.items()}
    table["members"] = TableColumn(("cell", "member"), members, "run ids")
    publish_table(path, f"cells-{name}", table, {"load": "width", "temperature": "batch_size"})
    ends = list(itertools.combinations(range(SEEDS), 2))
    pairs = {
        "cell": np.repeat(cell, len(ends)),
        "a": members[:, [a for a, _ in ends]].ravel(),
        "b": members[:, [b for _, b in ends]].ravel(),
        "mode_connectivity": np.repeat(mc + shift, len(ends)),
        "cka": np.repeat(cka, len(ends)),
    }
    publish_table(
        path, f"pairs-{name}", {k: TableColumn(("pair",), v, k) for k, v in pairs.items()}, {}
    )
    return members


@pytest.fixture
def tame(monkeypatch):
    """The made-up store trains to random losses: no model of it counts as collapsed or diverged."""
    import zoo.phases.from_store as module

    read = module._models

    def healthy(reader, judged):
        fine = {"train_loss": 0.001, "train_error": 0.0, "bad": 0.0}
        return {i: {**found, **fine} for i, found in read(reader, judged).items()}

    monkeypatch.setattr(module, "_models", healthy)


@pytest.mark.usefixtures("tame")
def test_labels_are_published_and_change_nothing_else(full):
    members = publish_cells(full)
    before = content_hash(full)
    found = label_store(full)
    assert found.table == "phases-v1"
    assert (found.new, found.version) == (True, 1)
    assert found.labels.phases.tolist() == EXPECTED
    assert content_hash(full) == before
    assert verify_store(full).problems == ()
    columns, facts = read_labels(full)
    assert columns["phase"].tolist() == EXPECTED
    assert facts["thresholds"]["setting"] == "zoo"
    assert facts["tables"] == ["cells-v1", "pairs-v1"]
    assert set(INPUTS) | {f"{k}_se" for k in INPUTS} <= set(columns)
    np.testing.assert_array_equal(columns["members"], members)
    assert columns["cka_cut"][0] == pytest.approx(0.71)
    assert columns["candidates"][-1] == "IV-A|IV-B"
    # every model has what its cell has
    phase_of = {i: p for row, p in zip(members, EXPECTED, strict=True) for i in row}
    for cohort in read_plan(full).cohorts:
        wanted = [phase_of.get(i, "undetermined") for i in cohort.run_ids]
        assert read_derived(full, cohort.id, "phase").tolist() == wanted
        assert read_derived(full, cohort.id, "phase_v1").tolist() == wanted
        sure = read_derived(full, cohort.id, "phase_confidence")
        assert ((sure >= 0) == (np.array(wanted) != "undetermined")).all()


@pytest.mark.usefixtures("tame")
def test_queries_know_phases(full, capsys):
    members = publish_cells(full)
    label_store(full, thresholds("zoo", {"boundary": 50.0}))  # above some of the margins
    z = zoo.open(full)
    found = z.runs("phase == 'IV-A'", columns=["run_id", "phase", "phase_boundary"])
    assert sorted(found["run_id"]) == sorted(members[3:5].ravel())
    near, margin = (z.runs(columns=["phase_boundary", "phase_margin"])[k] for k in
                    ("phase_boundary", "phase_margin"))  # fmt: skip
    sure = np.isfinite(margin)
    np.testing.assert_array_equal(near[sure], margin[sure] < 50)
    assert np.isnan(near[np.isnan(margin)]).all()
    wanted = {"== True": near == 1, "== False": near == 0, "is None": np.isnan(near)}
    for condition, there in wanted.items():
        assert len(z.runs(f"phase_boundary {condition}")) == there.sum() > 0, condition
    words = ["--columns", "run_id,phase_boundary", "--json"]
    assert main(["query", str(full), "phase_boundary is None", *words]) == 0
    assert {row["phase_boundary"] for row in json.loads(capsys.readouterr().out)} == {None}
    assert main(["query", str(full), "phase == 'IV-A' and epoch == -1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    recorded = {r["run_id"] for r in rows}
    assert recorded <= set(members[3:5].ravel().tolist())
    assert len(z.query("phase in ['IV-A', 'IV-B'] and phase_confidence >= 0")) > 0


@pytest.mark.usefixtures("tame")
def test_versions_stay(full):
    publish_cells(full)
    first = label_store(full)
    again = label_store(full)
    assert (again.table, again.new) == ("phases-v1", False)
    other = label_store(full, thresholds("zoo", {"cka": 0.3, "connected": 6.0}))
    assert (other.table, other.new) == ("phases-v2", True)
    assert other.labels.phases.tolist() == ["I", "II", "IV-B", *["IV-B"] * 4, "undetermined"]
    cohort = read_plan(full).cohorts[0].id
    assert read_derived(full, cohort, "phase")[9] == "IV-B"
    assert read_derived(full, cohort, "phase_v1")[9] == "IV-A"
    assert read_table(full, "phases-v1")[0]["phase"].tolist() == EXPECTED
    assert len(zoo.open(full).runs("phase != phase_v1", columns=["run_id"])) == 3 * SEEDS
    # more metrics make the next version; the old thresholds bring the old labels back
    publish_cells(full, name="v2", shift=-3.0)
    third = label_store(full)
    assert (third.table, third.new) == ("phases-v3", True)
    assert third.labels.phases.tolist()[3] == "III"
    assert read_labels(full)[1]["table"] == "phases-v3"
    label_store(full, first.labels.limits)
    assert set(table_names(full)) >= {"phases-v1", "phases-v2", "phases-v3"}
    with pytest.raises(UnknownNameError, match="phases-v1"):
        read_labels(full, "phases-v9")


def test_models_that_diverged_or_collapsed_make_a_cell_x(full, monkeypatch):
    import zoo.phases.from_store as module

    members = publish_cells(full)
    plan = read_plan(full)
    found = store_cells(full)
    diverged = {c.run_ids[r] for c in plan.cohorts for r in (2, 7)}
    for row, sample in zip(members, found.cells.samples, strict=True):
        for run_id, bad in zip(row, sample.bad, strict=True):
            assert bad or run_id not in diverged
    read = module._models
    monkeypatch.setattr(
        module, "_models",
        lambda r, j: {k: {**v, "train_loss": 2.2, "bad": 0.0} for k, v in read(r, j).items()},
    )  # fmt: skip
    assert set(label_store(full).labels.phases) == {"X"}
    # with a wider limit none of them is
    assert store_cells(full, collapse=1.0).cells.bad_share.tolist() == [0.0] * len(NUMBERS)


def test_stores_without_cells_or_labels(full, capsys):
    with pytest.raises(StoreError, match="zoo landscape"):
        label_store(full)
    with pytest.raises(StoreError, match="zoo label"):
        read_labels(full)
    assert main(["label", str(full)]) == 1
    assert "run `zoo landscape" in capsys.readouterr().err


@pytest.mark.usefixtures("tame")
def test_the_command(full, capsys):
    publish_cells(full)
    assert main(["label", str(full), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "nothing was written" in out
    assert "batch_size \\ width" in out
    assert "phases-v1" not in table_names(full)
    assert main(["label", str(full), "-t", "cka=0.3", "--hard", "train_loss"]) == 0
    assert "published as phases-v1 (new)" in capsys.readouterr().out
    assert main(["label", str(full), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["table"] == "phases-v2"
    assert [c["phase"] for c in facts["cells"]] == EXPECTED
    assert facts["confidence_from"] == "seeds"
