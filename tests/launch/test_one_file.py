"""An entry with a field of its own is one file: everything else follows from what it declares."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

import zoo
from zoo.architectures import ARCHITECTURES, NORMS
from zoo.cli.main import main
from zoo.diets.scores import SCORES
from zoo.errors import RegistryError, SpecError
from zoo.fields import Field, named
from zoo.launch.local import run
from zoo.optim import OPTIMIZERS
from zoo.registry import Registry
from zoo.spec import RunSpec, Sweep, field_infos
from zoo.spec.describe import field_table
from zoo.train.dynamic import DYNAMICS
from zoo.train.schedule import SCHEDULES

HEAD = "import torch\nimport numpy as np\nfrom zoo.fields import Field, named\n"

#: Field of the spec -> (registry, a whole file with the entry "mine", its field, two values).
FILES = {
    "optimizer": (OPTIMIZERS, """
from zoo.optim.sgd import SGD
class Shrunk(SGD):
    fields = named(*SGD.fields.values(), Field("shrink", "float", 1.0, "factor on a step", above=0))
    coefficients = (*SGD.coefficients, "shrink")
    def update(self, p, g, moments, c, run, layout):
        return super().update(p, g, moments, {**c, "lr": c["lr"] * c["shrink"]}, run, layout)
from zoo.optim.base import OPTIMIZERS
OPTIMIZERS.register("mine", doc="SGD with shrunk steps")(Shrunk())
""", "shrink", (0.5, 0.25)),
    "norm": (NORMS, """
from zoo.architectures.norms.base import NORMS
from zoo.architectures.norms.none import NoNorm
@NORMS.register("mine", doc="a fixed factor")
class Fixed(NoNorm):
    fields = named(Field("factor", "float", 1.0, "factor on the values", above=0, per="cohort"))
    def forward(self, p, x, mode):
        return x * self.options["factor"], None
    def backward(self, p, saved, dy, mode, *, need_dx):
        return dy * self.options["factor"], {}
    def module(self):
        return Times(self.options["factor"])
class Times(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
    def forward(self, x):
        return x * self.factor
""", "factor", (0.5, 2.0)),
    "architecture": (ARCHITECTURES, """
from zoo.architectures.families import ARCHITECTURES, Family
from zoo.architectures.mlp import mlp
def wide(run, data):
    return mlp(run.replace(architecture="mlp", depth=run.blocks), data)
BLOCKS = Field("blocks", "int", 1, "hidden layers", low=1, high=4, per="cohort")
ARCHITECTURES.register("mine", doc="an MLP by another name")(Family(wide, named(BLOCKS)))
""", "blocks", (1, 2)),
    "dynamic": (DYNAMICS, """
from zoo.train.dynamic import DYNAMICS, Dynamic
class Floor(Dynamic):
    fields = named(Field("weight_floor", "float", 0.5, "weight of low losses", low=0, high=1))
    def weigh(self, seen, schedule, memory):
        losses = seen.losses()
        floor = self.option(schedule, "weight_floor").float()
        low = losses < losses.mean(1, keepdim=True)
        return torch.where(low, floor, torch.ones_like(losses)), memory
DYNAMICS.register("mine", doc="low losses weigh less")(Floor())
""", "weight_floor", (0.25, 0.75)),
    "schedule": (SCHEDULES, """
from zoo.train.schedule import SCHEDULES, Schedule
POWER = Field("lr_power", "float", 1.0, "power of the decay", above=0)
SCHEDULES.register("mine", doc="a power of what is left")(
    Schedule(lambda run, step, total: (1 - step / total) ** run.lr_power, named(POWER)))
""", "lr_power", (0.5, 2.0)),
    "score": (SCORES, """
from zoo.diets.scores.base import SCORES, Score
def norm(x, y, *, norm_order):
    return (np.abs(x) ** norm_order).sum(1)
ORDER = Field("norm_order", "float", 2.0, "order of the norm", above=0)
SCORES.register("mine")(Score("data", "a norm of the input", "", norm, own=named(ORDER)))
""", "norm_order", (0.5, 4.0)),
}  # fmt: skip


@pytest.fixture(params=FILES)
def mine(request, tmp_path):
    """Import a file with one entry, and take the entry out again afterwards."""
    registry, text, field, values = FILES[request.param]
    before = RunSpec().run_id, RunSpec(optimizer="adam", lr=0.2).run_id
    file = tmp_path / "mine.py"
    file.write_text(HEAD + text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("mine", file)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield request.param, field, values
    assert (RunSpec().run_id, RunSpec(optimizer="adam", lr=0.2).run_id) == before
    registry.remove("mine")
    assert field not in field_infos()


def test_an_entry_is_one_file(mine, tmp_path, capsys):
    owner, field, values = mine
    sweep = Sweep(
        name="mine", base={"epochs": 1, "width": 8, "batch_size": 64, owner: "mine"},
        grid={field: list(values)}, record={"probe_size": 4}, diet={"baseline": False},
    )  # fmt: skip
    assert Sweep.from_toml(sweep.to_toml()) == sweep
    store = tmp_path / "z.zarr"
    assert run(sweep, store, workers=0, backend="eager").complete
    opened = zoo.open(store)
    view = opened.query(f"{field} == {values[0]}", epoch=-1)
    assert view.column(field).tolist() == [values[0]]
    assert field in opened.varying
    shared = field_infos()[field].per == "cohort"
    assert len(opened.plan.cohorts) == (2 if shared else 1)
    last = [opened.query(f"{field} == {v}", epoch=-1).weights() for v in values]
    assert last[0].shape != last[1].shape or not np.array_equal(*last)

    assert f"| `{field}` |" in field_table()
    assert main(["list", owner, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["mine"]["what"]
    assert field in rows["mine"]["fields"]
    with pytest.raises(SpecError, match=f"did you mean '{field}'"):
        RunSpec(**{owner: "mine", f"{field}s": values[0]})
    with pytest.raises(SpecError, match=field):
        RunSpec(**{owner: "mine", field: -1})
    with pytest.raises(SpecError, match=f"no run reads it.*{owner} = 'mine'"):
        Sweep(name="s", base={field: values[0]}, grid={"seed": [0]})


def entry(*fields):
    return type("Entry", (), {"doc": "one", "fields": named(*fields)})()


def test_fields_that_cannot_stand_together_are_refused_at_once():
    own = Field("strangeness", "float", 0.1, "how strange", low=0)
    registry = Registry("test entry", field="test_entry")
    registry.register("a")(entry(own))
    registry.register("b")(entry(own.at(0.2)))  # another default is fine
    for other, said in [
        (Field("strangeness", "int", 1, "how strange", low=0), "'strangeness'.*test entry 'a'"),
        (Field("lr", "float", 0.1, "rate"), "every run"),
        (Field("replace", "float", 0.1, "a name that is taken"), "a run"),
    ]:
        with pytest.raises(RegistryError, match=said):
            registry.register("c")(entry(other))
    with pytest.raises(RegistryError, match="twice"):
        registry.register("a")(entry())
    with pytest.raises(RegistryError, match="named"):
        registry.register("c")(type("Entry", (), {"fields": {"depth_of": 2}})())
    with pytest.raises(RegistryError, match="per='cohort'"):
        Registry("part", builds=True).register("c")(entry(own))
    assert registry.names() == ("a", "b")
    registry.remove("a")
    registry.remove("b")


def test_a_default_out_of_bounds_is_no_declaration():
    for bad in [("x", "float", -1.0), ("x", "int", 0.5), ("x y", "int", 1), ("x", "complex", 1)]:
        with pytest.raises(ValueError, match="field"):
            Field(*bad, "doc", low=0)


def test_a_field_added_to_an_entry_changes_no_run_id(monkeypatch):
    runs = [RunSpec(optimizer="adam", beta1=0.8), RunSpec(optimizer="adam", lr=0.3, norm="batch")]
    before = [run.run_id for run in runs]
    stored = [run.to_dict() for run in runs]
    adam = OPTIMIZERS["adam"]
    more = named(*adam.fields.values(), Field("tilt", "float", 0.5, "a later field", low=0))
    monkeypatch.setattr(type(adam), "fields", more)
    OPTIMIZERS.remove("adam")
    OPTIMIZERS.register("adam", doc="changed")(adam)
    try:
        assert [RunSpec(**values).run_id for values in stored] == before
        assert [RunSpec.stored(values).run_id for values in stored] == before
        assert RunSpec.stored(stored[0]).tilt == 0.5
        assert RunSpec(optimizer="adam", tilt=0.6).run_id != RunSpec(optimizer="adam").run_id
    finally:
        monkeypatch.undo()
        OPTIMIZERS.remove("adam")
        OPTIMIZERS.register("adam", doc="adaptive moments", source="")(adam)


def test_what_a_store_has_is_not_checked_again():
    values = RunSpec(width=16).to_dict() | {"width": 10**9, "strange": 3, "optimizer": "gone"}
    run = RunSpec.stored(values)
    assert (run.width, run.strange, run.optimizer) == (10**9, 3, "gone")
    assert run == RunSpec.stored(run.to_dict())
    assert hash(run) == hash(RunSpec.stored(run.to_dict()))
    assert RunSpec.stored(RunSpec(norm="group").to_dict()) == RunSpec(norm="group")
    with pytest.raises(SpecError):
        RunSpec(**values)
