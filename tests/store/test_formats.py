"""Stores of earlier versions: each opens, says what it said, verifies, and can be added to."""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from zoo.cli import main
from zoo.landscape.stacked import Probe
from zoo.plugins import load_plugin, loaded_plugins, unload_plugin
from zoo.store import StoreReader, content_hash, read_plan, verify_store

ARCHIVES = sorted((Path(__file__).parent / "formats").glob("format_*.tar.xz"))


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def held(request, tmp_path):
    """An archive, unpacked; its data are found by their environment variables."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("wells", "flow"):
            patch.setenv(f"ZOO_DATA_NPZ_{name.upper()}", str(tmp_path / f"{name}.npz"))
        yield tmp_path
    for plugin in loaded_plugins():
        if tmp_path in plugin.path.parents:
            unload_plugin(plugin.path)


def test_every_format_up_to_this_one_is_there():
    from zoo.store.schema import FORMAT_VERSION

    assert [path.name for path in ARCHIVES] == [
        f"format_{number}.tar.xz" for number in range(2, FORMAT_VERSION + 1)
    ]


def test_it_says_what_it_said(held):
    said = json.loads((held / "said.json").read_text())
    path = held / "z.zarr"
    view = zoo.open(path).query()
    assert content_hash(path) == said["content_hash"]
    assert {k: f["fingerprint"] for k, f in read_plan(path).data.items()} == said["data"]
    for name, wanted in said["columns"].items():
        found = np.asarray(view[name]).tolist()
        same = [a == b or (b is None and a != a) for a, b in zip(found, wanted, strict=True)]
        assert all(same), name


def test_it_is_whole(held):
    for name in ("z.zarr", "half.zarr"):
        assert verify_store(held / name).problems == ()
        assert main(["verify", str(held / name)]) == 0


def test_its_models_do_what_was_recorded(held):
    found = zoo.open(held / "z.zarr")
    load_plugin(held / "cube.py")
    for text in ("norm == 'batch'", "activation == 'cube'", "data == 'npz:flow'"):
        view = found.query(f"epoch == -1 and status == 'done' and {text}")
        spec, cohort = view.spec(0), found.plan.cohorts[int(view.cohort_index[0])]
        data = found.data(found.plan.data_key(spec))
        with torch.no_grad():
            z = view.model(0)(torch.from_numpy(np.array(data.test_x)))
        from zoo.train.task_data import cohort_objective

        y = torch.from_numpy(np.array(data.test_y))[None]
        weight = torch.full((1, len(z)), 1 / len(z))
        probe = Probe(z, y, weight, cohort_objective(cohort))
        assert float(probe.mean_loss(z[None])) == pytest.approx(view["test_loss"][0], rel=1e-4)


def test_what_was_begun_is_finished(held):
    path = held / "half.zarr"
    before = StoreReader(path).cohorts[0]
    rows = np.arange(before.cohort.models)
    kept = [before.read_weights(rows, np.full_like(rows, k)) for k in (0, 1)]
    assert main(["run", str(path), "--workers", "0"]) == 0
    after = StoreReader(path).cohorts[0]
    assert set(after.status.tolist()) == {"done"}
    for k, values in enumerate(kept):
        np.testing.assert_array_equal(after.read_weights(rows, np.full_like(rows, k)), values)
    assert np.isfinite(after.read_weights(rows, np.full_like(rows, 2))).all()


def test_it_is_added_to(held):
    """Runs are added beside the old ones, which keep their bytes; then every stage again."""
    path, sweep = held / "z.zarr", held / "format.toml"
    before = zoo.open(path).query("epoch == -1")
    known = dict(zip(before["run_id"].tolist(), before["test_loss"].tolist(), strict=True))
    sweep.write_text(sweep.read_text().replace("width = [2, 3]", "width = [2, 3, 4]"))
    plugged = ["--plugin", str(held / "cube.py")]
    assert main(["run", str(sweep), "--out", str(path), "--workers", "0", *plugged]) == 0
    quick = ["--set", "connectivity.min_steps=8", "--set", "probes.train=16"]
    assert main(["landscape", str(path), "--workers", "0", *plugged, *quick]) == 0
    assert main(["label", str(path), *plugged]) == 0
    assert main(["report", str(path), *plugged]) == 0
    view = zoo.open(path).query("epoch == -1")
    assert len(view) == len(before) + 4
    for run_id, loss in zip(view["run_id"].tolist(), view["test_loss"].tolist(), strict=True):
        old = known.get(run_id, loss)
        assert loss == old or (math.isnan(loss) and math.isnan(old))
    assert np.isfinite(view["lambda_max"][view["status"] == "done"]).all()
    assert verify_store(path).problems == ()
