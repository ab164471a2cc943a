"""Exports: what other libraries read back is what the store holds."""

from __future__ import annotations

import ast
import csv
import gzip
import json
import random

import numpy as np
import pytest
import torch
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan, make_store

from zoo.architectures import build
from zoo.data import DataShape
from zoo.dataset import Zoo
from zoo.dataset.exports import EXPORTS
from zoo.dataset.exports.permutation_spec import permutation_spec
from zoo.dataset.exports.small_cnn_zoo import write_small_cnn_zoo
from zoo.dataset.splits import split_by
from zoo.dataset.structure import only_structure
from zoo.errors import QueryError, StoreError
from zoo.spec.run import RunSpec


@pytest.fixture
def zoo():
    return Zoo(make_store(3, cuts=False))


def test_hdf5_holds_weights_columns_layout_and_parts(zoo, tmp_path):
    h5py = pytest.importorskip("h5py")
    view = zoo.query().sort("test_accuracy")
    split = split_by(view, "run", fractions={"train": 0.5, "test": 0.5})
    made = EXPORTS["hdf5"].write(view, tmp_path / "x.h5", split)
    assert (made.files, made.bytes) == (1, (tmp_path / "x.h5").stat().st_size)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file.attrs["rows"] == len(view)
        assert file.attrs["split"] == split.hash
        for group, part in zip(file.values(), view.by_cohort().values(), strict=True):
            np.testing.assert_array_equal(group["weights"][:], part.weights())
            np.testing.assert_array_equal(group["test_accuracy"][:], part["test_accuracy"])
            assert group["run_id"].asstr()[:].tolist() == part["run_id"].tolist()
            sides = [split.side(run) for run in part["run_id"].tolist()]
            assert group["part"].asstr()[:].tolist() == sides
            layout = json.loads(group.attrs["layout"])
            assert layout == only_structure(part).layout.to_json()
            assert group["weights"].fletcher32
    with pytest.raises(StoreError, match=r"x\.h5 exists"):
        EXPORTS["hdf5"].write(view, tmp_path / "x.h5", None)
    assert not list(tmp_path.glob(".*"))


def test_safetensors_are_read_by_its_own_library(zoo, tmp_path):
    library = pytest.importorskip("safetensors.torch")
    from safetensors import safe_open

    view = zoo.query("checkpoint > 1").sort("test_accuracy")
    made = EXPORTS["safetensors"].write(view, tmp_path / "st", None)
    with (tmp_path / "st" / "index.csv").open() as file:
        index = list(csv.DictReader(file))
    assert len(index) == len(view) == made.files - 1
    for i, line in enumerate(index):
        assert line["run_id"] == view[i]["run_id"]
        state = library.load_file(tmp_path / "st" / line["file"])
        model = view.model(i)
        # BatchNorm's counter is torch's own, and no part of a row
        model.load_state_dict(state, strict="num_batches_tracked" not in str(model.state_dict()))
        for name, value in view.state_dict(i).items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(state[name], value)
        with safe_open(tmp_path / "st" / line["file"], "pt") as file:
            facts = file.metadata()
        assert facts["run_id"] == line["run_id"]
        assert float(facts["lr"]) == view[i]["lr"]
        assert all(facts.values())


def cnn_zoo(architecture="cnn", *, runs=8, norm="none"):
    rng = np.random.default_rng(0)
    specs = [
        RunSpec(width=16, architecture=architecture, norm=norm, epochs=4, seed=s)
        for s in range(runs)
    ]
    cohort = make_cohort(specs, checkpoints=3)
    source = MemoryCohort(cohort, np.ones((runs, 3), bool), rng)
    return Zoo(MemoryStore(make_plan((cohort,)), [source]))


def load_like_the_consumers(folder, mode):
    """Read the layout of the Small CNN Zoo as the loaders of neural functionals do."""
    data = np.load(folder / "weights.npy")
    with gzip.open(folder / "metrics.csv.gz", "rt") as file:
        metrics = list(csv.DictReader(file))
    with (folder / "layout.csv").open() as file:
        layout = list(csv.DictReader(file))
    order = [int(line) for line in (folder / "split.csv").read_text().split()]
    assert sorted(order) == list(range(len(data)))
    data, metrics = data[order], [metrics[i] for i in order]
    final = [i for i, m in enumerate(metrics) if int(m["step"]) == 86]
    data, metrics = data[final], [metrics[i] for i in final]
    assert np.isfinite(data).all()
    half = int(0.5 * len(data))
    first = list(range(half))
    random.Random(0).shuffle(first)
    cut = int(0.8 * half)
    at = {"train": first[:cut], "val": first[cut:], "test": list(range(half, len(data)))}[mode]
    weights, biases = [], []
    for row in layout:
        part = data[at, int(row["start_idx"]) : int(row["end_idx"])]
        part = part.reshape(len(at), *ast.literal_eval(row["shape"]))
        if row["varname"].endswith("kernel:0"):
            axes = {5: (0, 4, 3, 1, 2), 3: (0, 2, 1)}[part.ndim]
            weights.append(part.transpose(axes))
        elif row["varname"].endswith("bias:0"):
            biases.append(part)
        else:
            raise ValueError(row["varname"])
    return weights, biases, [metrics[i] for i in at]


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_the_loaders_of_the_small_cnn_zoo_get_our_models(tmp_path, architecture):
    zoo = cnn_zoo(architecture)
    view = zoo.query().sort("test_accuracy")  # an order that is not by run
    write_small_cnn_zoo(view, tmp_path / "scz")
    seen = {}
    for mode in ("train", "val", "test"):
        weights, biases, metrics = load_like_the_consumers(tmp_path / "scz", mode)
        assert len(weights) == len(biases)
        for i, facts in enumerate(metrics):
            seen[facts["modeldir"]] = mode
            one = zoo.query(f"run_id == '{facts['modeldir']}' and epoch == -1")
            assert float(facts["test_accuracy"]) == pytest.approx(one[0]["test_accuracy"])
            state = [v for k, v in one.state_dict(0).items() if k.endswith("weight")]
            for ours, theirs in zip(state, weights, strict=True):
                np.testing.assert_array_equal(ours.numpy(), theirs[i])
            state = [v for k, v in one.state_dict(0).items() if k.endswith("bias")]
            for ours, theirs in zip(state, biases, strict=True):
                np.testing.assert_array_equal(ours.numpy(), theirs[i])
    assert len(seen) == 8
    assert list(seen.values()).count("test") == 4


def test_a_kernel_of_the_small_cnn_zoo_convolves_as_ours(tmp_path):
    """The axes are (height, width, in, out): convolve by hand with what the file says."""
    zoo = cnn_zoo()
    write_small_cnn_zoo(zoo.query(epoch=-1), tmp_path / "scz")
    weights, biases, metrics = load_like_the_consumers(tmp_path / "scz", "test")
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    run = zoo.query(f"run_id == '{metrics[0]['modeldir']}'", epoch=-1)
    ours = x
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        ours = torch.conv2d(
            ours, torch.from_numpy(w[0].copy()), torch.from_numpy(b[0].copy()), stride=2, padding=1
        ).relu()
    ours = ours.mean((2, 3)) @ torch.from_numpy(weights[-1][0].copy()).T + torch.from_numpy(
        biases[-1][0].copy()
    )
    with torch.no_grad():
        torch.testing.assert_close(ours, run.model(0)(x), rtol=1e-4, atol=1e-4)


def test_the_small_cnn_zoo_keeps_a_split_or_says_that_it_cannot(tmp_path):
    zoo = cnn_zoo()
    view = zoo.query()
    split = split_by(view, "seed", fractions={"train": 0.25, "val": 0.25, "test": 0.5}, seed=2)
    write_small_cnn_zoo(view, tmp_path / "a", split)
    for mode in ("train", "val", "test"):
        for facts in load_like_the_consumers(tmp_path / "a", mode)[2]:
            assert (split.side(facts["modeldir"]) == "test") == (mode == "test")
    uneven = split_by(view, "seed", fractions={"train": 0.75, "test": 0.25})
    with pytest.raises(QueryError, match="train on the first half of 8 runs"):
        write_small_cnn_zoo(view, tmp_path / "b", uneven)
    with pytest.raises(QueryError, match="norm 'layer'"):
        write_small_cnn_zoo(cnn_zoo(norm="layer").query(), tmp_path / "c")
    with pytest.raises(QueryError, match="2 structures"):
        write_small_cnn_zoo(Zoo(make_store(0)).query(), tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_permutation_specs_say_what_git_re_basin_reads():
    view = cnn_zoo().query()
    spec = permutation_spec(only_structure(view))
    assert spec["axes_to_perm"]["hidden.1.conv.weight"] == [
        "hidden.1.conv", "hidden.0.conv", None, None,
    ]  # fmt: skip
    assert spec["axes_to_perm"]["output.weight"] == [None, "hidden.2.conv"]
    assert spec["axes_to_perm"]["output.bias"] == [None]
    for name, axes in spec["perm_to_axes"].items():
        for key, axis in axes:
            assert spec["axes_to_perm"][key][axis] == name
    network = build(RunSpec(width=16, architecture="cnn"), DataShape((1, 8, 8), 10))
    assert set(spec["axes_to_perm"]) == set(dict(network.module().named_parameters()))
