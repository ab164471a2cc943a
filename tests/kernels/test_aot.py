"""Every kernel compiles for three GPUs where there is none: no spills, no atomics.

In a process of its own, since a process that has Triton's interpreter cannot compile.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPO = HERE.parents[1]
TARGETS = ["sm_80", "sm_90", "gfx942"]
MOST_REGISTERS = 255

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton: pip install phasezoo[gpu]"
)


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request, tmp_path_factory):
    environment = {
        **os.environ,
        "ZOO_KERNELS": "compile",
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
    }
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, str(HERE / "aot_compile.py"), request.param],
        cwd=REPO, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_no_kernel_spills_or_races(compiled):
    assert len(compiled) > 10
    for found in compiled:
        name = f"{found['kernel']} ({found['case']})"
        assert found["spilled"] == 0, f"{name} keeps {found['spilled']} bytes on the stack"
        assert found["registers"] <= MOST_REGISTERS, f"{name} takes {found['registers']} registers"
        assert not found["atomics"], f"{name} has {found['atomics']}"
        assert not found["contracted"], f"{name} contracts products with sums"


def test_every_kernel_of_the_room_is_compiled(compiled):
    """Entry points are the functions named ..._kernel."""
    written = set()
    for path in (REPO / "zoo" / "kernels").glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("def _") and "_kernel(" in line:
                written.add(line.removeprefix("def ").split("(")[0])
    assert written == {found["kernel"] for found in compiled}
