"""Plug-ins are loaded whole or not at all, and their content is part of what uses them."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

import zoo
from zoo.architectures import ACTIVATIONS, ARCHITECTURES
from zoo.cli.main import main
from zoo.errors import DataError, PluginMissingError, RegistryError, SpecError
from zoo.objectives import OBJECTIVES
from zoo.plugins import load_installed, load_plugin, loaded_plugins, reload_recorded, unload_plugin
from zoo.registry import vocabularies
from zoo.spec import RunSpec, Sweep
from zoo.spec.plugged import plugin_hash
from zoo.store import read_plan

SCALED = """
@plugin.activation("scaled_relu", symmetry="scale")
def scaled(x):
    "A relu, scaled."
    return {factor} * torch.relu(x)
"""
TABLES = {
    "name": "own",
    "base": {"data": "digits", "width": 4, "steps": 3, "train_size": 64, "batch_size": 16,
             "activation": "scaled_relu"},
    "grid": {"seed": [0, 1]},
    "record": {"steps": [3], "probe_size": 4},
}  # fmt: skip


def resolved(**fields):
    sweep = Sweep.from_dict({**TABLES, "base": {**TABLES["base"], **fields}})
    return zoo.plan(sweep).cohorts[0].runs[0]


def test_content_and_not_the_path_is_part_of_the_identity(plugged, tmp_path):
    first = plugged(SCALED.format(factor=2))
    run = resolved()
    assert run.plugin_sha256 == first.sha256
    assert resolved(activation="relu").plugin_sha256 is None
    unload_plugin(first.path)
    moved = shutil.copy(first.path, tmp_path / "elsewhere.py")
    load_plugin(moved)
    assert resolved().run_id == run.run_id
    unload_plugin(moved)
    plugged(SCALED.format(factor=3))
    assert resolved().run_id != run.run_id


def test_runs_without_plugins_keep_their_ids(plugged):
    ids = [run.run_id for run in zoo.plan(Sweep.from_dict(
        {**TABLES, "base": {**TABLES["base"], "activation": "relu"}})).cohorts[0].runs]  # fmt: skip
    plugged(SCALED.format(factor=2))
    assert ids == [run.run_id for run in zoo.plan(Sweep.from_dict(
        {**TABLES, "base": {**TABLES["base"], "activation": "relu"}})).cohorts[0].runs]  # fmt: skip


def test_two_plugins_of_one_run_have_a_hash_of_both(plugged):
    first = plugged(SCALED.format(factor=2), "a.py")
    second = plugged(
        """
        @plugin.objective("own_loss")
        def own_loss(outputs, targets):
            "Cross-entropy, by hand."
            return nn.functional.cross_entropy(outputs, targets, reduction="none")
        """,
        "b.py",
    )
    run = RunSpec(activation="scaled_relu", objective="own_loss")
    assert plugin_hash(run) not in {first.sha256, second.sha256, None}
    assert plugin_hash(RunSpec(objective="own_loss")) == second.sha256


def test_a_file_that_changed_takes_the_place_of_what_it_was(plugged):
    plugged(SCALED.format(factor=2))
    plugged(SCALED.format(factor=5))
    import torch

    assert float(ACTIVATIONS["scaled_relu"].value(torch.ones(()))) == 5
    assert len([p for p in loaded_plugins() if p.path.name == "own.py"]) == 1


def test_loading_twice_and_a_copy_change_nothing(plugged, tmp_path):
    first = plugged(SCALED.format(factor=2))
    assert load_plugin(first.path) == first
    assert load_plugin(shutil.copy(first.path, tmp_path / "copy.py")) == first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1 +", r"line 7: SyntaxError"),
        ("\nraise KeyError('gone')", r"line 8: KeyError: 'gone'"),
        ('@plugin.activation("relu")\ndef f(x): return x', "'relu' is registered twice"),
        ('@plugin.activation("odd")\ndef f(x): return x.flatten()', "keep the shape"),
        ('@plugin.activation("odd")\ndef f(x): return x - x.mean()', "element by element"),
        (
            '@plugin.architecture("odd")\nclass N(nn.Module):\n'
            "    def __init__(self, outputs, rows): ...",
            "argument 'rows' needs a default",
        ),
        (
            '@plugin.architecture("odd")\nclass N(nn.Module):\n'
            "    def __init__(self, outputs, lr: float = 0.1): ...",
            "'lr' is a field that differs from model to model",
        ),
        (
            '@plugin.architecture("odd")\nclass N(nn.Module):\n'
            "    def __init__(self, outputs, rows=()): ...",
            "a field is int, float, str or bool",
        ),
        (
            '@plugin.architecture("odd")\nclass N(nn.Module):\n'
            "    def __init__(self, outputs, status: int = 1): ...",
            "'status'",
        ),
        ('@plugin.objective("odd", takes=("words",))\ndef f(z, y): ...', "allowed: class"),
        ('@plugin.objective("odd")\ndef f(z, y, how: str = "x"): ...', "must be a number"),
        ('@plugin.optimizer("odd")\ndef f(p, g, moments): ...', "takes no lr"),
        ('@plugin.data("odd")\ndef f(path): ...', "argument 'path' needs a default"),
        ('@plugin.score("odd", of="dreams")\ndef f(z, y): ...', "'models', 'data'"),
        ('@plugin.metric("odd", columns={"nc1": "mine"})\ndef f(m): ...', "'nc1' is taken"),
        ('@plugin.phase_rule("odd", phases=())\ndef f(c): ...', "give different names"),
    ],
)
def test_a_plugin_that_fails_leaves_nothing(plugged, text, said):
    before = {name: registry.names() for name, registry in vocabularies().items()}
    fine = '@plugin.activation("fine")\ndef fine(x): return x\n'
    with pytest.raises(RegistryError, match=said) as error:
        plugged(f"{fine}{text}")
    assert "own.py" in str(error.value)
    assert {name: registry.names() for name, registry in vocabularies().items()} == before
    assert not [name for name in sys.modules if name.startswith("zoo_plugin_")]


@pytest.mark.parametrize(
    ("name", "said"),
    [("gone.py", "No such file"), ("notes.txt", "not a Python file"), (".", "__init__.py")],
)
def test_what_is_no_plugin_is_refused(tmp_path, name, said):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RegistryError, match=said):
        load_plugin(tmp_path / name)


def test_an_entry_is_not_registered_outside_a_plugin():
    with pytest.raises(RegistryError, match=r"give --plugin FILE, or call zoo.load_plugin"):
        zoo.plugin.activation("loose")


def test_a_folder_is_one_plugin(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("from . import parts\n")
    (folder / "parts.py").write_text("from zoo import plugin\n" + SCALED.format(factor=2)
                                     .replace("torch.relu(x)", "x.relu()"))  # fmt: skip
    found = load_plugin(folder)
    assert ACTIVATIONS.about("scaled_relu").plugin == found.sha256
    (folder / "parts.py").write_text((folder / "parts.py").read_text() + "\n# more\n")
    assert load_plugin(folder).sha256 != found.sha256


def test_an_installed_package_brings_entries(tmp_path, monkeypatch):
    (tmp_path / "zoo_of_mine.py").write_text(
        "from zoo import plugin\n" + SCALED.format(factor=2).replace("torch.relu(x)", "x.relu()")
    )
    info = tmp_path / "zoo_of_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-of-mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[phasezoo.plugins]\nmine = zoo_of_mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("zoo.plugins._INSTALLED", [])
    load_installed()
    assert ACTIVATIONS.about("scaled_relu").plugin == loaded_plugins()[-1].sha256


def test_a_worker_refuses_a_file_that_has_changed(plugged):
    found = plugged(SCALED.format(factor=2))
    reload_recorded({str(found.path): found.sha256})
    with pytest.raises(RegistryError, match="was changed while"):
        reload_recorded({str(found.path): "0" * 64})


@pytest.fixture
def store(plugged, tmp_path):
    """A small store of a plug-in's runs."""
    plugged(SCALED.format(factor=2))
    (tmp_path / "own.toml").write_text(Sweep.from_dict(TABLES).to_toml())
    assert zoo.run(str(tmp_path / "own.toml"), tmp_path / "own.zarr", workers=0).complete
    return tmp_path / "own.zarr"


def test_a_store_is_not_extended_by_other_content_under_the_same_name(store, plugged, tmp_path):
    plan = read_plan(store)
    (sha256,) = plan.plugins
    assert plan.plugins[sha256] == str(tmp_path / "own.py")
    plugged(SCALED.format(factor=3))
    with pytest.raises(DataError, match=r"put the original back .*own.py") as error:
        zoo.run(str(tmp_path / "own.toml"), store, workers=0)
    assert sha256 in str(error.value)
    plugged(SCALED.format(factor=2))
    assert zoo.run(str(tmp_path / "own.toml"), store, workers=0).complete
    assert len(zoo.open(store)) == 2


def test_a_store_opens_without_its_plugin(store, capsys, tmp_path):
    unload_plugin(tmp_path / "own.py")
    opened = zoo.open(store)
    view = opened.query("activation == 'scaled_relu' and epoch == -1")
    assert len(view) == 2
    rows = view.weights()
    assert rows.shape == (2, opened.plan.cohorts[0].params)
    assert opened.info()
    with pytest.raises(PluginMissingError, match=rf"give --plugin {tmp_path}/own.py"):
        view.model(0)
    for verb in ("query", "info", "status", "verify", "report"):
        assert main([verb, str(store)]) == 0, capsys.readouterr()
    capsys.readouterr()
    assert main(["landscape", str(store), "--workers", "0"]) == 1
    assert f"--plugin {tmp_path}/own.py" in capsys.readouterr().err
    load_plugin(tmp_path / "own.py")
    assert view.model(0)


def test_another_content_is_not_taken_for_a_trained_models(store, plugged):
    plugged(SCALED.format(factor=3))
    with pytest.raises(PluginMissingError, match="other content than the run was planned with"):
        zoo.open(store).query().model(0)


def test_one_file_adds_an_entry_of_any_kind(page_plugin):
    """Nothing but the plug-in's own file is edited, and every list of names has its entries."""
    kinds = vocabularies()
    for kind, name in (
        ("architecture", "my_resnet"), ("norm", "my_scale"), ("activation", "my_squareplus"),
        ("objective", "my_focal"), ("optimizer", "my_signum"), ("data", "my_stripes"),
        ("augmentation", "my_dark"), ("score", "my_doubt"),
    ):  # fmt: skip
        assert kinds[kind].about(name).plugin == page_plugin.sha256
        assert kinds[kind].about(name).doc


@pytest.mark.parametrize("kind", ["architecture", "objective", "optimizer", "metric", "rule"])
def test_zoo_list_has_them(page_plugin, capsys, kind):
    assert main(["list", kind, "--plugin", str(page_plugin.path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    own = [row for row in rows if row["name"].startswith("my_")]
    assert own
    assert all(row["what"] for row in own)


def test_bounds_of_declared_fields_are_checked(plugged):
    plugged(
        """
        @plugin.architecture("bounded", fields=[
            plugin.Field("rows", "int", 2, "rows", low=1, per="cohort")])
        class Bounded(nn.Linear):
            def __init__(self, example_shape, outputs, rows: int = 2):
                super().__init__(4, outputs)
        """
    )
    with pytest.raises(SpecError, match=r"rows = 0.*>= 1"):
        RunSpec(architecture="bounded", rows=0)
    assert RunSpec(architecture="bounded").rows == 2
    assert ARCHITECTURES.about("bounded").fields["rows"].doc == "rows"


def test_the_registry_of_objectives_is_as_before(page_plugin):
    assert "my_focal" in OBJECTIVES
    unload_plugin(page_plugin.path)
    assert "my_focal" not in OBJECTIVES
    load_plugin(page_plugin.path)
