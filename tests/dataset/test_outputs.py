"""Files that users name: never over something else, whole or absent, one error on a full disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fabricated import make_store

from zoo.dataset import Normalization, Split, Zoo, fit_normalization, split_by
from zoo.dataset.exports import EXPORTS
from zoo.errors import NameTakenError, QueryError, StoreError
from zoo.report import accuracy_plot
from zoo.report.figures import new_figure
from zoo.report.picture_file import save_figure
from zoo.store import outputs
from zoo.store.outputs import FileKind, new_file, new_folder, write_output

REPO = Path(__file__).parents[2]
KIND = FileKind("a note", lambda data: data.startswith(b"note"))


@pytest.fixture
def view():
    return Zoo(make_store(3, cuts=False, models=(6, 6))).query()


def _split(view, path, seed=0):
    split_by(view, "run", seed=seed).save(path)


def _normalization(view, path, seed=0):
    fit_normalization(view[: 8 + seed]).save(path)


def _plot(view, path, seed=0):
    accuracy_plot(view.zoo, path, value=("test_loss", "test_accuracy")[seed])


def _figure(view, path, seed=0):
    figure = new_figure(2 + seed, 2)
    figure.subplots().plot([0, 1])
    save_figure(figure, path, dpi=50)


WRITERS = {
    "split.json": _split,
    "normal.npz": _normalization,
    "accuracy.png": _plot,
    "a.png": _figure,
    "a.svg": _figure,
    "a.pdf": _figure,
}


@pytest.fixture(params=WRITERS)
def writer(request, view, tmp_path):
    """(write(seed), the path)"""
    path = tmp_path / request.param
    return lambda seed=0: WRITERS[request.param](view, path, seed), path


# -- never over something else ------------------------------------------------------------------


def test_what_is_of_another_kind_is_never_replaced(writer):
    write, path = writer
    samples = [b"precious", b"\x89PNG\r\n\x1a\n not ours", b"<svg></svg>", b"%PDF-1.4", b"{}"]
    samples += [b'name = "sweep"\n', b"PK\x03\x04 a zip"]
    for sample in samples:
        path.write_bytes(sample)
        with pytest.raises(NameTakenError, match="remove it, or choose another path") as told:
            write()
        assert str(path) in str(told.value)
        assert path.read_bytes() == sample
    path.unlink()  # the advice
    write()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_earlier_files_of_ours_are_replaced(writer):
    write, path = writer
    write(0)
    first = path.read_bytes()
    write(1)
    second = path.read_bytes()
    assert second != first
    path.write_bytes(b"")  # as mktemp leaves it
    write(1)
    if path.suffix != ".svg":  # whose ids are random
        assert path.read_bytes() == second
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_links_stay_and_folders_are_refused(writer, tmp_path):
    write, path = writer
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / path.name
    path.symlink_to(target)
    write()
    assert path.is_symlink()
    assert target.stat().st_size
    path.unlink()
    path.mkdir()
    with pytest.raises(NameTakenError, match="is a folder"):
        write()


def test_a_device_is_written_to_and_not_replaced(view):
    null = Path(os.devnull)
    before = null.stat()
    for write in (_split, _normalization, _figure):
        write(view, null)
    assert (null.stat().st_mode, null.stat().st_ino) == (before.st_mode, before.st_ino)


@pytest.mark.parametrize("form", list(EXPORTS))
def test_exports_replace_nothing_but_an_empty_folder(view, tmp_path, form):
    part = view.zoo.query(norm="none")
    for name, content in (("file", b"precious"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NameTakenError, match=f"{name} exists already"):
            EXPORTS[form].write(part, tmp_path / name, None)
        assert (tmp_path / name).read_bytes() == content
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NameTakenError):
        EXPORTS[form].write(part, tmp_path / "link", None)
    (tmp_path / "folder").mkdir()
    made = EXPORTS[form].write(part, tmp_path / "folder", None)
    assert made.bytes > 4 * part.weights().size
    with pytest.raises(NameTakenError):
        EXPORTS[form].write(part, tmp_path / "folder", None)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["a.docx", "a", "a.jpg"])
def test_a_picture_has_one_of_three_endings(view, tmp_path, name):
    with pytest.raises(QueryError, match=r"ends in \.png, \.pdf or \.svg"):
        _plot(view, tmp_path / name)
    with pytest.raises(QueryError, match="there is no folder"):
        _plot(view, tmp_path / "no" / "a.png")
    assert not list(tmp_path.iterdir())


# -- a disk that refuses ------------------------------------------------------------------------

ADVICE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "mounted read-only",
    errno.EACCES: "give this user the right to write there",
    errno.EFBIG: "ulimit -f",
}


@pytest.mark.parametrize("number", ADVICE, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["mkdir", "fsync"])
def test_the_error_names_the_path_and_what_to_do(writer, monkeypatch, number, call):
    write, path = writer

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*{"mkdir": (Path, "mkdir"), "fsync": (os, "fsync")}[call], refuse)
    with pytest.raises(StoreError) as told:
        write()
    monkeypatch.undo()
    assert str(path) in str(told.value)
    assert os.strerror(number) in str(told.value)
    assert ADVICE[number] in str(told.value)
    assert not list(path.parent.iterdir())


#: Writes everything under a folder, twice, and prints the messages.
FILLER = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fabricated import make_store
from test_outputs import WRITERS
from zoo.dataset import Zoo
from zoo.dataset.exports import EXPORTS

small, limit = Path(sys.argv[2]), int(sys.argv[3])
zoo = Zoo(make_store(3, cuts=False, models=(40, 40)))
todo = {f: lambda p, f=f: EXPORTS[f].write(zoo.query(norm="none"), p, None) for f in EXPORTS}
todo["materialize"] = lambda p: zoo.query().materialize(p)
todo |= {n: lambda p, w=w: w(zoo.query(), p) for n, w in WRITERS.items()}
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
found = {}
for name, write in todo.items():
    for _ in range(2):
        try:
            write(small / name)
            told = ""
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        found.setdefault(name, []).append(told)
    if name == "materialize" and (small / name).is_dir():
        for left in (small / name).iterdir():
            left.unlink()
        (small / name).rmdir()
print(json.dumps(found))
"""


def filled(tmp_path, limit, *before):
    """Return what each writer said, after checking that the process lived."""
    (tmp_path / "small").mkdir(exist_ok=True)
    command = [sys.executable, "-c", FILLER, str(Path(__file__).parent), "small", str(limit)]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [*before, *command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("limit", [64, 20_000])
def test_a_file_that_cannot_grow_is_one_error_and_leaves_nothing(tmp_path, limit):
    """The limit on file sizes strikes in the middle of a file, as a full disk does."""
    found, stderr = filled(tmp_path, limit)
    assert stderr == ""
    refused = {name for name, told in found.items() if any(told)}
    assert {"hdf5", "safetensors", "small-cnn-zoo", "materialize"} <= refused or limit > 64
    assert {"hdf5", "small-cnn-zoo", "materialize"} <= refused
    for name, told in found.items():
        if limit == 64 and name not in refused:
            pytest.fail(f"{name} got by with {limit} bytes")
        if name in refused:
            assert told[0] == told[1]  # the first failure is not in the way of the second
            assert told[0].startswith("StoreError: cannot write ")
            assert "File too large; files must be smaller there" in told[0]
    left = {p.name for p in (tmp_path / "small").iterdir()}
    assert left == set(found) - refused


def can_mount():
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k x /mnt"],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces of Linux")
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path):
    try:
        allowed = can_mount()
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("this user cannot mount a small file system; the limit on file sizes stands in")
    script = 'mount -t tmpfs -o size=120k x small && "$@"; code=$?; ls -A small >left; exit $code'
    found, stderr = filled(tmp_path, 0, "unshare", "-rm", "sh", "-c", script, "sh")
    assert stderr == ""
    for name in ("hdf5", "safetensors", "small-cnn-zoo", "materialize"):
        first, second = found[name]
        assert first == second
        assert first.startswith("StoreError: cannot write ")
        assert "No space left on device; free some space there and run again" in first
    left = set((tmp_path / "left").read_text().split())
    assert left == {name for name, told in found.items() if told == ["", ""]}


FULL = "zoo: cannot write the output: No space left on device; free some space there and run again"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("list data --json", FULL),
        ("list data", FULL),
        ("info --json no-such.zarr", "no-such.zarr is not a phasezoo store"),
        ("no-such-verb --json", "unknown verb 'no-such-verb'"),
    ],
)
def test_a_full_disk_below_standard_output_is_one_error(words, told):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = subprocess.run(
        f"{sys.executable} -m zoo.cli {words} > /dev/full",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert told in last
    assert done.stderr.count("zoo: ") == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# -- kills and races ----------------------------------------------------------------------------


#: Begins an output and stays at it.
LONG = """
import sys, time
from pathlib import Path
from zoo.store import outputs
path, make = Path(sys.argv[1]), getattr(outputs, sys.argv[2])
with make(path) as part:
    (part / "x" if sys.argv[2] == "new_folder" else part).write_bytes(b"half")
    (path.parent / "begun").touch()
    time.sleep(600)
"""


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize("make", [new_folder, new_file])
def test_what_a_kill_left_is_removed_and_never_in_the_way(tmp_path, make, refused):
    path = tmp_path / "a[1].out"

    command = [sys.executable, "-c", LONG, str(path), make.__name__]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPO)})
    wait_for((tmp_path / "begun").exists)
    (alive,) = tmp_path.glob(".*.tmp")
    with make(path) as part:  # a living process is left alone
        if make is new_folder:
            (part / "y").write_bytes(b"whole")
        else:
            part.write_bytes(b"whole")
    assert alive.exists()
    child.kill()
    child.wait()
    write_output(tmp_path / "other", b"note", KIND)
    assert alive.exists()  # another name
    if refused:
        with pytest.raises(NameTakenError), make(path):
            pass
        assert not alive.exists()
        return
    path.rename(tmp_path / "moved")
    with make(path) as part:
        if make is new_file:
            part.write_bytes(b"new")
    assert not list(tmp_path.glob(".*"))


def test_what_another_host_left_goes_when_it_is_old(tmp_path):
    fresh, old = (tmp_path / f".out.elsewhere.{pid}.abc.tmp" for pid in (1, 2))
    foreign = tmp_path / ".out.not.ours.tmp"
    for folder in (fresh, old, foreign):
        folder.mkdir()
    past = time.time() - 2 * outputs._IDLE_S
    os.utime(old, (past, past))
    os.utime(foreign, (past, past))
    with new_folder(tmp_path / "out"):
        pass
    assert fresh.exists()
    assert not old.exists()
    assert foreign.exists()


def test_a_recycled_process_id_is_not_taken_for_dead(tmp_path):
    mine = tmp_path / f".out.{socket.gethostname()}.{os.getpid()}.abc.tmp"
    mine.mkdir()
    with new_folder(tmp_path / "out"):
        pass
    assert mine.exists()


@pytest.mark.parametrize("make", [new_folder, new_file])
def test_of_two_that_make_one_path_one_is_told_so(tmp_path, make):
    path = tmp_path / "out"

    def fill(part, text):
        (part / "x" if make is new_folder else part).write_bytes(text)

    def lose():
        with make(path) as part:
            fill(part, b"loser")
            with make(path) as other:
                fill(other, b"winner")

    with pytest.raises(NameTakenError, match="another process made"):
        lose()
    assert (path / "x" if make is new_folder else path).read_bytes() == b"winner"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_of_two_that_write_one_new_file_one_is_told_so(tmp_path, monkeypatch):
    path = tmp_path / "out"
    write = outputs.write_synced

    def slow(part, data):
        write(part, data)
        monkeypatch.setattr(outputs, "write_synced", write)
        write_output(path, b"note of the winner", KIND)

    monkeypatch.setattr(outputs, "write_synced", slow)
    with pytest.raises(NameTakenError, match="another process made"):
        write_output(path, b"note of the loser", KIND)
    assert path.read_bytes() == b"note of the winner"
    path.unlink()
    monkeypatch.setattr(outputs, "write_synced", slow)
    write_output(path, b"note of the winner", KIND)  # the same content is no conflict


def test_a_file_system_without_links_copies(tmp_path, monkeypatch):
    def no_links(*args, **kwargs):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", no_links)
    write_output(tmp_path / "a", b"note", KIND)
    with new_file(tmp_path / "b") as part:
        part.write_bytes(b"b")

    def lose():
        with new_file(tmp_path / "c") as part:
            part.write_bytes(b"c")
            (tmp_path / "c").write_bytes(b"first")

    with pytest.raises(NameTakenError):
        lose()
    names = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert names == {"a": b"note", "b": b"b", "c": b"first"}


def test_saved_files_are_read_back(view, tmp_path):
    split = split_by(view, "run")
    split.save(tmp_path / "s.json")
    assert Split.load(tmp_path / "s.json") == split
    fitted = fit_normalization(view)
    fitted.save(tmp_path / "n.npz")
    assert Normalization.load(tmp_path / "n.npz").hash == fitted.hash
    other = dataclasses.replace(split, by=("other",))
    other.save(tmp_path / "s.json")
    assert Split.load(tmp_path / "s.json").by == ("other",)
    assert np.isfinite(fitted.mean[view.zoo.plan.cohorts[0].layout]).all()
