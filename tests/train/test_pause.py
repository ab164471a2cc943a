"""Saved between two checkpoints and gone on with by another process: the bits are the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from engine_cases import plan_of, same_bits, specs

from zoo.spec.record import RecordSpec
from zoo.spec.run import RunSpec
from zoo.store import TaskWriter, content_hash, create_store
from zoo.train import segment
from zoo.train.checkpoint import ResumePoint
from zoo.train.pause import PausePoint
from zoo.train.plan import Task
from zoo.train.trainer import TaskTrainer

KINDS = {
    "mlp": {"momentum": 0.9},
    "batch-adamw": {"norm": "batch", "optimizer": "adamw", "lr": 1e-3},
    "dropout-noise": {"dropout": 0.2, "label_noise": 0.2},
    "diverging": {"lr": 1e9, "momentum": 0.9},
}
RECORD = RecordSpec(steps=(20,), probe_size=8)


class Collect:
    """Saves at every chance."""

    def __init__(self):
        self.points: list[PausePoint] = []

    def due(self):
        return True

    def save(self, point):
        copies = {name: np.array(values) for name, values in point.arrays.items()}
        self.points.append(dataclasses.replace(point, arrays=copies))


def setting(runs, *, group_rows=4, backend="eager"):
    planned = plan_of(runs, record=RECORD, backend=backend)
    (cohort,) = planned.cohorts
    cohort = dataclasses.replace(cohort, group_rows=group_rows)
    return planned, cohort, Task(cohort.id, 0, 0, cohort.models)


def same(found, wanted):
    assert [c.index for c in found] == [c.index for c in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert same_bits(a.weights, b.weights)
        assert same_bits(a.diverged_step, b.diverged_step)
        assert same_bits(a.probe, b.probe)
        for name in b.metrics:
            assert same_bits(a.metrics[name], b.metrics[name]), name
        for name in b.resume:
            assert same_bits(a.resume[name], b.resume[name]), name


def runs_of(kind):
    """Ten runs of lengths 52 and 70, so that groups are uneven and the last has dummies."""
    return [
        RunSpec(**{**run.to_dict(), "steps": 52 if i % 3 else 70, "epochs": None})
        for i, run in enumerate(specs(10, **KINDS[kind]))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_from_any_point_gives_the_same_bits(kind, monkeypatch):
    monkeypatch.setattr(segment, "_BLOCK_IDS", 1)  # blocks of 16 steps
    parts = setting(runs_of(kind))
    whole = list(TaskTrainer(*parts).run())
    collect = Collect()
    same(list(TaskTrainer(*parts).run(pauses=collect)), whole)
    points = collect.points
    assert {p.group for p in points} == {0, 1, 2}
    assert any(p.offset for p in points)
    assert any(not p.offset for p in points), "no point between two groups"
    for point in points[::2]:
        same(list(TaskTrainer(*parts).run(pause=point)), whole[point.index :])


def test_a_pause_counts_for_more_than_the_checkpoint_before(monkeypatch):
    monkeypatch.setattr(segment, "_BLOCK_IDS", 1)
    parts = setting(specs(4, steps=70, momentum=0.9))
    whole = list(TaskTrainer(*parts).run())
    collect = Collect()
    list(TaskTrainer(*parts).run(pauses=collect))
    before = whole[1]
    resume = ResumePoint(1, before.weights, before.diverged_step, before.resume)
    last = collect.points[-1]
    steps = []
    trainer = TaskTrainer(*parts)
    take = trainer.take
    trainer.take = lambda *args: (steps.append(1), take(*args))
    same(list(trainer.run(resume, pause=last)), whole[2:])
    assert len(steps) == 50 - last.offset  # and not the 50 of the whole segment


def test_through_a_store(tmp_path, monkeypatch):
    """What is saved is found again, is gone after the commit, and never counts as content."""
    monkeypatch.setattr(segment, "_BLOCK_IDS", 1)
    planned, cohort, task = setting(specs(4, steps=70, momentum=0.9), group_rows=4)
    planned = dataclasses.replace(planned, cohorts=(cohort,))
    path = tmp_path / "z.zarr"
    create_store(path, planned, sweep_toml="", provenance={})
    collect = Collect()
    whole = list(TaskTrainer(planned, cohort, task).run(pauses=collect))
    point = next(p for p in collect.points if p.index == 2 and p.offset)
    with TaskWriter(path, cohort, task) as writer:
        assert writer.pause_point() is None
        writer.commit(whole[0])
        before = content_hash(path)
        writer.save_pause(point)
        assert writer.pause_point() is None, "a point of another checkpoint was taken"
        assert content_hash(path) == before
        writer.commit(whole[1])
        writer.save_pause(point)
        found = writer.pause_point()
        assert found.progress == point.progress
        assert {n: v.tobytes() for n, v in found.arrays.items()} == {
            n: v.tobytes() for n, v in point.arrays.items()
        }
        file = next(path.glob("_zoo/tasks/*/0/pause.npz"))
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        assert writer.pause_point() is None, "a damaged point was taken"
        for checkpoint in TaskTrainer(planned, cohort, task).run(writer.resume_point()):
            writer.commit(checkpoint)
        assert not file.exists()
