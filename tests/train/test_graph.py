"""A captured step: the book-keeping on any machine, the CUDA graph where there is a device."""

from __future__ import annotations

import pytest
import torch
from engine_cases import same_bits, specs, train, trajectories

from zoo.train import backends, trainer
from zoo.train.backends import eager_step
from zoo.train.graph import graphed
from zoo.train.span import in_turn

KINDS = [{"momentum": 0.9}, {"norm": "batch", "optimizer": "adamw"}, {"steps": 5, "dropout": 0.2}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_replayed_step_is_the_step(kind, monkeypatch):
    """The capture is replaced by one that runs the function again at the recorded addresses."""
    runs = specs(5, **kind)
    wanted = trajectories(*train(runs, group_rows=3))
    captures = []

    def capture(function):
        captures.append(function)
        return function

    def captured(recipe, backend, *, device):
        return in_turn(graphed(eager_step(recipe), capture=capture))

    monkeypatch.setattr(trainer, "step_function", captured)
    found = trajectories(*train(runs, group_rows=3))
    assert len(captures) == 2, "one recording a group"
    assert all(same_bits(found[run_id], wanted[run_id]) for run_id in wanted)


def test_only_a_gpu_captures(monkeypatch):
    wrapped = []
    monkeypatch.setattr(backends, "graphed", lambda take: wrapped.append(take) or take)
    train(specs(2))
    assert not wrapped


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_cuda_graph_has_the_bits_of_launches(kind, monkeypatch):
    from test_gpu import train_on

    runs = specs(5, **kind)
    found = trajectories(*train_on("cuda", runs))
    monkeypatch.setattr(backends, "graphed", lambda take: take)
    wanted = trajectories(*train_on("cuda", runs))
    assert all(same_bits(found[run_id], wanted[run_id]) for run_id in wanted)
