"""Names that are created once: of several processes at the same time each is told the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import zarr

import zoo
from zoo.dataset import snapshots
from zoo.dataset.snapshots import list_snapshots, take_snapshot
from zoo.errors import NameTakenError, StoreBusyError
from zoo.store import TableColumn, derived, publish_next, read_table, table_names, tables
from zoo.store.files import write_new
from zoo.store.paths import StorePaths

#: Waits for the file ``go``, runs the statement, and says how it ended.
RACER = """
import json, sys, time
from pathlib import Path
import numpy as np
import zoo
from zoo.errors import NameTakenError
from zoo.store import TableColumn, publish_next
from zoo.store.files import write_new
path, number, go = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
{prepare}
(go.parent / f"ready-{{number}}").touch()
while not go.exists():
    time.sleep(0.0005)
try:
    print(json.dumps({race}))
except NameTakenError as error:
    print("taken:", error)
"""


def race(tmp_path, path, statement, *, prepare="", racers=3):
    """Return what each of several processes says that do one thing at the same moment."""
    go = tmp_path / "go"
    script = RACER.format(prepare=textwrap.dedent(prepare), race=statement)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(i), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(racers)
    ]
    end = time.monotonic() + 120
    while not all((tmp_path / f"ready-{i}").exists() for i in range(racers)):
        assert all(p.poll() is None for p in started), [p.communicate() for p in started]
        assert time.monotonic() < end
        time.sleep(0.01)
    go.touch()
    said = [p.communicate() for p in started]
    assert [p.returncode for p in started] == [0] * racers, said
    return [out.strip() for out, _ in said]


SNAPSHOTS = """
from zoo.dataset import snapshots
view = zoo.open(path).query(f"checkpoint == {number}")
taken = []
def take():
    for i in range(40):
        try:
            snapshots.take_snapshot(view, f"paper-{i}")
            taken.append(i)
        except NameTakenError as error:
            assert "choose another name" in str(error)
    return taken
"""


def test_a_name_of_a_snapshot_goes_to_one_process(full, tmp_path):
    """Forty names at the same time: whoever is told that a name is his has it."""
    said = race(tmp_path, full, "take()", prepare=SNAPSHOTS)
    won = [set(json.loads(text)) for text in said]
    assert sorted(i for names in won for i in names) == list(range(40))
    opened = zoo.open(full)
    for number, names in enumerate(won):
        for i in names:
            assert set(opened.snapshot(f"paper-{i}")["checkpoint"]) == {number}


def test_a_snapshot_that_is_made_in_between_is_not_replaced(full, monkeypatch):
    """The same without chance: the other one comes when we have looked at everything."""
    opened = zoo.open(full)
    ours, theirs = opened.query("checkpoint == 1"), opened.query("checkpoint == 2")
    wait = snapshots.alone

    def late(paths):  # the last moment at which another process can have the store
        monkeypatch.setattr(snapshots, "alone", wait)
        take_snapshot(theirs, "paper")
        return wait(paths)

    monkeypatch.setattr(snapshots, "alone", late)
    with pytest.raises(NameTakenError, match="exists with other rows"):
        take_snapshot(ours, "paper")
    assert set(opened.snapshot("paper")["checkpoint"]) == {2}
    assert [s.name for s in list_snapshots(opened)] == ["paper"]


def test_no_snapshot_is_staged_while_another_process_clears(full, monkeypatch):
    """Who holds the store removes what others staged, so a snapshot waits for it."""
    monkeypatch.setattr(derived, "_PATIENCE_S", 0.0)
    view = zoo.open(full).query("checkpoint == 1")
    with derived.alone(StorePaths(full)), pytest.raises(StoreBusyError, match="wait for it"):
        take_snapshot(view, "paper")
    assert take_snapshot(view, "paper").name == "paper"


def test_the_same_snapshot_twice_is_no_conflict(full):
    view = zoo.open(full).query("checkpoint == 1")
    assert view.snapshot("paper") == view.snapshot("paper")
    assert not list((full / "_zoo").rglob("*.tmp"))


def test_a_file_is_new_for_one_writer(tmp_path):
    """A hundred files, three processes: each file is one writer's, whole."""
    said = race(
        tmp_path,
        tmp_path,
        "[i for i in range(100) if write_new(path / f'{i}.txt', str(number).encode() * 5000)]",
    )
    won = [json.loads(text) for text in said]
    assert sorted(i for names in won for i in names) == list(range(100))
    for number, names in enumerate(won):
        for i in names:
            assert (tmp_path / f"{i}.txt").read_text() == str(number) * 5000
    assert not list(tmp_path.glob("*.tmp"))
    assert not write_new(tmp_path / "0.txt", b"late")


def column(value):
    return {"x": TableColumn(("cell",), np.array([float(value)]), "a number")}


TABLES = """
columns = {"x": TableColumn(("cell",), np.array([float(number)]), "a number")}
def publish():
    return publish_next(path, "phases", columns, {"by": number}, lambda: None)
"""


def test_tables_number_themselves(full, tmp_path):
    """As concurrent runs of `zoo label` do: none is lost, none is refused."""
    said = race(tmp_path, full, "publish()", prepare=TABLES)
    names = [json.loads(text) for text in said]
    assert sorted(name for name, _ in names) == ["phases-v1", "phases-v2", "phases-v3"]
    for number, (name, new) in enumerate(names):
        arrays, attributes = read_table(full, name)
        assert (arrays["x"].tolist(), attributes["by"], new) == ([number], number, True)
    assert set(zarr.open_group(full, mode="r")["tables"]) == set(table_names(full))


def test_a_number_that_is_taken_in_between_is_not_used_again(full, monkeypatch):
    publish, asked = tables.publish_table, []

    def late(*args):  # the number is chosen, and now another is quicker
        monkeypatch.setattr(tables, "publish_table", publish)
        publish(full, "phases-v1", column(1), {})
        publish(*args)

    monkeypatch.setattr(tables, "publish_table", late)
    name, new = publish_next(full, "phases", column(2), {}, lambda: asked.append(1))
    assert (name, new) == ("phases-v2", True)
    assert len(asked) == 2  # what is known is asked again: it may be what we have
    assert read_table(full, "phases-v1")[0]["x"].tolist() == [1]
    same = publish_next(full, "phases", column(3), {}, lambda: "phases-v1")
    assert same == ("phases-v1", False)


def test_a_damaged_table_keeps_its_number(full):
    publish_next(full, "phases", column(1), {}, lambda: None)
    (full / "tables" / "phases-v1" / "zarr.json").unlink()
    assert publish_next(full, "phases", column(2), {}, lambda: None)[0] == "phases-v2"
