"""The commands in a message mend what it is about: whoever follows it has the same bits again."""

from __future__ import annotations

import re
import shutil

import pytest

import zoo
from zoo.cli.main import main
from zoo.errors import StoreCorruptError
from zoo.spec import Sweep
from zoo.stages.base import STAGES
from zoo.store import derived_columns, read_plan, table_names, verify_store

ZOO = {
    "name": "remade",
    "axes": {"load": "width", "temperature": "batch_size"},
    "base": {"data": "digits", "lr": 0.05, "steps": 4, "train_size": 100},
    "grid": {"width": [4, 6], "batch_size": [32, 64], "seed": [0, 1]},
    "record": {"steps": [0, 4], "probe_size": 4},
}
DIET = {
    "name": "diet",
    "base": {"data": "digits", "epochs": 1, "width": 4, "score": "el2n", "score_epoch": 1.0,
             "score_seeds": 2, "keep": 0.5, "train_size": 100},
    "grid": {"seed": [0, 1]},
    "diet": {"baseline": False},
    "record": {"epochs": [1], "probe_size": 0},
}  # fmt: skip
#: The options that a verb has, the first time and again.
OPTIONS = {
    "run": ("--workers", "0", "-q"),
    "score": ("--workers", "0", "-q"),
    "landscape": (
        "--metrics", "curvature,connectivity,similarity", "--workers", "0", "-q",
        *(word for option in (
            "curvature.steps=2", "curvature.more_steps=3", "curvature.probes=2",
            "connectivity.min_steps=1", "connectivity.max_steps=2", "connectivity.points=3",
            "connectivity.statistics=16", "probes.train=32", "probes.test=16", "probes.mixup=16",
        ) for word in ("--set", option)),
    ),
    "label": ("--draws", "20"),
    "repair": (),
}  # fmt: skip


def command(verb, store, *words):
    assert main([verb, str(store), *OPTIONS[verb], *words]) == 0


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A store with cells and one with diets, with all that stages add; only to be copied."""
    folder, found = tmp_path_factory.mktemp("remade"), {}
    for tables in (ZOO, DIET):
        name = tables["name"]
        found[name], sweep = folder / f"{name}.zarr", folder / f"{name}.toml"
        sweep.write_text(Sweep.from_dict(tables).to_toml())
        command("run", sweep, "--out", str(found[name]))
    command("landscape", found["remade"])
    command("label", found["remade"])
    return found


def weights(store):
    return {name: rows.tobytes() for name, rows in zoo.open(store).query().weights().items()}


def commands_in(message):
    return re.findall(r"`zoo ([a-z]+)`", message)


def stage_of_columns(store):
    """Return stage -> folders of the columns that it added."""
    found = {}
    for cohort in read_plan(store).cohorts:
        for name, metadata in derived_columns(store, cohort).items():
            stage = metadata["attributes"]["stage"]
            found.setdefault(stage, []).append(f"{cohort.id}/{name}")
    return found


def added(store):
    """Return the content of every file of what stages added."""
    folders = [folder for group in stage_of_columns(store).values() for folder in group]
    folders += [f"tables/{name}" for name in table_names(store)]
    files = (path for folder in folders for path in (store / folder).rglob("*"))
    return {p.relative_to(store).as_posix(): p.read_bytes() for p in files if p.is_file()}


def test_every_stage_adds_something(stores):
    stages = {stage for path in stores.values() for stage in stage_of_columns(path)}
    assert stages == {*STAGES.names()} - {"training"}
    kinds = {name.partition("-")[0] for path in stores.values() for name in table_names(path)}
    assert kinds == {"cells", "pairs", "phases", "scores"}


@pytest.mark.parametrize(
    ("zoo_name", "what", "verb"),
    [
        ("diet", "scoring", "score"),
        ("diet", "diet-metrics", "run"),
        ("diet", "tables/scores-", "score"),
        ("remade", "landscape", "landscape"),
        ("remade", "tables/cells-", "landscape"),
        ("remade", "tables/pairs-", "landscape"),
        ("remade", "label", "label"),
        ("remade", "tables/phases-", "label"),
    ],
)
def test_what_repair_takes_away_comes_back(stores, tmp_path, capsys, zoo_name, what, verb):
    store = shutil.copytree(stores[zoo_name], tmp_path / "x.zarr")
    before = added(store)
    if what.startswith("tables/"):
        folders = [f"tables/{name}/" for name in table_names(store)]
        folders = [folder for folder in folders if folder.startswith(what)]
    else:
        folders = stage_of_columns(store)[what]
    name = max(n for n in before if n.startswith(folders[-1]) and "/c." in n)
    data = bytearray(before[name])
    data[len(data) // 2] ^= 4
    (store / name).write_bytes(data)

    (problem,) = verify_store(store).problems
    assert name.rpartition("/")[0] in problem
    assert commands_in(problem) == ["repair", verb]
    command("repair", store)
    assert f"`zoo {verb}`" in capsys.readouterr().out
    assert name not in added(store)
    assert verify_store(store).problems == ()
    command(verb, store)
    assert added(store) == before
    assert verify_store(store).problems == ()


SHARDS = {
    "flip": lambda file, data: file.write_bytes(data[:40] + bytes([data[40] ^ 4]) + data[41:]),
    "no index": lambda file, data: file.write_bytes(data[:-30]),
    "empty": lambda file, data: file.write_bytes(b""),
    "missing": lambda file, data: file.unlink(),
    "another": lambda file, data: shutil.copy(max(file.parent.glob("c.0.0.*")), file),
}


@pytest.mark.parametrize("damage", SHARDS)
def test_an_error_of_reading_says_what_trains_it_again(stores, tmp_path, damage):
    store = shutil.copytree(stores["remade"], tmp_path / "x.zarr")
    before = weights(store)
    file = max(store.glob("*/weights/c.0.1.*"))
    SHARDS[damage](file, file.read_bytes())
    with pytest.raises(StoreCorruptError, match=re.escape(str(file))) as caught:
        weights(store)
    commands = commands_in(str(caught.value))
    assert commands == ["repair", "run"]
    for verb in commands:
        command(verb, store)
    assert weights(store) == before
