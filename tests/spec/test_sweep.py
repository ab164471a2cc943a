"""Sweeps: the runs that a file means, and the way back to the file."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.errors import SpecError
from zoo.spec import RunSpec, Sweep, load_sweep, resolve_runs
from zoo.spec.catalogue import catalogue, field_infos
from zoo.spec.describe import field_table

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "sweeps").glob("*.toml"))
GUIDE = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")


def sweep(**tables):
    return Sweep(name="s", **tables)


def column(runs, *names):
    found = [tuple(getattr(run, name) for name in names) for run in runs]
    return [values[0] for values in found] if len(names) == 1 else found


# --- what a file means -----------------------------------------------------------------------


def test_a_grid_is_the_product_in_file_order():
    runs = sweep(grid={"width": [16, 32], "lr": [0.1, 0.2], "seed": {"range": [0, 2]}}).runs()
    expected = list(itertools.product([16, 32], [0.1, 0.2], [0, 1]))
    assert column(runs, "width", "lr", "seed") == expected


def test_a_sweep_without_axes_is_one_run():
    assert sweep(base={"width": 8}).runs() == (RunSpec(width=8),)


def test_zips_move_together_and_multiply_with_the_rest():
    runs = sweep(
        grid={"norm": ["none", "batch"]},
        zip=[{"width": [16, 32], "lr": [0.1, 0.2]}, {"batch_size": [32, 64]}],
    ).runs()
    expected = [
        (norm, width, lr, batch)
        for norm in ("none", "batch")
        for width, lr in ((16, 0.1), (32, 0.2))
        for batch in (32, 64)
    ]
    assert column(runs, "norm", "width", "lr", "batch_size") == expected


def test_spaced_axes():
    runs = sweep(grid={"lr": {"start": 1e-4, "stop": 1e-1, "num": 4, "scale": "log"}}).runs()
    assert column(runs, "lr") == [1e-4, 1e-3, 1e-2, 1e-1]
    runs = sweep(grid={"dropout": {"start": 0, "stop": 0.5, "num": 4}}).runs()
    assert column(runs, "dropout") == [0.0, 0.166667, 0.333333, 0.5]
    runs = sweep(grid={"width": {"start": 4, "stop": 64, "num": 5, "scale": "log"}}).runs()
    assert column(runs, "width") == [4, 8, 16, 32, 64]
    runs = sweep(grid={"width": {"start": 1, "stop": 4, "num": 9, "scale": "log"}}).runs()
    assert column(runs, "width") == [1, 2, 3, 4]  # rounded, and repeats dropped
    runs = sweep(grid={"lr": {"start": 1e-1, "stop": 1e-3, "num": 3, "scale": "log"}}).runs()
    assert column(runs, "lr") == [1e-1, 1e-2, 1e-3]
    assert column(sweep(grid={"epochs": {"range": [5, 20, 5]}}).runs(), "epochs") == [5, 10, 15]


def test_a_narrow_range_keeps_its_digits():
    axis = {"start": 0.9999, "stop": 0.99999, "num": 10}
    runs = sweep(base={"optimizer": "adam"}, grid={"beta2": axis}).runs()
    found = column(runs, "beta2")
    np.testing.assert_allclose(found, np.linspace(0.9999, 0.99999, 10), rtol=0, atol=1e-9)
    assert len(set(found)) == 10


def test_none_stands_for_no_value():
    runs = sweep(grid={"train_size": [100, "none"]}).runs()
    assert column(runs, "train_size") == [100, None]
    assert column(sweep(grid={"norm": ["none", "batch"]}).runs(), "norm") == ["none", "batch"]


def test_a_sample_draws_from_each_axis_within_its_bounds():
    runs = sweep(
        sample={
            "method": "lhs",
            "n": 50,
            "axes": {
                "lr": {"low": 1e-3, "high": 1.0, "scale": "log"},
                "dropout": {"low": 0, "high": 0.5},
                "width": {"low": 8, "high": 12},
                "batch_size": {"low": 16, "high": 256, "scale": "log"},
                "norm": {"choices": ["none", "layer"]},
            },
        }
    ).runs()
    assert len(runs) == 50
    lr = np.array(column(runs, "lr"))
    assert lr.min() >= 1e-3
    assert lr.max() <= 1
    # one value in each of 50 strata of the logarithm: uniform there
    strata = np.floor((np.log10(lr) + 3) / 3 * 50 + 1e-4).astype(int)
    assert len(set(strata.tolist())) >= 49
    assert {w: column(runs, "width").count(w) for w in range(8, 13)} == dict.fromkeys(
        range(8, 13), 10
    )
    assert column(runs, "norm").count("layer") == 25
    batch = column(runs, "batch_size")
    assert all(isinstance(b, int) and 16 <= b <= 256 for b in batch)
    assert 18 <= sum(b < 64 for b in batch) <= 32  # half of the logarithmic range


def test_a_sample_multiplies_with_a_grid_and_seeds_are_its_own():
    table = {"method": "random", "n": 3, "axes": {"lr": {"low": 0.1, "high": 1.0}}}
    runs = sweep(sample=table, grid={"seed": [0, 1]}).runs()
    assert column(runs, "seed") == [0, 1] * 3
    assert column(runs, "lr")[::2] == column(runs, "lr")[1::2]
    other = sweep(sample={**table, "seed": 1}, grid={"seed": [0, 1]}).runs()
    assert not set(column(runs, "lr")) & set(column(other, "lr"))


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_a_larger_sample_keeps_the_runs_that_there_are(method):
    def ids(n):
        axes = {"lr": {"low": 0.1, "high": 1.0}, "optimizer": {"choices": ["sgd", "adam"]}}
        when = [
            {
                "if": "optimizer == 'sgd'",
                "sample": {"axes": {"momentum": {"low": 0, "high": 0.9}}},
            }
        ]
        table = {"method": method, "n": n, "axes": axes}
        return [run.run_id for run in sweep(sample=table, when=when).runs()]

    assert ids(40)[:25] == ids(25)


def test_conditional_axes_apply_where_their_condition_holds():
    runs = sweep(
        grid={"optimizer": ["sgd", "adamw"], "seed": [0, 1]},
        when=[
            {"if": "optimizer == 'sgd'", "grid": {"momentum": [0.0, 0.9]}, "base": {"lr": 0.5}},
            {"if": "optimizer == 'adamw'", "base": {"lr": 0.001, "weight_decay": 0.01}},
            {"if": "momentum > 0", "base": {"nesterov": True}},
        ],
    ).runs()
    found = column(runs, "optimizer", "seed", "momentum", "lr", "weight_decay", "nesterov")
    assert found == [
        ("sgd", 0, 0.0, 0.5, 0.0, False),
        ("sgd", 0, 0.9, 0.5, 0.0, True),
        ("sgd", 1, 0.0, 0.5, 0.0, False),
        ("sgd", 1, 0.9, 0.5, 0.0, True),
        ("adamw", 0, None, 0.001, 0.01, None),
        ("adamw", 1, None, 0.001, 0.01, None),
    ]


def test_conditional_draws_belong_to_the_sample_point():
    runs = sweep(
        grid={"seed": [0, 1]},
        sample={
            "method": "sobol",
            "n": 16,
            "axes": {"optimizer": {"choices": ["sgd", "adam"]}},
        },
        when=[
            {
                "if": "optimizer == 'sgd'",
                "sample": {"axes": {"lr": {"low": 0.1, "high": 1.0, "scale": "log"}}},
            },
            {
                "if": "optimizer == 'adam'",
                "sample": {"axes": {"lr": {"low": 1e-4, "high": 1e-3, "scale": "log"}}},
            },
        ],
    ).runs()
    assert len(runs) == 32
    for run in runs:
        assert (0.1 <= run.lr <= 1.0) if run.optimizer == "sgd" else (1e-4 <= run.lr <= 1e-3)
    assert column(runs[::2], "lr") == column(runs[1::2], "lr")  # both seeds of a point
    assert len({run.lr for run in runs}) == 16


def test_exclusions_see_the_finished_run():
    found = sweep(
        grid={"norm": ["none", "batch"], "batch_size": [1, 32], "optimizer": ["sgd", "adam"]},
        exclude=["norm == 'batch' and batch_size == 1", "momentum is None and norm == 'none'"],
    )
    expected = [
        (norm, batch, optimizer)
        for norm in ("none", "batch")
        for batch in (1, 32)
        for optimizer in ("sgd", "adam")
        if not (norm == "batch" and batch == 1) and not (optimizer == "adam" and norm == "none")
    ]
    assert column(found.runs(), "norm", "batch_size", "optimizer") == expected
    assert found.excluded == 8 - len(expected)


def test_blocks_inherit_the_base_and_may_differ_from_it():
    runs = sweep(
        base={"width": 8, "lr": 0.5},
        block=[
            {"grid": {"seed": [0, 1]}},
            {"base": {"lr": 0.25, "norm": "batch"}},
            {"grid": {"width": [16, 32]}},
        ],
    ).runs()
    assert column(runs, "width", "lr", "norm", "seed") == [
        (8, 0.5, "none", 0),
        (8, 0.5, "none", 1),
        (8, 0.25, "batch", 0),
        (16, 0.5, "none", 0),
        (32, 0.5, "none", 0),
    ]


def test_equivalent_runs_collapse_in_order_and_are_counted():
    found = sweep(grid={"optimizer": ["adam", "sgd"], "momentum": [0.0, 0.5, 0.9]})
    assert column(found.runs(), "optimizer", "momentum") == [
        ("adam", None),
        ("sgd", 0.0),
        ("sgd", 0.5),
        ("sgd", 0.9),
    ]
    assert found.collapsed == 2
    blocks = sweep(block=[{"grid": {"width": [8, 16]}}, {"grid": {"width": [16, 32]}}])
    assert column(blocks.runs(), "width") == [8, 16, 32]
    assert blocks.collapsed == 1


def test_seed_sets_the_five_seeds_unless_one_is_given():
    runs = sweep(base={"init_seed": 7}, grid={"seed": [3, 4]}).runs()
    seeds = ("init_seed", "order_seed", "augment_seed", "dropout_seed", "noise_seed")
    assert column(runs, *seeds) == [(7, 3, 3, 3, 3), (7, 4, 4, 4, 4)]


def test_the_other_tables_are_kept():
    found = sweep(
        description="text",
        axes={"load": "width"},
        grid={"width": [8, 16]},
        record={"steps": [1, 10], "probe_size": 0},
        paths={"digits": "/somewhere"},
        run={"workers": 2, "backend": "eager", "task_models": 16},
    )
    assert found.axes == {"load": "width"}
    assert found.record.steps == (1, 10)
    assert found.paths == {"digits": "/somewhere"}
    assert found.options == {"workers": 2, "backend": "eager", "task_models": 16}


# --- there and back --------------------------------------------------------------------------

EVERYTHING = """
name = "everything"
description = "Every part of the format, with \\"quotes\\" and π."
axes = {load = "width", temperature = "batch_size"}
base = {epochs = 2, train_size = "none"}
record = {epochs = [0, 0.5, 2], probe_size = 16}
paths = {digits = "some where"}
run = {workers = 2}

[[block]]
base = {norm = "group"}
grid = {width = [8, 16], norm_groups = [2, "none"], seed = {range = [0, 4, 2]}}
zip = {batch_size = [16, 32], lr = [0.1, 0.2]}
exclude = ["width == 8 and seed == 2"]

[[block]]
grid = {weight_decay = {start = 1e-5, stop = 1e-3, num = 3, scale = "log"}}
zip = [{width = [3, 4], lr = [0.01, 0.02]}, {depth = [1, 2], dropout = [0.0, 0.1]}]

[[block]]
sample = {method = "sobol", n = 8, seed = 3, axes = {optimizer = {choices = ["sgd", "adam"]}, width = {low = 4, high = 9}}}
[[block.when]]
if = "optimizer == 'sgd'"
base = {nesterov = true}
grid = {momentum = [0.5, 0.9]}
sample = {axes = {lr = {low = 0.01, high = 0.1, scale = "log"}}}
"""  # noqa: E501


def test_every_part_survives_the_way_to_toml_and_back():
    first = Sweep.from_toml(EVERYTHING)
    again = Sweep.from_toml(first.to_toml())
    assert again == first
    assert again.runs() == first.runs()
    assert again.to_toml() == first.to_toml()
    assert Sweep.from_dict(first.to_dict()) == first
    assert Sweep(**first.to_dict()) == first
    assert first != Sweep.from_toml(EVERYTHING.replace("n = 8", "n = 9"))


_LISTS = {
    "width": st.integers(1, 512),
    "lr": st.floats(1e-6, 10),
    "norm": st.sampled_from(["none", "batch", "layer"]),
    "batch_size": st.integers(1, 64),
    "label_noise": st.floats(0, 1),
    "seed": st.integers(0, 2**32 - 1),
    "epochs": st.floats(0, 100),
}


@st.composite
def _grids(draw):
    names = draw(st.lists(st.sampled_from(sorted(_LISTS)), min_size=1, max_size=3, unique=True))
    return {n: draw(st.lists(_LISTS[n], min_size=1, max_size=4, unique=True)) for n in names}


@settings(max_examples=60, deadline=None)
@given(_grids())
def test_a_grid_has_the_size_of_its_product_and_unique_ids(grid):
    found = sweep(grid=grid)
    runs = found.runs()
    assert len(runs) == math.prod(len(values) for values in grid.values())
    assert len({run.run_id for run in runs}) == len(runs)
    assert column(runs, *grid) == [
        values[0] if len(grid) == 1 else values for values in itertools.product(*grid.values())
    ]
    assert Sweep.from_toml(found.to_toml()) == found
    assert Sweep.from_toml(found.to_toml()).runs() == runs


@settings(max_examples=60, deadline=None)
@given(_grids(), st.integers(1, 512), st.sampled_from(["none", "batch"]))
def test_an_exclusion_leaves_what_its_condition_does_not_hold_for(grid, width, norm):
    every = sweep(grid=grid).runs()
    wanted = tuple(run for run in every if not (run.width >= width or run.norm == norm))
    text = f"width >= {width} or norm == '{norm}'"
    if not wanted:
        with pytest.raises(SpecError, match="leaves none"):
            sweep(grid=grid, exclude=[text])
        return
    left = {name: {getattr(run, name) for run in wanted} for name in grid}
    if any(len(left[name]) == 1 < len(values) for name, values in grid.items()):
        with pytest.raises(SpecError, match="one and the same effect"):
            sweep(grid=grid, exclude=[text])
        return
    found = sweep(grid=grid, exclude=[text])
    assert found.runs() == wanted
    assert found.excluded == len(every) - len(wanted)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 5))
def test_a_zip_has_the_length_of_its_lists(data, length):
    names = data.draw(st.lists(st.sampled_from(sorted(_LISTS)), min_size=1, unique=True))
    group = {
        n: data.draw(st.lists(_LISTS[n], min_size=length, max_size=length, unique=n != "norm"))
        for n in names
        if n != "norm"
    } or {"width": list(range(1, length + 1))}
    found = sweep(zip=group)
    assert column(found.runs(), *group) == [
        values[0] if len(group) == 1 else values for values in zip(*group.values(), strict=True)
    ]
    assert Sweep.from_toml(found.to_toml()) == found


# --- identity --------------------------------------------------------------------------------


def test_a_norm_with_its_own_activation_decides_it():
    found = sweep(grid={"norm": ["batch", "evonorm_s0"], "activation": ["relu", "tanh"]})
    assert column(found.runs(), "norm", "activation") == [
        ("batch", "relu"), ("batch", "tanh"), ("evonorm_s0", "identity")
    ]  # fmt: skip
    assert found.collapsed == 1
    assert RunSpec.from_dict(found.runs()[2].to_dict()) == found.runs()[2]


def test_a_run_id_hangs_on_the_values_and_on_nothing_else():
    values = {"width": 32, "lr": 0.3, "norm": "batch", "seed": 4}
    turned = dict(reversed(values.items()))
    assert RunSpec(**values).run_id == RunSpec(**turned).run_id == RunSpec.from_dict(turned).run_id
    assert RunSpec(**values).run_id == RunSpec.from_dict(RunSpec(**values).to_dict()).run_id
    assert RunSpec(lr=1).run_id == RunSpec(lr=1.0).run_id == RunSpec(lr=np.float64(1)).run_id
    assert RunSpec(weight_decay=-0.0).run_id == RunSpec().run_id
    assert RunSpec(steps=10, epochs=3).run_id == RunSpec(steps=10).run_id
    assert RunSpec(dropout_seed=3).run_id == RunSpec().run_id
    assert RunSpec(dropout_seed=3, dropout=0.1).run_id != RunSpec(dropout=0.1).run_id
    assert re.fullmatch("[0-9a-f]{16}", RunSpec().run_id)


def test_resolution_counts_each_problem_once():
    runs = sweep(grid={"batch_size": [32, 4000], "seed": [0, 1, 2]}).runs()
    with pytest.raises(SpecError) as caught:
        resolve_runs(runs, {"digits": 1437}, source="x.toml")
    (problem,) = caught.value.problems
    assert str(problem).startswith("batch_size = 4000: more than one epoch (in 3 of 6 runs)")
    good = resolve_runs(runs[:3], {"digits": 1437})
    assert [run.steps for run in good] == [20 * (1437 // 32)] * 3


# --- what is shipped, and the guide ----------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_sweep_loads_and_survives_the_way_back(path):
    found = load_sweep(path)
    assert found.name == path.stem
    assert found.description
    assert len(found.runs()) >= 70
    again = Sweep.from_toml(found.to_toml())
    assert again == found
    assert again.runs() == found.runs()


def test_the_quickstart_is_a_real_zoo_and_small():
    found = load_sweep(ROOT / "sweeps" / "quickstart.toml")
    runs = resolve_runs(found.runs(), {"digits": 1437})
    assert len(runs) >= 300
    assert len(set(column(runs, "seed"))) >= 5
    checkpoints = {len(found.record.checkpoint_steps(r.steps, 1437 // r.batch_size)) for r in runs}
    assert min(checkpoints) >= 10
    assert sum(r.steps for r in runs) <= 200_000


def test_the_guide_is_in_step_with_the_fields():
    table = re.search(r"<!-- fields -->\n(.*?)<!-- /fields -->", GUIDE, re.DOTALL)
    assert table is not None
    hint = "put the output of zoo.spec.describe.field_table() between the two marks"
    assert table.group(1) == field_table(), hint


_BLOCKS = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("text", _BLOCKS, ids=lambda text: text.strip().splitlines()[0][:30])
def test_every_toml_block_of_the_guide_loads(text):
    if not re.search(r"^name =", text, re.MULTILINE):
        text = 'name = "guide"\n' + text
    assert Sweep.from_toml(text, source="docs/sweeps.md").runs()


def test_the_guide_has_examples_and_its_python_runs():
    assert len(_BLOCKS) >= 8
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert blocks
    for text in blocks:
        exec(compile(text, "docs/sweeps.md", "exec"), {})


def test_the_guide_names_what_is_registered():
    from zoo.registry import vocabulary

    names = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", GUIDE, re.MULTILINE))
    named = {n for n, info in field_infos().items() if info.kind == "str"}
    assert set(names) == named - set(catalogue().planned)
    for field, cell in names.items():
        registry = vocabulary(field)
        if registry is not None:
            assert set(re.findall(r"`(\w+)`", cell)) <= set(registry.names()), field
