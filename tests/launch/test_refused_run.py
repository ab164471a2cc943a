"""A run that is refused writes nothing, so that the next one is not refused on its account."""

from __future__ import annotations

import pytest

import zoo
from zoo.errors import SpecError, TrainError
from zoo.launch.local import run
from zoo.store import read_plan
from zoo.train import backends

BASE = {"train_size": 128, "batch_size": 64, "epochs": 1, "width": 4}


def sweep(**base):
    return zoo.Sweep(name="refused", base={**BASE, **base}, grid={"seed": [0, 1]})


@pytest.fixture
def bare(monkeypatch):
    """A machine with no card and no compiler."""
    monkeypatch.setattr(backends.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(backends.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    backends.can_compile.cache_clear()
    yield
    backends.can_compile.cache_clear()


@pytest.mark.parametrize(
    ("wish", "base", "error", "message"),
    [
        ({"device": "cuda"}, {}, TrainError, "finds no GPU"),
        ({"backend": "compiled"}, {}, TrainError, "C\\+\\+ compiler"),
        ({"backend": "reference"}, {"precision": "bfloat16"}, SpecError, "precision"),
    ],
)
def test_nothing_is_left_that_blocks_the_next_run(bare, tmp_path, wish, base, error, message):
    store = tmp_path / "deep" / "z.zarr"
    with pytest.raises(error, match=message):
        run(sweep(**base), store, workers=0, **wish)
    assert list(tmp_path.iterdir()) == []
    assert run(sweep(), store, workers=0, device="cpu", backend="eager").complete


def test_a_refused_extension_leaves_the_store_as_it_was(bare, tmp_path):
    store = tmp_path / "z.zarr"
    assert run(sweep(), store, workers=0).complete
    more = zoo.Sweep(name="refused", base=BASE, grid={"seed": [0, 1, 2]}, run={"backend": "eager"})
    with pytest.raises(SpecError, match="another type of device"):
        run(more, store, workers=0, device="cuda")
    with pytest.raises(SpecError, match="another backend"):
        run(more, store, workers=0, backend="compiled")
    assert read_plan(store).models == 2
    assert run(more, store, workers=0).models == 3
