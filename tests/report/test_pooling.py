"""What tables and pictures pool over is said, and a diet is never mixed with its baseline."""

from __future__ import annotations

import numpy as np
import pytest
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan

from zoo.cli import main
from zoo.dataset import Zoo
from zoo.errors import QueryError
from zoo.report import accuracy_plot, pooled_fields
from zoo.report.diet_accuracy import accuracy_by_keep, keep_plot, pooled_by_diet
from zoo.report.grid import choose_axes, make_axis, panel_groups, panels, pooled_in
from zoo.report.pooling import pooled_words, split_order, unfinished
from zoo.spec.run import RunSpec


def zoo_of(specs, *, axes=None, accuracy=None, lost=0):
    """Return a zoo in memory; every cohort's first ``lost`` runs diverge after a checkpoint."""
    rng = np.random.default_rng(0)
    groups: dict[tuple, list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.width, spec.norm, spec.optimizer), []).append(spec)
    cohorts = []
    for group in groups.values():
        cohort = make_cohort(group)
        recorded = np.ones((cohort.models, cohort.checkpoints), bool)
        recorded[:lost, 1:] = False
        shown = None if accuracy is None else np.array([[accuracy(s)] for s in group])
        cohorts.append(MemoryCohort(cohort, recorded, rng, accuracy=shown))
    return Zoo(MemoryStore(make_plan(tuple(c.cohort for c in cohorts), axes=axes), cohorts))


def grid(**values):
    """Return the runs of a grid over the given fields, epochs = 3."""
    specs = [{}]
    for name, options in values.items():
        specs = [{**spec, name: option} for spec in specs for option in options]
    return [RunSpec(epochs=3, **spec) for spec in specs]


DIET = {"score": "el2n", "keep": 0.5, "score_epoch": 5}
DIETS = [
    RunSpec(epochs=3, lr=lr, seed=seed, **diet)
    for lr in (0.1, 0.2)
    for seed in range(2)
    for diet in (
        {},
        {"score": "random", "keep": 0.5},
        {**DIET, "select": "hardest"},
        {**DIET, "select": "easiest"},
    )
]


def test_a_group_pools_over_what_differs_within_it_and_nothing_else():
    zoo = zoo_of(grid(width=[4, 8], norm=["none", "batch"], lr=[0.1, 0.2], seed=[0, 1, 2]))
    view = zoo.query("epoch == -1")
    assert pooled_fields(view, ["width"]) == {
        "norm": ["batch", "none"], "lr": [0.1, 0.2], "seed": [0, 1, 2],
    }  # fmt: skip
    assert pooled_fields(view, ["width", "norm", "lr"]) == {"seed": [0, 1, 2]}
    assert pooled_fields(view, ["width", "norm", "lr", "seed"]) == {}
    assert pooled_fields(zoo.query("epoch == -1 and norm == 'batch'"), ["width"]) == {
        "lr": [0.1, 0.2], "seed": [0, 1, 2],
    }  # fmt: skip
    with pytest.raises(QueryError, match="did you mean 'width'"):
        pooled_fields(view, ["widht"])


def test_what_follows_from_a_shown_or_listed_field_is_not_named():
    specs = [
        RunSpec(epochs=3, seed=seed, **fields)
        for seed in range(2)
        for fields in (
            {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9},
            {"optimizer": "muon", "lr": 0.01, "momentum": 0.95},
        )
    ]
    view = zoo_of(specs).query("epoch == -1")
    assert list(pooled_fields(view, ["width"])) == ["optimizer", "seed"]
    assert list(pooled_fields(view, ["optimizer"])) == ["seed"]


def test_a_field_that_is_off_or_has_one_value_varies():
    zoo = zoo_of([*grid(clip_norm=[0.3], seed=[0, 1]), *grid(seed=[0, 1])])
    assert zoo.varying == ("clip_norm", "seed")
    found = pooled_fields(zoo.query("epoch == -1"), ["width"])
    assert found == {"clip_norm": [0.3, None], "seed": [0, 1]}
    assert pooled_words(found) == "clip_norm (none, 0.3) and 2 seeds"
    # momentum is there or not as the optimizer says
    zoo = zoo_of([*grid(optimizer=["adam"]), *grid(optimizer=["sgd"], momentum=[0.9])])
    assert zoo.varying == ("optimizer",)


def test_words():
    assert pooled_words({}) == ""
    assert pooled_words({"seed": [0, 1]}) == "2 seeds"
    assert pooled_words({"norm": ["batch", "none"], "lr": [0.1], "noise_seed": [0, 1]}) == (
        "norm (batch, none), lr (0.1) and noise_seed (0, 1)"
    )


def test_runs_that_did_not_end_well_are_counted_by_runs():
    zoo = zoo_of(grid(width=[4, 8], seed=[0, 1, 2]), lost=1)
    assert unfinished(zoo.query()) == {"diverged": 2}
    assert unfinished(zoo.query("width == 4 and seed > 0")) == {}


def test_fields_of_diets_split_first():
    zoo = zoo_of(DIETS)
    assert choose_axes(zoo, "keep", "lr") == ("keep", "lr", ("score", "select"))
    runs = zoo.runs(columns=["lr", "score", "select"])
    columns = {name: runs[name] for name in runs.dtype.names}
    assert split_order(columns, [], ["lr", "select", "score"]) == ["select", "score", "lr"]
    titles = [title for title, _ in panel_groups(runs, ["score", "select"])]
    assert titles == [
        "score = el2n, select = easiest", "score = el2n, select = hardest",
        "score = none, select = none", "score = random, select = none",
    ]  # fmt: skip


@pytest.mark.parametrize("temperature", ["lr", "score"])
def test_the_accuracy_picture_keeps_a_diet_and_its_baseline_apart(temperature):
    told = {"none": 0.9, "random": 0.5}
    zoo = zoo_of(DIETS, accuracy=lambda s: told.get(s.score, 0.1 if s.select == "easiest" else 0.3))
    _, _, split = choose_axes(zoo, "keep", temperature)
    x, y, maps = panels(zoo, "keep", temperature, split)
    for panel in maps:
        shown = panel.mean[np.isfinite(panel.mean)]
        assert all(any(np.isclose(v, a) for a in (0.1, 0.3, 0.5, 0.9)) for v in shown)
    assert "score" not in pooled_in(zoo, (x, y), split)
    assert "select" not in pooled_in(zoo, (x, y), split)


def test_cells_without_a_run_are_told_from_cells_without_a_value():
    zoo = zoo_of(DIETS, lost=99)
    _, _, maps = panels(zoo, "keep", "lr", ("score", "select"))
    (full,) = [m for m in maps if m.title.startswith("score = none")]
    assert full.planned.tolist() == [[0, 2], [0, 2]]
    assert np.isnan(full.mean).all()


def test_a_binned_axis_pools_over_what_is_in_a_bin():
    zoo = zoo_of(grid(lr=np.linspace(0.1, 1, 60).tolist(), width=[4]))
    axis = make_axis("lr", zoo.runs(columns=["lr"])["lr"])
    assert axis.edges is not None
    assert pooled_in(zoo, [axis], []) == {}
    zoo = zoo_of([RunSpec(epochs=3, lr=0.1 + i / 60, dropout=i / 100) for i in range(60)])
    axis = make_axis("lr", zoo.runs(columns=["lr"])["lr"])
    assert list(pooled_in(zoo, [axis], [])) == ["dropout"]


@pytest.mark.parametrize("temperature", ["lr", "score"])
def test_the_picture_says_what_it_pools(temperature, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    said = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: said.append(self.get_supxlabel()))
    zoo = zoo_of(DIETS, lost=1)
    accuracy_plot(zoo, tmp_path / "a.png", load="keep", temperature=temperature)
    text = " ".join(said[0].split())
    assert "Each cell: mean over 2 seeds, at the last checkpoint" in text
    # with score as the second axis, the learning rate has panels of its own
    pooled = "lr (0.1, 0.2) and 2 seeds" if temperature == "lr" else "2 seeds"
    assert f"Each curve: mean and 10-90 % over {pooled};" in text
    assert "blank: no run in the sweep" in text


def test_the_accuracy_of_diets_is_that_of_one_of_everything_else():
    told = {"none": 0.9, "random": 0.5}
    zoo = zoo_of(DIETS, accuracy=lambda s: told.get(s.score, 0.3) - 0.1 * (s.lr > 0.15))
    cells = accuracy_by_keep(zoo)
    found = {(c.rest, c.rule, c.keep): round(c.mean, 6) for c in cells}
    assert found == {
        (f"lr = {lr:g}", rule, keep): round(accuracy - 0.1 * (lr > 0.15), 6)
        for lr in (0.1, 0.2)
        for rule, keep, accuracy in (
            ("full", 1.0, 0.9), ("random", 0.5, 0.5), ("el2n@5 easiest", 0.5, 0.3),
            ("el2n@5 hardest", 0.5, 0.3),
        )
    }  # fmt: skip
    assert all(len(c.values) == 2 for c in cells)
    assert pooled_by_diet(zoo) == {"seed": [0, 1]}
    pooled = accuracy_by_keep(zoo, by=())
    assert {(c.rest, len(c.values)) for c in pooled} == {("", 4)}


def test_parameters_of_diets_are_in_the_name_of_the_rule():
    specs = [
        RunSpec(epochs=3, seed=seed, dynamic="infobatch", drop_share=share)
        for seed in (0, 1)
        for share in (0.3, 0.5)
    ]
    rules = {(c.rule, c.rest) for c in accuracy_by_keep(zoo_of(specs))}
    assert rules == {("infobatch drop_share 0.3", ""), ("infobatch drop_share 0.5", "")}


def test_the_picture_of_diets_has_a_panel_for_what_else_differs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    keep_plot(zoo_of(DIETS), tmp_path / "a.png")
    (figure,) = seen
    assert [a.get_title() for a in figure.axes] == ["lr = 0.1", "lr = 0.2"]
    assert len({a.get_ylim() for a in figure.axes}) == 1
    assert "over 2 seeds;" in figure.get_supxlabel()
    # more learning rates than panels: they are pooled, and the picture says so
    many = [RunSpec(epochs=3, lr=0.01 * i, score="random", keep=0.5) for i in range(1, 9)]
    keep_plot(zoo_of(many), tmp_path / "a.png")
    assert len(seen[1].axes) == 1
    assert "over lr (0.01 to 0.08 (8 values))" in seen[1].get_supxlabel()


def test_the_report_says_what_it_pools(tmp_path, capsys):
    sweep = tmp_path / "a.toml"
    sweep.write_text(
        'name = "a"\n[base]\ndata = "digits"\ntrain_size = 64\nepochs = 1\narchitecture = "mlp"\n'
        '[grid]\nwidth = [2, 4]\nnorm = ["none", "layer"]\nlr = [0.1, 0.2]\n'
        "seed = {range = [0, 2]}\n[record]\nprobe_size = 0\n"
    )
    store = str(tmp_path / "a.zarr")
    assert main(["run", str(sweep), "--out", store, "--workers", "0", "-q"]) == 0
    capsys.readouterr()
    assert main(["report", store, "--by", "width"]) == 0
    text = capsys.readouterr().out
    assert "pooled over: norm (layer, none), lr (0.1, 0.2) and 2 seeds\n" in text
    # following the advice leaves nothing but seeds
    advice = text.split("--by ")[1].split("\n")[0]
    assert main(["report", store, "--by", advice]) == 0
    assert "pooled over: 2 seeds\n" in capsys.readouterr().out
    assert main(["report", store, "--by", f"{advice},seed"]) == 0
    assert "pooled" not in capsys.readouterr().out
    assert main(["report", store, "--by", "width", "--json"]) == 0
    assert '"pooled": {' in capsys.readouterr().out
