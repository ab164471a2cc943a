"""Whatever a file or a query says: an answer or one error of ours, never a traceback or a hang.

Sweeps, cluster profiles, predicates, leases and arrays, each mutated from a sound one; plans are in
``store/test_foreign_plans.py``. ``ZOO_FUZZ=N`` tries N random examples in place of the fixed few.
"""
# ruff: noqa: E501

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import os
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.data.npz import read as read_npz
from zoo.data.score_file import read_scores
from zoo.dataset.normalization import Normalization
from zoo.errors import DataError, QueryError, SpecError, ZooError
from zoo.launch.profile import ClusterProfile, load_profile
from zoo.launch.submissions import Work, new_submission, submission_numbers, submissions
from zoo.spec import Sweep
from zoo.spec.predicate import compile_predicate
from zoo.store import lease_view
from zoo.store.lease_view import lease_bytes, newest_lease

MORE = int(os.environ.get("ZOO_FUZZ", "0"))
#: Seconds of computing after which an answer counts as a hang.
LIMIT_S = 5.0


def fuzz(examples):
    return settings(
        max_examples=MORE or examples,
        derandomize=not MORE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def answers(errors=ZooError):
    """Pass when the block ends, or raises one of our errors, before it has computed for long."""
    began = time.process_time()
    try:
        yield
    except errors as error:
        text = str(error)
        assert text
        assert len(text) < 20_000, "an error to be read"
        assert "allow_pickle" not in text
        assert "max_header_size" not in text
    assert time.process_time() - began < LIMIT_S


#: What anybody may write where something else is meant.
NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**70, 10**25, 10**400]),
    st.floats(),
    st.sampled_from([1e-300, 1e300, 0.999999999, 5e-324]),
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "\n", "a\nb", "\x00", "../..", "/", "-1", "nan", "inf", "None", "é" * 40, "\ud800",
         "width", "digits", "sgd", "lr", "adam", "el2n", "file:x", "random", "1e999", "$(true)"]
    ),
)  # fmt: skip
SCALARS = st.one_of(NUMBERS, TEXTS, st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)


def places(tree, prefix=()):
    """Return the path of every node below the root."""
    items = (
        tree.items() if isinstance(tree, dict)
        else enumerate(tree) if isinstance(tree, list) else ()
    )  # fmt: skip
    return [p for key, item in items for p in ((*prefix, key), *places(item, (*prefix, key)))]


def changed(tree, path, what, value):
    """Return the tree with one node replaced, deleted, renamed or doubled."""
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    if what == "replace":
        parent[key] = value
    elif what == "delete":
        del parent[key]
    elif isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]) if what == "double" else value)
    else:
        parent[str(value) if what == "rename" else f"{key}2"] = parent[key]
        if what == "rename":
            parent.pop(key)
    return tree


@st.composite
def mutants(draw, trees, most=3, values=VALUES):
    """Draw one of the trees with up to ``most`` changes."""
    tree = draw(st.sampled_from(trees))
    for _ in range(draw(st.integers(1, most))):
        there = places(tree)
        if not there:
            break
        path = draw(st.sampled_from(there))
        what = draw(st.sampled_from(["replace", "replace", "delete", "rename", "double"]))
        tree = changed(tree, path, what, draw(values))
    return tree


def sound(tree):
    """Return the tree without what JSON and TOML files cannot hold."""
    if isinstance(tree, dict):
        return {str(k): sound(v) for k, v in tree.items()}
    return [sound(v) for v in tree] if isinstance(tree, list) else tree


SWEEPS = [
    {
        "name": "a",
        "axes": {"load": "width", "temperature": "batch_size"},
        "base": {"data": "digits", "lr": 0.1, "steps": 20, "optimizer": "sgd", "momentum": 0.9},
        "grid": {"width": [4, 8], "batch_size": [32, 64], "seed": {"range": [0, 3]}},
        "zip": [{"label_noise": [0.0, 0.1], "init_scale": [1.0, 2.0]}],
        "when": [{"if": "width == 4", "base": {"weight_decay": 0.1}}],
        "exclude": ["width == 8 and batch_size == 64"],
        "record": {"every_epochs": 1, "probe_size": 8},
        "run": {"workers": 2, "backend": "eager", "device": "cpu", "task_models": 4},
        "paths": {"digits": "x"},
    },
    {
        "name": "b",
        "description": "x",
        "base": {"data": "digits", "architecture": "cnn", "epochs": 1, "norm": "batch"},
        "block": [
            {
                "base": {"optimizer": "adamw"},
                "sample": {
                    "method": "sobol",
                    "n": 4,
                    "seed": 1,
                    "axes": {"lr": {"low": 1e-4, "high": 0.1, "scale": "log"},
                             "depth": {"values": [1, 2]}},
                },
            },
            {"grid": {"lr": {"start": 0.1, "stop": 0.2, "num": 3}, "augmentation": ["none"]}},
        ],
        "record": {"steps": [0, 5]},
    },
    {
        "name": "c",
        "base": {"data": "digits", "score": "el2n", "score_seeds": 2, "score_epoch": 1.0,
                 "keep": 0.5, "keep_order": "hard"},
        "grid": {"keep": [0.5, 1.0], "seed": [0, 1]},
        "diet": {"baseline": True, "allow_init": False},
        "record": {"log_steps": 4},
    },
]  # fmt: skip


@fuzz(250)
@given(mutants(SWEEPS))
def test_sweeps(raw):
    with answers():
        Sweep.from_dict(raw)


TOML = Path(__file__).parents[1].joinpath("sweeps/phases_digits.toml").read_text(encoding="utf-8")


@st.composite
def scratched(draw, text):
    """Draw a text with pieces cut out, doubled, or put in."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        piece = draw(
            st.one_of(
                TEXTS,
                st.sampled_from(["[[", "{", "}" * 3, "[" * 3000, "=", '"""', "'", "9" * 5000, "\r",
                                 "[[block]]\n", "a.b.c = 1\n", "1979-05-27", "\ufeff", "#"]),
            )
        )  # fmt: skip
        text = text[:at] + piece + text[at + draw(st.integers(0, 30)) :]
    return text


@fuzz(150)
@given(scratched(TOML))
def test_texts_of_sweeps(text):
    with answers(SpecError):
        Sweep.from_toml(text)


PROFILES = [
    {
        "partition": "gpu", "time": "4:00:00", "cpus": 8, "gpus": 4, "device": "cuda",
        "memory": "64GB", "parallelism": 16, "target_minutes": 45, "signal_s": 300, "save_s": 60,
        "setup": ["module load cuda"], "exclude": "node[1,2]", "requeue": True,
        "account": "a", "qos": "q", "gpu_type": "a100", "constraint": "x&y",
        "sbatch": {"mail-type": "END", "hint": "nomultithread"}, "srun": ["--mpi=none"],
    },
    {
        "partition": "cpu", "time": "30", "cpus": 2, "memory": "500M", "gres": "lscratch:10",
        "container": "/x.sif", "binds": ["/a:/b:ro"], "stages": {"time": 10, "cpus": 1},
        "env": {"A": "b"}, "logs": "/tmp/logs", "python": "/usr/bin/python",
    },
]  # fmt: skip


@fuzz(250)
@given(mutants(PROFILES))
def test_profiles(raw):
    with answers(SpecError):
        profile = ClusterProfile.from_raw(raw, name="p", source="p.toml")
        again = ClusterProfile.from_raw(profile.to_json(), name="p", source="p.toml")
        assert again == profile
        assert profile.scaled(memory=1.5, time=2.0).limit_s > 0
        assert profile.for_stage(cpus=1).cpus >= 1


@fuzz(100)
@given(
    st.one_of(
        scratched('partition = "x"\ntime = "1:00:00"\n').map(lambda t: t.encode(errors="replace")),
        st.binary(),
    )
)
def test_files_of_profiles(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(data)
    with answers(SpecError):
        load_profile(path)


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """A store's name, and what was submitted for it: the records lie beside it."""
    store = tmp_path_factory.mktemp("submitted") / "x.zarr"
    store.mkdir()
    raw = {"partition": "cpu", "time": "30", "logs": "/tmp/logs"}
    profile = ClusterProfile.from_raw(raw, name="p", source="p.toml")
    tasks = [[("mlp-a", 0), ("mlp-a", 1)], [("mlp-b", 0)]]
    one = new_submission(
        store, profile, Work(tasks, [60.0, 5.5], chunk=1, failures={("mlp-b", 0): 1})
    )
    one.accepted(0, 4711)
    one.accepted(1, 4712)
    return store, one


@pytest.mark.parametrize("name", ["submission.json", "job-0.json", "../records.json"])
def test_submissions(submitted, name):
    store, one = submitted
    file = one.folder / name
    sound = file.read_bytes()

    @fuzz(100)
    @given(mutants([json.loads(sound)]))
    def ask(raw):
        try:
            file.write_text(json.dumps(raw), encoding="utf-8", errors="replace")
            with answers():
                submission_numbers(store)
                for found in submissions(store):
                    assert found.to_json()
                    for element in range(len(found.elements)):
                        found.job_id(element)
                        found.logs(element)
                    assert all(found.members(array) for array in range(found.arrays))
        finally:
            file.write_bytes(sound)

    ask()
    assert [again.jobs for again in submissions(store)] == [{0: 4711, 1: 4712}]


COLUMNS = {
    "width": np.array([16, 64, 32, 2**40]),
    "lr": np.array([0.1, np.nan, np.inf, -0.5], dtype=np.float32),
    "norm": np.array(["layer", "none", "", "batch"]),
    "flag": np.array([True, False, True, True]),
    "odd": np.array([1, None, 2.5, True], dtype=object),
    "named": np.array(["a", None, "b", "a"], dtype=object),
    "empty": np.array([None] * 4, dtype=object),
}
ATOMS = st.one_of(
    st.sampled_from([*COLUMNS, "'layer'", "None", "True", "nan", "1e999", "-1", "0", "0.1", "[]",
                     "[16, 32]", "['layer', None]", "(1, 'a')", "{1, 2}", "9" * 30, "1j", "b'x'",
                     "wdth", "f'{width}'", "...", "'\\ud800'", "9007199254740993"]),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=5).map(repr),
)  # fmt: skip
SIGNS = st.sampled_from(
    ["==", "!=", "<", "<=", ">", ">=", "in", "not in", "is", "is not", "and", "or", "+", "-", "*",
     "/", "%", "**", "<<", "&", "//", "@"]
)  # fmt: skip


@st.composite
def expressions(draw, depth=4):
    """Draw a predicate, or something like one."""
    form = draw(
        st.sampled_from(["{}", "({})", "not {}", "-{}", "{} {} {}", "{} {} {}", "{} < {} <= {}"])
    )
    if not depth or form == "{}":
        return draw(ATOMS)
    count = form.count("{}")
    words = [draw(expressions(depth - 1)) for _ in range(count)]
    if form == "{} {} {}":
        words[1] = draw(SIGNS)
    return form.format(*words)


@fuzz(500)
@given(st.one_of(expressions(), expressions().flatmap(scratched), st.text(max_size=40)))
def test_queries(text):
    with answers(QueryError):
        found = compile_predicate(text, COLUMNS)(COLUMNS)
        assert found.dtype == np.bool_


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000, "-" * 50_000 + "1 == 1", "not " * 20_000 + "flag", "width == 1" + " or width == 1" * 5000,
        "width in [" + "1," * 40_000 + "]", "1" + "+1" * 40_000 + " == width", "width" + " == width" * 9_000,
        "'" + "a" * 99_000 + "' == norm", "[" * 200 + "]" * 200, "width == " + "9" * 5000,
    ],
    ids=lambda text: f"{text[:12]} x {len(text)}",
)  # fmt: skip
def test_long_queries(text):
    with answers(QueryError):
        compile_predicate(text, COLUMNS)(COLUMNS)


LEASE = {
    "host": "h", "pid": 1, "job": "", "beat": 3, "time": 1.7e9, "term_s": 90.0, "flock": True,
    "released": False, "started": "5", "kernel": "k", "processes": "pid:[1]",
}  # fmt: skip


def checked(body):
    """Return a lease with a right checksum, or without one where it says what no record can."""
    try:
        return lease_bytes(Path("mlp", "0.lease", "1"), body)
    except ZooError:
        return json.dumps(body).encode()


@fuzz(250)
@given(
    st.one_of(
        mutants([LEASE]).map(checked),
        mutants([LEASE]).map(lambda t: json.dumps(t).encode()),
        mutants([LEASE]).map(lambda t: json.dumps(t).encode()[: len(str(t)) // 2]),
        st.binary(max_size=200),
        st.sampled_from(
            [b"", b"[" * 60_000, b'{"pid": ' + b"9" * 5000 + b"}", b"\x00" * 2_000_000]
        ),
    ),
    st.sampled_from([None, True, False]),
)
def test_leases(tmp_path_factory, monkeypatch, data, locked):
    monkeypatch.setattr(lease_view, "_PAUSE_S", 0.0)
    folder = tmp_path_factory.getbasetemp() / "mlp" / "0.lease"
    folder.mkdir(exist_ok=True, parents=True)
    folder.joinpath("1").write_bytes(data)
    with answers():
        view = newest_lease(folder, locked=locked)
        assert view is not None
        assert view.host.isprintable()
        assert 0 < view.term_s <= 86_400


DATA = {
    "train_x": np.arange(48, dtype=np.float32).reshape(12, 4),
    "train_y": np.arange(12) % 3,
    "test_x": np.ones((6, 4), dtype=np.float32),
    "test_y": np.arange(6) % 3,
}


def npy(shape="(8,)", descr="'<f4'", data=bytes(32), version=1):
    """Return a .npy file whose header says what it is told to."""
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    length = len(head).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version % 256, 0]) + length + head + data


HEADERS = st.builds(
    npy,
    st.sampled_from(["(8,)", "()", "8", "(-1,)", "(-8, -1)", "(1000000000000,)", "(True, 8)", "(8.0,)",
                     "(4294967296, 4294967296, 4294967296)", "(0, 1" + "0" * 30 + ")", "(" * 60,
                     "[8]", "None", "(8, )" + " " * 9000, "(1," * 2, "(1, " * 40 + ")" * 40,
                     str((1,) * 40 + (8,)), "('8',)", "(9" + "9" * 5000 + ",)"]),
    st.sampled_from(["'<f4'", "'|O'", "'<U1000000000'", "'<f9'", "None", "[('a', '<f4')]", "'|V4'",
                     "('<f4', (1000000000,))", "'O'", "'<M8[s]'", "'>f4'", "5", "[]"]),
    st.sampled_from([bytes(32), b"", bytes(31), bytes(64), b"\x80\x04cos\nsystem\n(S'true'\ntR."]),
    st.sampled_from([1, 2, 3, 9]),
)  # fmt: skip
MEMBERS = st.one_of(
    HEADERS,
    st.binary(max_size=80),
    st.just(b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b"x" * 100),
    st.sampled_from([b"", b"\x80\x04cos\nsystem\n(S'true'\ntR.", b"\x93NUMPY"]),
)


@fuzz(150)
@given(MEMBERS)
def test_score_files(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    path.write_bytes(data)
    with answers():
        read_scores(path)


@st.composite
def archives(draw):
    """Draw an .npz file: sound members, odd ones, compressed or not, and bytes flipped."""
    buffer = io.BytesIO()
    way = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    with zipfile.ZipFile(buffer, "w", way) as archive:
        for name, array in DATA.items():
            if draw(st.integers(0, 9)):
                member = io.BytesIO()
                np.save(member, array)
                archive.writestr(
                    f"{name}.npy", draw(st.one_of(st.just(member.getvalue()), MEMBERS))
                )
    data = bytearray(buffer.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@fuzz(250)
@given(archives())
def test_archives_of_arrays(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.npz"
    path.write_bytes(data)
    with answers():
        read_npz(path)
    with answers():
        Normalization.load(path)


def test_a_bomb_is_not_read(tmp_path):
    """A few megabytes that would become gigabytes: refused before they do."""
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in DATA:
            archive.writestr(f"{name}.npy", npy("(500000000,)", data=bytes(1000)))
    # what an archive says of its sizes is its maker's word, too
    data = path.read_bytes()
    info = zipfile.ZipFile(path).infolist()[0]
    size = info.file_size.to_bytes(4, "little")
    path.write_bytes(
        data.replace(size, (2_000_000_000 + info.file_size - 1000).to_bytes(4, "little"))
    )
    with pytest.raises(DataError, match=r"bytes would become 2,000,"):
        read_npz(path)


def test_a_bomb_of_a_data_set_is_not_read(tmp_path, monkeypatch):
    import zoo.data.files as files

    monkeypatch.setattr(files, "_MOST", 1000)
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x.gz").write_bytes(gzip.compress(bytes(5000)))
    with pytest.raises(DataError, match=r"x\.gz has more than"):
        files.read_members(folder, [["x.gz"]])
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(folder / "x.gz", "x.gz")
        member = tarfile.TarInfo("other")
        member.size = 2000
        archive.addfile(member, io.BytesIO(bytes(2000)))
    with pytest.raises(DataError, match="other has more than"):
        files.read_members(tmp_path / "a.tar.gz", [["y"]])


@pytest.mark.parametrize(
    "text",
    [
        "[base]\n" + "9" * 5000 + " = 1",
        "[" + "a" * 9000 + "]\n",
        "[grid]\nwidth = [" + "'x', " * 5000 + "]",
        '[base]\n"a\\nb\\u001b[31m" = 1',
    ],
)
def test_an_error_is_short_and_obeys_nobody(text):
    with pytest.raises(SpecError) as caught:
        Sweep.from_toml('name = "a"\n' + text)
    assert len(str(caught.value)) < 10_000
    assert all(line.isprintable() for line in str(caught.value).split("\n"))
    assert len(str(caught.value).split("\n")) <= 102
