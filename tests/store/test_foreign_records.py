"""Records that say anything, under a right checksum: one error of ours, and the rest still reads.

A checksum keeps out accidents, not what somebody wrote on purpose, so it is the check of the
content that answers here. ``ZOO_FUZZ=N`` tries N random examples in place of the fixed few.
"""

from __future__ import annotations

import json

import fabricated_store as fab
import numpy as np
import pytest
from hypothesis import given
from test_fuzz import answers, fuzz, mutants

import zoo
from zoo.errors import StoreCorruptError
from zoo.launch.status import store_status
from zoo.store import StoreReader, TaskWriter, create_store, task_states, verify_store
from zoo.store.records import record_bytes

#: kind -> the file
FILES = {
    "commit": "tasks/mlp-a/1/1.json",
    "seal": "tasks/mlp-a/0/seal.json",
    "failure": "tasks/mlp-a/1/failure-0.json",
    "snapshot": "snapshots/paper.json",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two cohorts; of the first one a task is complete, one has failed and one has not begun."""
    path = tmp_path_factory.mktemp("records") / "x.zarr"
    cohorts = [
        fab.make_cohort(models=6, task_rows=2),
        fab.make_cohort("mlp-b", models=2, width=16, task_rows=2, seed=50),
    ]
    plan = fab.make_plan(*cohorts)
    create_store(path, plan, sweep_toml=fab.SWEEP, provenance={})
    done, begun, _ = cohorts[0].tasks()
    fab.train_task(path, cohorts[0], done)
    fab.train_task(path, cohorts[0], begun, stop=2)
    with TaskWriter(path, cohorts[0], begun) as writer:
        writer.fail("out of memory", "Traceback ...")
    fab.train_task(path, cohorts[1], next(cohorts[1].tasks()))
    zoo.open(path).query("cohort == 'mlp-b'").snapshot("paper")
    zoo.open(path).query("cohort == 'mlp-b' and checkpoint == 1").snapshot("talk")
    return path


def body_of(file):
    body = json.loads(file.read_bytes())
    for key in ("check", "encoding-type", "encoding-version"):
        del body[key]
    return body


def everything(path):
    """Ask whatever a record answers; each question gets an answer or one error of ours."""
    opened = []
    for question in (
        lambda: list(task_states(path)),
        lambda: store_status(path).to_json(),
        lambda: opened.append(zoo.open(path)),
        lambda: opened[0].query()["test_loss"],
        lambda: opened[0].query("checkpoint == 1 and cohort == 'mlp-a'").weights(),
        lambda: opened[0].query("status == 'done'")["reason"],
        lambda: StoreReader(path).failures(),
        lambda: opened[0].snapshots(),
        lambda: opened[0].snapshot("paper"),
        lambda: verify_store(path),
    ):
        with answers():
            question()


def rest(path):
    """Return what does not depend on the record."""
    opened = zoo.open(path)
    other = opened.query("cohort == 'mlp-b'")
    return (
        [np.asarray(w).tobytes() for w in other.stacked_weights()],
        other["test_loss"].tolist(),
        opened.snapshot("talk")["run_id"].tolist(),
    )


@pytest.mark.parametrize("kind", FILES)
def test_a_record_says_anything(store, kind):
    file = store / "_zoo" / FILES[kind]
    sound, whole = file.read_bytes(), rest(store)

    @fuzz(60)
    @given(mutants([body_of(file)]))
    def ask(body):
        try:
            data = record_bytes(kind, body)
        except zoo.errors.StoreError:  # JSON has no such value
            return
        try:
            file.write_bytes(data)
            everything(store)
            assert rest(store) == whole
        finally:
            file.write_bytes(sound)

    ask()
    assert verify_store(store).problems == ()


#: kind, where, the value -> what the error says
BAD = [
    ("commit", ("diverged_step", 0), 10**25, "not a whole number"),
    ("commit", ("metrics", "test_loss", 0), "Zero", "Zero"),
    ("commit", ("metrics", "test_loss", 0), True, "lacks something"),
    ("commit", ("metrics", "test_loss", 0), 10**400, "lacks something"),
    ("commit", ("files",), {}, "weights"),
    ("commit", ("resume", "crc32"), None, "not a whole number"),
    ("commit", ("wall_s",), -1, "no amount"),
    ("commit", ("checkpoint",), 0, "another checkpoint"),
    ("commit", ("task",), 0, "of task 0"),
    ("commit", ("rows",), "0" * 64, "of other runs"),
    ("seal", ("last", 0), 4, "not a whole number from -1 to 3"),
    ("seal", ("files",), None, "lacks something"),
    ("seal", ("record",), 5, "lacks something"),
    ("seal", ("rows",), None, "of other runs"),
    ("failure", ("time",), 1e17, "no amount"),
    ("failure", ("committed",), "x", "not a whole number"),
    ("failure", ("rows",), 1, "of other runs"),
    ("snapshot", ("run", 0), 99, "not what a snapshot is"),
    ("snapshot", ("rows",), 3, "not what a snapshot is"),
    ("snapshot", ("hash",), "x", "not what a snapshot is"),
    ("snapshot", ("name",), "talk", "is the snapshot 'talk'"),
]


@pytest.mark.parametrize(("kind", "path", "value", "said"), BAD)
def test_the_error_says_what_is_wrong(store, kind, path, value, said):
    file = store / "_zoo" / FILES[kind]
    sound, body = file.read_bytes(), body_of(file)
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        file.write_bytes(record_bytes(kind, body))
        assert any(said in p and file.name in p for p in verify_store(store).problems)
        if kind == "snapshot":
            with pytest.raises(StoreCorruptError, match=said):
                zoo.open(store).snapshot("paper")
        else:
            state = next(s for s in StoreReader(store).cohorts[0].reason if said in s)
            assert file.name in state
    finally:
        file.write_bytes(sound)


def test_a_snapshot_of_checkpoints_that_are_not_there(store):
    file = store / "_zoo" / FILES["snapshot"]
    sound, body = file.read_bytes(), body_of(file)
    body["checkpoint"][0] = 4
    try:
        file.write_bytes(record_bytes("snapshot", body))
        with pytest.raises(StoreCorruptError, match="checkpoints that its runs do not have"):
            zoo.open(store).snapshot("paper")
    finally:
        file.write_bytes(sound)
