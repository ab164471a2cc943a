"""Damage is reported by reading and by verify, and can be repaired."""

from __future__ import annotations

import fabricated_store as fab
import numpy as np
import pytest

from zoo.errors import StoreBusyError, StoreCorruptError, StoreError
from zoo.store import (
    StoreReader,
    TaskWriter,
    claim_task,
    content_hash,
    create_store,
    repair_added,
    repair_task,
    task_states,
    verify_store,
)
from zoo.store.schema import slab_arrays
from zoo.store.shard_file import read_index

SHARD = "mlp-a/weights/c.1.2.0"


def flip(path, place, bit=3):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))


def all_rows(path):
    reader = StoreReader(path)
    for one in reader.cohorts:
        rows, ks = np.indices(one.recorded.shape).reshape(2, -1)
        one.read_weights(rows, ks)
        one.read_probe(rows, ks)
        for name in ("train_loss", "step_lr"):
            one.metric(name)


def places(path, plan):
    """Return a byte in every region of a shard: chunk data, chunk crc, index, index crc."""
    spec = slab_arrays(plan.cohort("mlp-a"), fab.Q)["weights"].shard
    index = read_index(path, spec).astype(np.int64)
    size = path.stat().st_size
    start, length = index[1, 0].tolist()
    return {
        "first byte": 0,
        "blosc header": start + 5,
        "chunk": start + length // 2,
        "chunk crc": start + length - 2,
        "index": size - spec.index_bytes + 9,
        "index crc": size - 1,
    }


@pytest.mark.parametrize(
    "region", ["first byte", "blosc header", "chunk", "chunk crc", "index", "index crc"]
)
def test_flipped_bit_is_reported_by_reading_and_by_verify(full, plan, region):
    file = full / SHARD
    flip(file, places(file, plan)[region])
    with pytest.raises(StoreCorruptError, match=SHARD) as caught:
        all_rows(full)
    if region == "first byte":
        assert "other runs' values" in str(caught.value)
    elif "index" not in region:
        assert "chunk 1.0" in str(caught.value)
        assert plan.cohorts[0].run_ids[6] in str(caught.value)
        StoreReader(full).cohorts[0].read_weights([8], [2])  # its neighbour is read
    report = verify_store(full)
    assert report.problems
    assert all(SHARD in p and "`zoo repair` takes it back" in p for p in report.problems)


def test_every_single_flipped_bit_of_a_shard_is_found(full, plan):
    file = full / SHARD
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.choice(len(whole), 150, replace=False).tolist():
        flip(file, place, bit=place % 8)
        with pytest.raises(StoreCorruptError):
            StoreReader(full).cohorts[0].read_weights([5, 6, 8, 9], [2, 2, 2, 2])
        file.write_bytes(whole)
    all_rows(full)


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_truncated_shard_is_reported(full, keep):
    file = full / SHARD
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(StoreCorruptError, match=SHARD):
        all_rows(full)
    assert any(SHARD in p and "bytes" in p for p in verify_store(full).problems)


@pytest.mark.parametrize(
    "name",
    [
        SHARD,
        "mlp-b/probe_logits/c.0.3.0.0",
        "mlp-a/metrics/c.0.0.0",
        "mlp-a/status/c.2",
        "mlp-a/zarr.json",
        "mlp-a/weights/zarr.json",
        "mlp-a/lr/c.0",
        "zarr.json",
        "_zoo/zarr.json",
        "_zoo/tasks/mlp-a/0/1.json",
        "_zoo/sweep.toml",
        "_zoo/provenance.json",
    ],
)
def test_missing_file_is_reported(full, name):
    (full / name).unlink()
    problems = verify_store(full).problems
    assert problems
    shown: dict[str, str] = {}
    assert any(shown.get(name, name) in p for p in problems)


@pytest.mark.parametrize(
    "name",
    [
        "_zoo/plan.json",
        "_zoo/provenance.json",
        "_zoo/tasks/mlp-a/0/1.json",
        "_zoo/tasks/mlp-a/1/seal.json",
        "mlp-a/metrics/c.0.0.0",
        "mlp-a/status/c.2",
        "mlp-a/run_id/c.0",
        "mlp-b/layout.txt",
    ],
)
def test_altered_or_foreign_file_is_reported(full, name):
    file = full / name
    if file.exists():
        flip(file, file.stat().st_size // 2)
    else:
        file.write_text("?")
    assert any(name in p for p in verify_store(full).problems)


def test_an_altered_seal_costs_the_state_of_its_task_alone(full, plan):
    weights = StoreReader(full).cohorts[0].read_weights(range(13), 3)
    flip(full / "_zoo/tasks/mlp-a/1/seal.json", 60)
    one = StoreReader(full).cohorts[0]
    assert set(one.status[5:10].tolist()) <= {"failed", "diverged"}
    assert "tasks/mlp-a/1/seal.json" in one.reason[5]
    assert one.status[0] == "done"
    np.testing.assert_array_equal(one.read_weights(range(13), 3), weights)
    states = task_states(full)
    assert [s.task.index for s in states if s.failed] == [1]
    task = states[1].task
    with pytest.raises(StoreCorruptError, match="zoo repair"):
        TaskWriter(full, plan.cohorts[0], task)
    assert repair_task(full, task) == plan.cohorts[0].checkpoints
    assert verify_store(full).problems == ()
    assert StoreReader(full).cohorts[0].status[5] == "done"


def test_repaired_task_is_trained_again_to_the_same_bits(full, plan):
    cohort = plan.cohorts[0]
    task = list(cohort.tasks())[1]
    whole = content_hash(full)
    assert repair_task(full, task) is None
    flip(full / SHARD, 30)
    assert content_hash(full) != whole
    assert repair_task(full, task) == 2
    assert StoreReader(full).cohorts[0].last[5] == 1
    assert verify_store(full).problems == ()
    fab.train_task(full, cohort, task)
    assert content_hash(full) == whole
    assert verify_store(full).problems == ()


def test_damaged_outcome_is_written_again(full, plan):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    whole = content_hash(full)
    (full / "mlp-a/metrics/c.0.0.0").unlink()
    assert repair_task(full, task) == cohort.checkpoints
    fab.train_task(full, cohort, task)
    assert content_hash(full) == whole


def test_repair_of_an_owned_task_is_refused(full, plan):
    task = next(plan.tasks())
    with claim_task(full, task) as owned:
        assert owned
        with pytest.raises(StoreBusyError):
            repair_task(full, task)


def test_damaged_resume_state_costs_one_checkpoint(empty, plan):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    fab.train_task(empty, cohort, task, stop=3)
    flip(empty / "_zoo/tasks/mlp-a/0/2.npz", 200)
    with TaskWriter(empty, cohort, task) as writer:
        assert writer.committed == 3
        assert writer.resume_point().index == 1
        writer.commit(fab.make_checkpoint(cohort, task, 2))
        assert writer.resume_point().index == 2
        for file in (empty / "_zoo/tasks/mlp-a/0").glob("*.npz"):
            file.unlink()
        assert writer.resume_point() is None
        writer.commit(fab.make_checkpoint(cohort, task, 0))
        assert writer.committed == 3


def test_damaged_shard_stops_a_resume(empty, plan):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    fab.train_task(empty, cohort, task, stop=3)
    flip(empty / "mlp-a/weights/c.0.2.0", 40)
    with TaskWriter(empty, cohort, task) as writer, pytest.raises(StoreCorruptError):
        writer.resume_point()
    assert repair_task(empty, task) == 2
    fab.train_task(empty, cohort, task)
    assert verify_store(empty).problems == ()


def test_a_checkpoint_that_does_not_fit_is_refused(empty, plan):
    cohort = plan.cohorts[0]
    first, second, third = cohort.tasks()
    good = fab.make_checkpoint(cohort, first, 0)
    with TaskWriter(empty, cohort, first) as writer:
        with pytest.raises(StoreError, match="comes after 0 committed"):
            writer.commit(fab.make_checkpoint(cohort, first, 1))
        with pytest.raises(StoreError, match=r"weights are float32 \(3, 300\)"):
            writer.commit(fab.make_checkpoint(cohort, third, 0))
        with pytest.raises(StoreError, match="probe logits have the shape None"):
            writer.commit(fab.make_checkpoint(cohort, first, 0, probe=0))
        writer.commit(good)
        writer.commit(good)
        with pytest.raises(StoreError, match="other bits than are committed"):
            writer.commit(fab.with_weight(good, 7.0))
        with pytest.raises(StoreError, match="1 of 4 checkpoints"):
            writer.seal({})
        for k in (1, 2):
            writer.commit(fab.make_checkpoint(cohort, first, k))
        healed = fab.make_checkpoint(cohort, first, 3)
        healed.diverged_step[2] = -1
        with pytest.raises(StoreError, match="another diverged_step"):
            writer.commit(healed)
    other = fab.make_cohort("mlp-a", params=301)
    with pytest.raises(StoreError, match="another form"):
        TaskWriter(empty, other, second)


def test_object_arrays_are_refused(empty, plan):
    cohort = plan.cohorts[0]
    task = next(cohort.tasks())
    checkpoint = fab.make_checkpoint(cohort, task, 0)
    checkpoint.resume["odd"] = np.array([{}], dtype=object)
    with TaskWriter(empty, cohort, task) as writer, pytest.raises(StoreError, match="odd"):
        writer.commit(checkpoint)
    assert StoreReader(empty).cohorts[0].last[0] == -1


def test_hash_sees_every_zarr_byte_and_no_record(full, plan, tmp_path):
    whole = content_hash(full)
    (full / "_zoo/tasks/mlp-a/0/seal.json").write_text("?")
    (full / "mlp-a/weights/x.tmp").write_text("?")
    assert content_hash(full) == whole
    again = tmp_path / "again.zarr"
    create_store(again, plan, sweep_toml="other", provenance={})
    fab.fill(again, plan)
    assert content_hash(again) == whole
    flip(full / "mlp-a/lr/c.0", 2)
    assert content_hash(full) != whole


def test_what_a_kill_left_without_a_mark_is_named_and_cleared(full, plan):
    (full / "_zoo/staging/mlp-c").mkdir(parents=True)
    task = next(plan.tasks())
    left = [full / "_zoo/tasks/mlp-a/0" / name for name in ("3.npz", "pause.npz")]
    for file in left:
        file.write_bytes(b"")
    strays = verify_store(full).strays
    assert {"_zoo/staging", *(f"_zoo/tasks/mlp-a/0/{file.name}" for file in left)} == {*strays}
    repair_task(full, task)
    repair_added(full)
    assert not (full / "_zoo/staging").exists()
    assert verify_store(full).strays == ()
    assert not any(file.exists() for file in left)


def test_a_seal_written_again_drops_the_states(full, plan):
    task = next(plan.tasks())
    file = full / "_zoo/tasks/mlp-a/0/pause.npz"
    file.write_bytes(b"")
    with TaskWriter(full, plan.cohorts[0], task) as writer:
        writer.seal({})
    assert not file.exists()
