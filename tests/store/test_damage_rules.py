"""What damage, kills and hostile records may not do to a store."""

from __future__ import annotations

import shutil

import everything as all_of
import fabricated_store as fab
import numpy as np
import pytest

from zoo.cli.main import main
from zoo.dataset.snapshots import list_snapshots
from zoo.dataset.zoo import open as open_zoo
from zoo.errors import StoreCorruptError, StoreError, StoreMissingError
from zoo.store import (
    DerivedColumn,
    StageFolder,
    StoreReader,
    TaskWriter,
    extend_store,
    publish,
    read_plan,
    read_provenance,
    read_sweep_text,
    repair_added,
    repair_task,
    verify_store,
)
from zoo.store import verify as verify_module
from zoo.store.chunks import encode_chunk
from zoo.store.commits import FileCheck
from zoo.store.paths import StorePaths
from zoo.store.records import read_record, record_bytes
from zoo.store.resume import pause_bytes, read_pause
from zoo.train.pause import PausePoint


def flip(path, place, bit=3):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))


def test_a_checksum_tells_files_apart_whose_parts_end_in_their_own():
    """CRC-32C is linear: over parts that end in their own one it depends on lengths alone."""
    one, two = (encode_chunk(np.arange(9.0) + i, dtype="float64") for i in (0, 1))
    assert FileCheck.of(one).crc32c == FileCheck.of(two).crc32c
    assert FileCheck.of(one) != FileCheck.of(two)
    assert FileCheck.of(one).fits(one)
    assert not FileCheck.of(one).fits(two)


def test_shards_that_were_swapped_are_seen_by_reading_and_by_verify(full):
    one, two = full / "mlp-a/weights/c.0.2.0", full / "mlp-a/weights/c.1.2.0"
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    for row in (0, 5):
        with pytest.raises(StoreCorruptError, match="other runs' values"):
            StoreReader(full).cohorts[0].read_weights([row], [2])
    problems = "\n".join(verify_store(full).problems)
    assert "weights/c.0.2.0" in problems
    assert "weights/c.1.2.0" in problems


@pytest.mark.parametrize("name", ["sweep.toml", "provenance.json", "plan.json", "plan.copy.json"])
def test_the_plan_and_what_is_beside_it_stand_in_for_each_other(full, name, capsys):
    wanted = read_sweep_text(full), read_provenance(full), read_plan(full).to_json()
    file = full / "_zoo" / name
    whole = file.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 5)):
        flip(file, place)
        assert (read_sweep_text(full), read_provenance(full), read_plan(full).to_json()) == wanted
        assert any(name in p and "zoo repair" in p for p in verify_store(full).problems)
        assert main(["repair", str(full)]) == 0
        assert file.read_bytes() == whole
    capsys.readouterr()


def test_a_damaged_record_of_a_failure_is_a_failure_that_says_so(empty, plan, capsys):
    task = next(plan.tasks())
    with TaskWriter(empty, plan.cohorts[0], task) as writer:
        writer.fail("an old failure", "traceback")
    file = empty / "_zoo/tasks/mlp-a/0/failure-0.json"
    flip(file, 60)
    (failure,) = StoreReader(empty).failures()
    assert "failure-0.json" in failure.reason
    assert main(["status", str(empty)]) in (0, 1, 2)
    assert any("failure-0.json" in p for p in verify_store(empty).problems)
    assert main(["repair", str(empty)]) == 0
    assert StoreReader(empty).failures() == []
    capsys.readouterr()


def test_outcomes_and_seals_are_written_anew_and_nothing_has_to_be_trained(full, capsys):
    for name in ("mlp-a/metrics/c.0.0.0", "_zoo/tasks/mlp-a/0/seal.json"):
        flip(full / name, 60)
        assert main(["repair", str(full)]) == 0
        said = capsys.readouterr().out
        assert "task 0 of mlp-a: outcomes and seal written anew" in said
        assert "zoo run" not in said
        assert verify_store(full).problems == ()


def test_every_flipped_bit_of_a_pause_is_seen(empty, plan):
    cohort = plan.cohorts[0]
    first, second, _ = cohort.tasks()
    paths = StorePaths(empty)
    point = PausePoint(2, 0, 1, {"weights": np.zeros((4, 9), np.float32)})
    whole = pause_bytes(cohort, first, point)
    file = paths.pause(first)
    file.parent.mkdir(parents=True)
    file.write_bytes(whole)
    assert read_pause(paths, cohort, first, 2).progress == point.progress
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        file.write_bytes(bytes(data))
        assert read_pause(paths, cohort, first, 2) is None
    file.write_bytes(pause_bytes(cohort, second, point))
    assert read_pause(paths, cohort, first, 2) is None
    assert any("pause.npz" in p for p in verify_store(empty).problems)
    assert repair_task(empty, first) is None
    assert verify_store(empty).problems == ()


def test_a_damaged_or_swapped_part_of_a_stage_is_not_done(empty):
    folder = StageFolder(empty, "landscape", {"a": 1})
    for part in ("one", "two"):
        folder.write(part, {"x": np.full(3, ord(part[0]))})
    one, two = folder.folder / "one.npz", folder.folder / "two.npz"
    whole = one.read_bytes(), two.read_bytes()
    one.write_bytes(whole[1])
    two.write_bytes(whole[0])
    assert folder.parts_done() == frozenset()
    assert len(verify_store(empty).problems) == 2
    repair_added(empty)
    assert not one.exists()
    assert verify_store(empty).problems == ()
    folder.write("one", {"x": np.zeros(1)})
    (folder.folder / "settings.json").write_text("{")
    assert any("settings.json" in p for p in verify_store(empty).problems)
    repair_added(empty)
    assert verify_store(empty).problems == ()


def test_verify_takes_what_comes_meanwhile_for_no_damage(empty, plan, monkeypatch):
    """Between its look at the tasks and its walk, tasks end, a cohort comes, columns are added."""
    cohort = plan.cohorts[0]
    first, second, _ = cohort.tasks()
    fab.train_task(empty, cohort, first, stop=2)
    grown = all_of.whole_plan()
    new = grown.cohorts[2]
    looked = verify_module._check_added

    def later(found, known):
        fab.train_task(empty, cohort, first)
        fab.train_task(empty, cohort, second, stop=3)
        extend_store(empty, grown)
        fab.train_task(empty, new, next(new.tasks()))
        looked(found, known)
        values = np.zeros(cohort.models)
        column = DerivedColumn(cohort.id, "late", ("model",), values, "late")
        publish(empty, [column], stage="landscape", stage_id="0" * 12)

    monkeypatch.setattr(verify_module, "_check_added", later)
    assert verify_store(empty).problems == ()
    monkeypatch.undo()
    assert verify_store(empty).problems == ()


def test_a_killed_extension_is_cleared(full, plan, monkeypatch, capsys):
    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.store.create.write_atomic", die)
    with pytest.raises(KeyboardInterrupt):
        extend_store(full, all_of.whole_plan())
    monkeypatch.undo()
    report = verify_store(full)
    assert report.problems == ()
    assert any(name.startswith("mlp-c/") for name in report.strays)
    assert main(["repair", str(full)]) == 0
    assert not (full / "mlp-c").exists()
    assert not (full / "_zoo/staging").exists()
    assert verify_store(full).strays == ()
    capsys.readouterr()


def test_a_killed_publication_is_cleared(full, plan, monkeypatch, capsys):
    cohort = plan.cohorts[0]
    column = DerivedColumn(cohort.id, "late", ("model",), np.zeros(cohort.models), "late")

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("zoo.store.derived._write_group", die)
    with pytest.raises(KeyboardInterrupt):
        publish(full, [column], stage="landscape", stage_id="0" * 12)
    monkeypatch.undo()
    assert verify_store(full).problems == ()
    assert main(["repair", str(full)]) == 0
    assert not (full / "mlp-a/late").exists()
    assert verify_store(full) == verify_store(full)
    assert verify_store(full).strays == ()
    capsys.readouterr()


def test_names_in_a_plan_cannot_leave_the_store(full):
    for name in ("../victim.zarr/mlp-a", "a/b", "..", "", "-x"):
        body = read_record(full / "_zoo/plan.json", "plan")
        body["plan"]["cohorts"][0]["id"] = name
        for file in ("plan.json", "plan.copy.json"):
            (full / "_zoo" / file).write_bytes(record_bytes("plan", body))
        with pytest.raises(StoreCorruptError, match="allowed"):
            read_plan(full)
        assert verify_store(full).problems


def test_nothing_is_written_through_a_link(full, plan, tmp_path):
    victim = shutil.copytree(full, tmp_path / "victim.zarr")
    shutil.rmtree(full / "mlp-a")
    (full / "mlp-a").symlink_to(victim / "mlp-a")
    before = {p: p.read_bytes() for p in victim.rglob("*") if p.is_file()}
    task = next(plan.tasks())
    with pytest.raises(StoreError, match="through a link"):
        TaskWriter(full, plan.cohorts[0], task)
    with pytest.raises(StoreError, match="through a link"):
        repair_task(full, task, first=0)
    column = DerivedColumn("mlp-a", "late", ("model",), np.zeros(13), "late")
    with pytest.raises(StoreError, match="through a link"):
        publish(full, [column], stage="landscape", stage_id="0" * 12)
    assert {p: p.read_bytes() for p in victim.rglob("*") if p.is_file()} == before


def test_a_store_that_is_gone_gets_no_skeleton(empty, plan):
    cohort = plan.cohorts[0]
    first, second, _ = cohort.tasks()
    with TaskWriter(empty, cohort, first) as writer:
        writer.commit(fab.make_checkpoint(cohort, first, 0))
        empty.rename(empty.with_name("moved.zarr"))
        with pytest.raises(StoreMissingError):
            writer.commit(fab.make_checkpoint(cohort, first, 1))
    with pytest.raises(StoreMissingError):
        TaskWriter(empty, cohort, second)
    assert not empty.exists()
    assert StoreReader(empty.with_name("moved.zarr")).cohorts[0].last[0] == 0


def test_a_damaged_snapshot_hides_no_other(full, capsys):
    zoo = open_zoo(full)
    for name in ("paper", "poster", "talk"):
        zoo.query("status == 'done'").snapshot(name)
    folder = full / "_zoo/snapshots"
    flip(folder / "paper.json", 60)
    (folder / "poster.json").write_bytes((folder / "talk.json").read_bytes())
    assert [s.name for s in list_snapshots(zoo)] == ["talk"]
    for name in ("paper", "poster"):
        with pytest.raises(StoreCorruptError, match="zoo repair"):
            zoo.snapshot(name)
    assert len(verify_store(full).problems) == 2
    assert main(["repair", str(full)]) == 0
    assert len(zoo.query("status == 'done'").snapshot("paper").hash) == 64
    capsys.readouterr()
