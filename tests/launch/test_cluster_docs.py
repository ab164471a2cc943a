"""docs/slurm.md: its commands parse, its profile loads, its table is whole, its Python runs."""

from __future__ import annotations

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from zoo.cli.parser import build_parser
from zoo.launch.profile import ClusterProfile

REPO = Path(__file__).parents[2]
TEXT = (REPO / "docs" / "slurm.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands():
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("zoo ")]


@pytest.mark.parametrize("line", commands())
def test_every_command_is_understood(line):
    build_parser().parse_args(shlex.split(line)[1:])


def test_the_profile_loads():
    text, stages = blocks("toml")
    profile = ClusterProfile.from_raw(tomllib.loads(text + stages), name="mine", source="docs")
    assert profile.processes == 4
    stage = profile.for_stage(cpus=1)
    assert (stage.partition, stage.memory, stage.gpus, stage.cpus) == ("cpu", "32GB", 0, 1)


def test_every_setting_is_in_the_table_with_its_default():
    table = TEXT[TEXT.index("| setting |") : TEXT.index("A bad profile is one error")]
    rows = [line.split("|") for line in table.splitlines()[2:] if line]
    described = {name: row[2] for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert set(described) == {f.name for f in dataclasses.fields(ClusterProfile)} - {"name"}
    for row in rows:
        names = re.findall(r"`(\w+)`", row[1])
        if len(names) == 1:
            default = next(
                f for f in dataclasses.fields(ClusterProfile) if f.name == names[0]
            ).default
            if isinstance(default, int | float) and not isinstance(default, bool):
                assert float(row[2].strip()) == default, names


def test_the_python_runs(monkeypatch, capsys, tmp_path):
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").symlink_to(REPO / "sweeps")
    exec(compile(code, "docs/slurm.md", "exec"), {})
    tasks, elements, hours = capsys.readouterr().out.split()
    assert int(tasks) == 72
    assert 1 <= int(elements) <= 72
    assert float(hours) > 0
    assert not (tmp_path / "q.zarr").exists()
