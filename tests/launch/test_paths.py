"""Paths mean what they meant when they were given; names and texts of any kind are taken."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from own_files import RANK_TEXT, sweep_of, write_data

import zoo
from zoo.errors import SpecError, StoreMissingError
from zoo.launch.local import run
from zoo.launch.profile import load_profile
from zoo.launch.submissions import record_folder
from zoo.paths import absolute, is_clutter
from zoo.spec import Sweep, load_sweep
from zoo.store import StoreReader, content_hash, is_store, verify_store

SWEEP = """\
name = "own"
description = "Größe, Breite, 網"
[paths]
"npz:wells" = "data/w.npz"
[base]
data = "npz:wells"
epochs = 1
width = 4
batch_size = 20
[grid]
seed = [0, 1]
[record]
probe_size = 4
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two folders with a store of the same name each, of other seeds."""
    root = tmp_path_factory.mktemp("two")
    data = {"npz:wells": str(write_data(root / "w.npz", 0))}
    for folder, seeds in (("a", (0, 1)), ("b", (2, 3))):
        (root / folder).mkdir()
        run(sweep_of(seeds, data), root / folder / "z.zarr", workers=0, backend="eager")
    return root


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: tmp_path))
    return tmp_path


def test_a_zoo_reads_its_own_store_wherever_the_process_goes(stores, tmp_path, monkeypatch):
    root = tmp_path / "copy"
    shutil.copytree(stores, root)
    monkeypatch.chdir(root / "a")
    opened = zoo.open("z.zarr")
    view, reader = opened.query(epoch=-1), StoreReader("z.zarr")
    right, packed = view.weights(), pickle.dumps(view)
    monkeypatch.chdir(root / "b")
    np.testing.assert_array_equal(view.weights(), right)
    np.testing.assert_array_equal(pickle.loads(packed).weights(), right)
    reader.refresh()
    assert reader.plan.cohorts[0].run_ids == tuple(view["run_id"])
    view.snapshot("paper")
    assert [s.name for s in zoo.open(root / "a" / "z.zarr").snapshots()] == ["paper"]
    assert not zoo.open(root / "b" / "z.zarr").snapshots()
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(opened.refresh().query(epoch=-1).weights(), right)
    assert opened.path == root / "a" / "z.zarr"
    assert record_folder(opened.path).is_absolute()


def test_paths_of_a_sweep_count_from_its_file(tmp_path, monkeypatch):
    (tmp_path / "lab" / "data").mkdir(parents=True)
    write_data(tmp_path / "lab" / "data" / "w.npz", 0)
    (tmp_path / "lab" / "s.toml").write_text(
        SWEEP.replace("epochs = 1", 'epochs = 1\nscore = "file:s.txt"\nkeep = 0.5')
    )
    (tmp_path / "lab" / "s.txt").write_text(RANK_TEXT)
    monkeypatch.chdir(tmp_path)
    sweep = load_sweep("lab/s.toml")
    assert sweep.paths == {
        "npz:wells": str(tmp_path / "lab" / "data" / "w.npz"),
        "file:s.txt": str(tmp_path / "lab" / "s.txt"),
    }
    assert Sweep.from_toml(sweep.to_toml()) == sweep
    monkeypatch.chdir("/")
    assert run(sweep, tmp_path / "z.zarr", workers=0, backend="eager").complete
    assert zoo.open(tmp_path / "z.zarr").data("npz:wells").train_x.shape == (60, 6)


def test_paths_of_a_sweep_in_python_count_from_where_it_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = sweep_of(paths={"npz:wells": "w.npz"}, score="file:s.npy", keep=0.5)
    monkeypatch.chdir("/")
    wanted = {"npz:wells": str(tmp_path / "w.npz"), "file:s.npy": str(tmp_path / "s.npy")}
    assert sweep.paths == pickle.loads(pickle.dumps(sweep)).paths == wanted


def test_home_is_expanded_everywhere(home):
    (home / "data").mkdir()
    write_data(home / "data" / "w.npz", 0)
    sweep = home / "s.toml"
    sweep.write_text(SWEEP.replace("data/w.npz", "~/data/w.npz"), encoding="utf-8")
    assert run("~/s.toml", "~/out/z.zarr", workers=0, backend="eager").complete
    assert is_store("~/out/z.zarr")
    assert not Path("~").exists()
    view = zoo.open("~/out/z.zarr").query(epoch=-1)
    assert view.materialize("~/cache").weights().shape == view.weights().shape
    assert (home / "cache").is_dir()
    assert zoo.data.load("npz:wells", path="~/data/w.npz").classes == 3
    (home / "p.toml").write_text('time = "0:30:00"\n')
    assert load_profile("~/p.toml").name == "p"


def test_a_tilde_that_is_no_home_is_a_name():
    assert absolute("~nobody-has-this-name/x") == Path.cwd() / "~nobody-has-this-name" / "x"


def test_dots_in_a_path_that_is_not_there_yet(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"npz:wells": str(stores / "w.npz")}
    summary = run(sweep_of(paths=data), "new/../deep/z.zarr", workers=0, backend="eager")
    assert summary.complete
    assert summary.path == tmp_path / "deep" / "z.zarr"
    assert len(zoo.open("new/../deep/z.zarr")) == 2
    assert not (tmp_path / "new").exists()


def test_dots_behind_a_link_lead_where_the_system_leads(tmp_path):
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inner")
    assert absolute(tmp_path / "link" / ".." / "z") == tmp_path / "far" / "z"
    assert absolute(tmp_path / "link" / "z") == tmp_path / "link" / "z"


def test_names_that_are_not_ascii(tmp_path):
    folder = tmp_path / "Größe 網 é"
    (folder / "data").mkdir(parents=True)
    write_data(folder / "data" / "w.npz", 0)
    (folder / "s.toml").write_text(SWEEP, encoding="utf-8")
    store = folder / "zoö.zarr"
    assert run(folder / "s.toml", store, workers=1, backend="eager").complete
    assert "網" in (store / "_zoo" / "sweep.toml").read_text(encoding="utf-8")
    assert verify_store(store).problems == ()
    assert zoo.open(store).data().train_x.shape == (60, 6)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_changes_nothing(tmp_path, mark):
    files = {
        "s.toml": SWEEP.replace('"data/w.npz"', '"/w.npz"').encode(),
        "p.toml": b'time = "0:30:00"\n',
        "s.txt": RANK_TEXT.encode(),
        "cells.csv": b"load,temperature,train_loss\n1,2,0.5\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(mark + data)
    from zoo.data.score_file import read_scores
    from zoo.phases.csv_file import read_cells

    assert load_sweep(tmp_path / "s.toml").name == "own"
    text = (mark + files["s.toml"]).decode("utf-8")
    assert Sweep.from_toml(text).name == "own"
    assert load_profile(tmp_path / "p.toml").name == "p"
    assert read_scores(tmp_path / "s.txt")[:2].tolist() == [0, 1]
    assert read_cells(tmp_path / "cells.csv").cells.load.tolist() == ["1"]


def test_what_systems_leave_in_a_store_is_ignored(stores, tmp_path):
    store = tmp_path / "z.zarr"
    shutil.copytree(stores / "a" / "z.zarr", store)
    zoo.open(store).query(epoch=-1).snapshot("paper")
    digest, strays = content_hash(store), verify_store(store).strays
    for path in [store, *store.rglob("*")]:
        if path.is_dir():
            (path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        elif not is_clutter(path):
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    report = verify_store(store)
    assert report.problems == ()
    assert report.strays == strays
    assert content_hash(store) == digest
    assert [s.name for s in zoo.open(store).snapshots()] == ["paper"]
    assert len(zoo.open(store).snapshot("paper")) == 2
    assert run(store, workers=0).trained == 0
    data = {"npz:wells": str(stores / "w.npz")}
    assert run(sweep_of((0, 1, 5), data), store, workers=0).trained == 1


def test_a_folder_with_nothing_but_clutter_is_empty(stores, tmp_path):
    store = tmp_path / "z.zarr"
    store.mkdir()
    (store / ".DS_Store").write_bytes(b"Bud1")
    data = {"npz:wells": str(stores / "w.npz")}
    assert run(sweep_of((0,), data), store, workers=0, backend="eager").complete


@pytest.mark.parametrize("inside", ["", "z.zarr"])
def test_a_zipped_store_says_how_to_unpack_it(stores, tmp_path, inside, monkeypatch):
    import shlex
    import subprocess
    import sys

    shutil.copytree(stores / "a" / "z.zarr", tmp_path / "z.zarr")
    root = tmp_path if inside else tmp_path / "z.zarr"
    made = shutil.make_archive(str(tmp_path / "x"), "zip", root, inside or ".")
    zipped = tmp_path / "x.zarr.zip"
    Path(made).rename(zipped)
    for door in (zoo.open, StoreReader, run):
        with pytest.raises((StoreMissingError, SpecError), match="is a zip file") as said:
            door(zipped)
    with pytest.raises(StoreMissingError) as said:
        zoo.open(zipped)
    advice, place = str(said.value).split("`")[1], str(said.value).rsplit("'")[-2]
    words = [sys.executable, *shlex.split(advice)[1:]]
    subprocess.run(words, check=True)
    assert len(zoo.open(place)) == 2


def test_a_zip_file_of_something_else(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("x")
    made = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "a")
    with pytest.raises(StoreMissingError, match="there is no phasezoo store in it"):
        zoo.open(made)
