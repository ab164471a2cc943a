"""What a run id is the hash of, and that it is the same for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zoo.registry import vocabulary
from zoo.spec import RunSpec, field_infos
from zoo.spec.catalogue import catalogue
from zoo.spec.check import check_value
from zoo.spec.common import COMMON

#: A change here orphans every store that there is. A default that is changed does it too, since a
#: field at its default leaves no trace: give the entry another name instead, or bump SPEC_VERSION.
PINNED = {
    "3cf671c84f24d945": {},
    "313af01ccdd72db7": {
        "architecture": "cnn",
        "width": 16,
        "norm": "group",
        "optimizer": "adamw",
        "lr": 0.001,
        "seed": 5,
        "schedule": "cosine",
        "warmup": 0.1,
        "steps": 1000,
        "label_noise": 0.1,
        "train_size": 500,
    },
    "661d2dbbee1a3a25": {"optimizer": "muon", "depth": 3, "clip_norm": 1.0},
    "0b24c222cc032a91": {"optimizer": "adamp", "weight_decay": 0.1, "decay_mask": "kernels"},
    "53212eb911f1912b": {"optimizer": "rmsprop", "momentum": 0.5, "alpha": 0.9},
    "c3866ec917b95d6c": {"norm": "ghost_batch", "weight_transform": "standardize"},
    "99c2fe54a6a10f5a": {"norm": "evonorm_s0", "dropout": 0.1, "dropout_seed": 3},
    "28e8b64eee8ffa44": {"schedule": "one_cycle", "augmentation": "shift", "epochs": 3},
    "465e338f19673cde": {"score": "el2n", "keep": 0.3, "select": "window", "offset": 0.2},
    "86ab505087a9118a": {"score": "memorization", "scorer": "epochs=5,width=16", "keep": 0.5},
    "79c4ce33681fd729": {"dynamic": "selective_backprop", "backprop_share": 0.25},
    "43a4148efe17537f": {"data": "npz:wells", "data_sha256": "0" * 64, "precision": "bfloat16"},
    "6104021c7b321f16": {"score": "file:mine.npy", "score_sha256": "1" * 64, "keep": 0.5},
    "ad7316872db44bd6": {"label_smoothing": 0.1, "z_loss": 0.0001, "init": "orthogonal"},
}


@pytest.mark.parametrize("run_id", PINNED)
def test_run_ids_never_change(run_id):
    assert RunSpec(**PINNED[run_id]).run_id == run_id


#: The default of every field, by who declares it. New lines may be added; a changed one gives runs
#: of existing stores another meaning under their old id.
DEFAULTS = json.loads((Path(__file__).parent / "declared_defaults.json").read_text())


def declared():
    """Return ``{"sgd.momentum": 0.0, ...}``: the default of every field, by who declares it."""
    found = {name: info.default for name, info in COMMON.items()}
    for owner, registry in catalogue().owners.items():
        for entry in registry:
            for name, info in registry.about(entry).fields.items():
                found[f"{owner}={entry}.{name}"] = info.default
    return found


def test_no_declared_default_changes():
    assert declared().items() >= DEFAULTS.items()


def test_every_declared_default_is_pinned():
    hint = "add the new ones to declared_defaults.json: tests/spec/test_run_ids.py, declared()"
    assert DEFAULTS.keys() >= declared().keys(), hint


def test_a_field_at_its_default_leaves_no_trace():
    default = RunSpec()
    for name, info in field_infos().items():
        if name not in catalogue().readers and info.default is not None:
            assert RunSpec(**{name: info.default}).run_id == default.run_id, name
    assert RunSpec(optimizer="adam", beta1=0.9).run_id == RunSpec(optimizer="adam").run_id
    assert RunSpec(decay_mask="kernels").run_id == default.run_id  # nothing is decayed
    assert set(default.identity()) == {"version", "epochs", "init_seed", "order_seed"}


#: What an entry is called in a sweep, where it is not its name.
WRITTEN = {"npz": "npz:wells", "file:PATH": "file:mine.npy"}
#: What else a run needs for a field of every run to count.
NEEDS = {
    "augment_seed": {"augmentation": "noise"}, "dropout_seed": {"dropout": 0.1},
    "noise_seed": {"label_noise": 0.1}, "diet_seed": {"score": "random"},
    "decay_mask": {"weight_decay": 0.1},
}  # fmt: skip


def reader_of(name):
    """Return the fields of a run that reads a field."""
    if name not in catalogue().readers:
        return NEEDS.get(name, {})
    owner, entry = catalogue().readers[name][0]
    return {**reader_of(owner), owner: WRITTEN.get(entry, entry)}


def other_value(name, run):
    """Return a value of a field that a run does not have."""
    info, registry = field_infos()[name], vocabulary(name)
    if registry is not None:
        found = [entry for entry in registry if entry != getattr(run, name)]
        return WRITTEN.get(found[0], found[0])
    if info.kind == "str":
        return "width=16" if name == "scorer" else "0" * 64
    if info.kind == "bool":
        return not getattr(run, name)
    fits = (v for v in (7, 0.375, 7.0) if check_value(info, v)[1] is None)
    return next(v for v in fits if v != getattr(run, name))


@pytest.mark.parametrize("name", [n for n in field_infos() if n != "seed"])
def test_every_field_that_is_read_changes_the_run_id(name):
    needs = reader_of(name)
    run = RunSpec(**needs)
    changed = RunSpec(**{**needs, name: other_value(name, run)})
    assert changed.run_id != run.run_id
    assert getattr(changed, name) is not None
