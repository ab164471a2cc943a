"""The code of docs/store.md runs, and what it says about bytes is enough to read a store."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import fabricated_store as fab
import google_crc32c
import numcodecs
import numpy as np

DOC = Path(__file__).parents[2] / "docs" / "store.md"


def test_code_blocks_run(full, plan, monkeypatch):
    monkeypatch.chdir(full.parent)
    blocks = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(DOC), "exec"), names)
    weights, _, _ = fab.expected(plan.cohorts[0])
    np.testing.assert_array_equal(names["trajectory"], weights[3])
    np.testing.assert_array_equal(names["tensor"], weights[3, -1, :290].reshape(29, 10))
    np.testing.assert_array_equal(names["last"], np.delete(weights[:, -1], [2, 7], axis=0))
    rows, checkpoints = names["rows"], names["checkpoints"]
    np.testing.assert_array_equal(names["weights"], weights[rows, checkpoints])


def test_a_reader_written_from_the_page(full, plan):
    """Ten lines that use nothing of ours."""
    cohort, row, k = plan.cohorts[0], 8, 2
    group = json.loads((full / cohort.id / "zarr.json").read_text())["attributes"]
    task, local = divmod(row, group["task_rows"])
    data = (full / cohort.id / "weights" / f"c.{task}.{k}.0").read_bytes()
    index = data[-(16 * group["task_rows"] + 4) :]
    assert google_crc32c.value(index[:-4]) == int.from_bytes(index[-4:], "little")
    offset, length = struct.unpack_from("<QQ", index, 16 * local)
    chunk = data[offset : offset + length]
    assert google_crc32c.value(chunk[:-4]) == int.from_bytes(chunk[-4:], "little")
    found = np.frombuffer(numcodecs.blosc.decompress(chunk[:-4]), "<f4")
    np.testing.assert_array_equal(found, fab.expected(cohort)[0][row, k])


def test_the_check_of_a_record_is_as_the_page_says(full):
    line = (full / "_zoo/tasks/mlp-a/1/2.json").read_text()
    body, check = re.fullmatch(r'(\{.*),"check":(\d+)\}\n', line).groups()
    assert google_crc32c.value((body + "}").encode()) == int(check)
    record = json.loads(line)
    assert record["metrics"]["step_lr"][2] is None
    assert record["steps"] == [40] * 5
