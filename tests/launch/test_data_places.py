"""Where data is: an option or argument says so, then a variable, then the store's memory."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from own_files import RANK_TEXT, sweep_of, write_data

import zoo
from zoo.cli import main
from zoo.data.places import chosen_paths, variable
from zoo.errors import DataError, MissingDataError, SpecError
from zoo.launch.local import run
from zoo.launch.reproduce import reproduce
from zoo.launch.stages import run_stage
from zoo.stages.landscape_settings import landscape_settings
from zoo.stages.plan import prepare_store
from zoo.store import data_paths, read_plan


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained store on scores of a file, whose data is then gone, and where both really are."""
    lab = tmp_path_factory.mktemp("lab")
    write_data(lab / "w.npz", 0)
    (lab / "s.txt").write_text(RANK_TEXT)
    paths = {"npz:wells": str(lab / "w.npz"), "file:s.txt": str(lab / "s.txt")}
    sweep = sweep_of(paths=paths, score="file:s.txt", keep=0.5)
    assert run(sweep, lab / "z.zarr", workers=0, backend="eager").complete
    home = tmp_path_factory.mktemp("home")
    for name in ("w.npz", "s.txt"):
        shutil.move(lab / name, home / name)
    return lab / "z.zarr", home


@pytest.fixture
def store(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "z.zarr")
    return tmp_path / "z.zarr"


@pytest.fixture
def here(made):
    return str(made[1] / "w.npz")


def run_id(store):
    return read_plan(store).cohorts[0].run_ids[0]


def test_the_order(monkeypatch, tmp_path):
    remembered, given = {"npz:wells": "/store/w.npz"}, {"npz:wells": "/given/w.npz"}
    assert chosen_paths(remembered) == remembered
    monkeypatch.setenv("ZOO_DATA_NPZ_WELLS", "/variable/w.npz")
    assert chosen_paths(remembered) == {"npz:wells": "/variable/w.npz"}
    assert chosen_paths({}, names=["npz:wells"]) == {"npz:wells": "/variable/w.npz"}
    assert chosen_paths(remembered, given) == given
    monkeypatch.chdir(tmp_path)
    assert chosen_paths({}, {"npz:a": "a.npz"}) == {"npz:a": str(tmp_path / "a.npz")}


def test_one_variable_for_two_data_sets_is_refused(monkeypatch):
    two = {"npz:a-b": "/a", "npz:a.b": "/b"}
    assert variable("npz:a-b") == variable("npz:a.b") == "ZOO_DATA_NPZ_A_B"
    assert chosen_paths(two) == two
    monkeypatch.setenv("ZOO_DATA_NPZ_A_B", "/c")
    with pytest.raises(DataError, match=r"'npz:a-b' and 'npz:a\.b'.*--data"):
        chosen_paths(two)
    assert chosen_paths(two, {"npz:a-b": "/d"}) == {"npz:a-b": "/d", "npz:a.b": "/c"}


def verbs(store, tmp_path):
    z = str(store)
    settings = ["--metrics", "behaviour", "--workers", "0", "--quiet"]
    return {
        "reproduce": ["reproduce", z, run_id(store)],
        "landscape": ["landscape", z, *settings],
        "score": ["score", z, "--scores", "el2n", "--epochs", "1", "--seeds", "1",
                  "--workers", "0", "--quiet"],
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["reproduce", "landscape", "score"])
@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_copied_store_is_pointed_elsewhere(verb, way, store, here, tmp_path, monkeypatch, capsys):
    words = verbs(store, tmp_path)[verb]
    with pytest.raises(MissingDataError):
        main_or_raise(words, capsys)
    if way == "variable":
        monkeypatch.setenv("ZOO_DATA_NPZ_WELLS", here)
        assert main(words) == 0
    else:
        # an option goes before a variable, here a wrong one
        monkeypatch.setenv("ZOO_DATA_NPZ_WELLS", "/nowhere")
        assert main([*words, "--data", f"npz:wells={here}"]) == 0
    if verb == "score" and way == "option":  # whose table reads the data again
        assert main(["diets", str(store)]) == 1
        assert main(["diets", str(store), "--data", f"npz:wells={here}"]) == 0


def main_or_raise(words, capsys):
    """Raise what a failed call says: the advice in it is what the test then follows."""
    if main(words) != 0:
        said = capsys.readouterr()
        text = said.err + said.out
        for part in ("npz:wells", "ZOO_DATA_NPZ_WELLS", "--data 'npz:wells=PATH'"):
            assert part in text
        raise MissingDataError(text)


def test_the_interface_in_python(store, here, monkeypatch):
    monkeypatch.setenv("ZOO_DATA_NPZ_WELLS", "/nowhere")
    paths = {"npz:wells": here}
    opened = zoo.open(store, paths=paths)
    assert opened.data().train_x.shape == (60, 6)
    view = opened.query(epoch=-1)
    assert view.materialize(store.parent / "cache").zoo.data().train_x.shape == (60, 6)
    assert reproduce(store, run_id(store), paths=paths).matches
    settings = landscape_settings(["behaviour"])
    assert run_stage(store, "landscape", settings, workers=1, paths=paths).published
    with pytest.raises(MissingDataError, match="nothing is at /nowhere"):
        zoo.open(store).data()
    monkeypatch.setenv("ZOO_DATA_NPZ_WELLS", here)  # also after it was opened
    assert zoo.open(store).data().train_x.shape == (60, 6)


def test_a_store_that_is_not_finished_is_finished_elsewhere(made, here, tmp_path):
    """Data and scores both: neither is where the store remembers it."""
    lab = tmp_path / "lab"
    lab.mkdir()
    shutil.copy(here, lab / "w.npz")
    (lab / "s.txt").write_text(RANK_TEXT)
    names = {"npz:wells": str(lab / "w.npz"), "file:s.txt": str(lab / "s.txt")}
    prepare_store(sweep_of(paths=names, score="file:s.txt", keep=0.5), tmp_path / "z.zarr")
    assert read_plan(tmp_path / "z.zarr").paths == names
    lab.rename(tmp_path / "moved")
    words = ["run", str(tmp_path / "z.zarr"), "--workers", "0", "--quiet"]
    assert main(words) == 1
    for name, file in (("npz:wells", "w.npz"), ("file:s.txt", "s.txt")):
        assert main(words) == 1
        words += ["--data", f"{name}={tmp_path / 'moved' / file}"]
    assert main(words) == 0
    a, b = (zoo.open(s).query(epoch=-1).weights() for s in (made[0], tmp_path / "z.zarr"))
    np.testing.assert_array_equal(a, b)


def test_a_store_remembers_where_its_data_was(here, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_DATA_NPZ_WELLS", here)
    prepare_store(sweep_of(), tmp_path / "z.zarr")
    monkeypatch.delenv("ZOO_DATA_NPZ_WELLS")
    assert run(tmp_path / "z.zarr", workers=0).complete


def test_extending_with_other_data_forgets_nothing(here, tmp_path):
    store = tmp_path / "z.zarr"
    run(sweep_of(paths={"npz:wells": here}), store, workers=0, backend="eager")
    lakes = str(write_data(tmp_path / "l.npz", 5))
    run(sweep_of(data="npz:lakes", paths={"npz:lakes": lakes}), store, workers=0)
    assert data_paths(store) == {"npz:wells": here, "npz:lakes": lakes}


def test_a_name_that_nothing_uses_is_refused(store, here, capsys):
    with pytest.raises(SpecError, match="did you mean 'npz:wells'"):
        zoo.open(store, paths={"wells": here})
    assert main(["reproduce", str(store), run_id(store), "--data", f"npz:well={here}"]) == 1
    assert "did you mean 'npz:wells'" in capsys.readouterr().err
    assert main(["reproduce", str(store), run_id(store), "--data", "nothing"]) == 1
    assert "'nothing' is not NAME=PATH" in capsys.readouterr().err


def test_jobs_of_a_cluster_get_the_option_as_a_variable(here):
    from zoo.cli.submit import _with_data
    from zoo.launch.profile import ClusterProfile

    profile = ClusterProfile.from_raw({"environment": {"A": "b"}}, name="p", source="p.toml")
    found = _with_data(profile, {"npz:wells": here}).environment
    assert found == {"A": "b", "ZOO_DATA_NPZ_WELLS": here}


def test_plan_and_dry_run_take_the_option(here, tmp_path, capsys):
    (tmp_path / "s.toml").write_text(
        'name = "s"\n[base]\ndata = "npz:wells"\nepochs = 1\nwidth = 4\nbatch_size = 20\n'
        "[grid]\nseed = [0, 1]\n"
    )
    option = ["--data", f"npz:wells={here}"]
    assert main(["plan", str(tmp_path / "s.toml"), "--calibrate", "0", "--json", *option]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["npz:wells"]["classes"] == 3
    out = ["--out", str(tmp_path / "z.zarr")]
    assert main(["run", str(tmp_path / "s.toml"), *out, "--dry-run", *option]) == 0
