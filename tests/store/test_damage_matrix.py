"""Every kind of file of a store × every damage: nothing lies, verify names it, the advice mends it.

The kinds come from a walk over a store that has everything, so a new kind of file joins by itself,
under the strictest rule: it may cost nothing that can be read.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil

import everything as all_of
import pytest

from zoo.cli.main import main
from zoo.errors import ZooError
from zoo.store import read_plan, verify_store
from zoo.store.groups import cohort_arrays
from zoo.train.plan import Plan

DAMAGES = (
    "flip first",
    "flip middle",
    "flip last",
    "truncate",
    "empty",
    "delete",
    "garbage",
    "swap",
)

#: Kind of file → keys of what it holds: its damage may cost that, and nothing else.
HOLDS = [
    (r"_zoo/tasks/([^/]+)/(\d+)/.*", lambda m, k: k[1:3] == (m[1], int(m[2]))),
    (
        r"([^/]+)/weights/c\.(\d+)\.(\d+).*",
        lambda m, k: k == ("weights", m[1], int(m[2]), int(m[3])),
    ),
    (
        r"([^/]+)/probe_logits/c\.(\d+)\.(\d+).*",
        lambda m, k: k == ("probe", m[1], int(m[2]), int(m[3])),
    ),
    (r"_zoo/derived/(.+)\.json", lambda m, k: k[:2] == ("derived", m[1])),
    (r"tables/([^/]+)/.*", lambda m, k: k == ("table", m[1])),
    (r"_zoo/tables/(.+)\.json", lambda m, k: k == ("table", m[1])),
    (r"([^/]+)/([^/]+)/c\..*", lambda m, k: k == ("derived", m[1], m[2])),
    (r"_zoo/snapshots/(.+)\.json", lambda m, k: k == ("snapshot", m[1])),
    (r"_zoo/stages/[^/]+/(.+)\.npz", lambda m, k: k == ("part", m[1])),
]
#: What nobody reads, or what only saves time: there is nothing to say when it is gone or odd.
QUIET = re.compile(r"_zoo/locks/.*\.lock")
#: Gone, these are as if it had not come to them yet.
MAY_BE_ABSENT = re.compile(
    r"_zoo/locks/.*|_zoo/tasks/.*(\.npz|failure-\d+\.json|seal\.json)|_zoo/tasks/mlp-c/\d+/1\.json"
    r"|_zoo/stages/.*\.npz|_zoo/snapshots/.*|_zoo/derived/none"
)


def kind_of(name, plan):
    """Return a name without numbers and cohorts; columns of the plan by their type."""
    group, _, rest = name.partition("/")
    if rest.count("/") == 1 and group.startswith("mlp-"):
        spec = cohort_arrays(plan, plan.cohort(group)).get(rest.partition("/")[0])
        if spec is not None and spec.kind == "column":
            return f"column of {len(spec.shape)} axes, {spec.dtype}"
    return re.sub(r"mlp-[a-z]", "C", re.sub(r"(?<![0-9a-f])\d+(?![0-9a-f])", "0", name))


def folder_of(name):
    return re.escape(name.rpartition("/")[0])


def holds(name, key):
    for pattern, test in HOLDS:
        match = re.fullmatch(pattern, name)
        if match:
            return bool(test(match, key))
    return False


def wanted(name, key):
    """Whether a file may have to do with what is read."""
    if key[0] in ("plan", "sweep", "provenance"):
        return name.startswith(("_zoo/plan", "_zoo/sweep", "_zoo/provenance"))
    if key[0] == "state":
        return name.startswith(("_zoo/tasks", "_zoo/locks"))
    return holds(name, key) or key[0] in ("settings", "tables")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "x.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.store.derived._CHUNK_BYTES", 300)
        all_of.build(path)
    return path


@pytest.fixture(scope="module")
def truth(original):
    assert verify_store(original).problems == ()
    return all_of.readable(original)


@pytest.fixture(scope="module")
def kinds(original):
    """Kind → the names of its files."""
    found, plan = {}, read_plan(original)
    for file in sorted(p for p in original.rglob("*") if p.is_file()):
        name = file.relative_to(original).as_posix()
        found.setdefault(kind_of(name, plan), []).append(name)
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Sync nothing, and make equal plans from equal records once."""
    made = {}

    def from_json(raw, make=Plan.from_json):
        key = json.dumps(raw)
        if key not in made:
            made[key] = make(raw)
        return made[key]

    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr(Plan, "from_json", from_json)
    monkeypatch.setattr("zoo.store.derived._CHUNK_BYTES", 300)
    monkeypatch.setattr("zoo.store.lease_view._EMPTY_S", 0.2)


def replace(file, data):
    file.unlink()
    file.write_bytes(data)


def hurt(store, name, damage, siblings):
    """Do the damage; return the files that are damaged now, none if it cannot be done to this."""
    file = store / name
    data = file.read_bytes()
    if damage == "delete":
        file.unlink()
        return [name]
    if damage == "swap":
        near = [s for s in siblings if s != name and (store / s).read_bytes() != data]
        if not near:
            return []
        other = min(near, key=lambda s: abs((store / s).stat().st_size - len(data)))
        theirs = (store / other).read_bytes()
        replace(store / other, data)
        replace(file, theirs)
        return [name, other]
    place = {"flip first": 0, "flip middle": len(data) // 2, "flip last": len(data) - 1}
    if damage in place:
        changed = bytearray(data)
        changed[place[damage]] ^= 4
        data = bytes(changed)
    else:
        data = {"truncate": data[: len(data) // 2], "empty": b"", "garbage": b"\x00{[\xff" * 9}[
            damage
        ]
    replace(file, data)
    return [name]


def changed(file, original):
    return not file.is_file() or file.read_bytes() != original.read_bytes()


def named_by(report):
    """Return what verify names; of files that a kill leaves, empty leases, it says so by name."""
    return (*report.problems, *(f"{name}: `zoo repair`" for name in report.strays))


def check_reading(store, truth, damaged, what):
    """Nothing that is read differs in silence, and only what a damaged file holds is lost."""
    now = all_of.readable(store)
    assert now.keys() == truth.keys(), what
    for key, value in now.items():
        if all_of.same(value, truth[key]):
            continue
        held = any(holds(name, key) for name in damaged)
        assert held, f"{what}: {key} was {truth[key]!r}, is {value!r}"
        told = isinstance(value, ZooError) or key[0] in ("state", "failures") or value is None
        if key[0] == "status":
            told = set(value[0]) <= {"failed", "diverged", "running", "done", "planned"}
            told &= "done" not in value[0] or truth[key][0] == value[0]
        if key[0] in ("weights", "probe", "metrics"):  # of a task that is at an earlier checkpoint
            told |= "_zoo/tasks" in damaged[0] and all_of.less(value, truth[key])
        assert told, f"{what}: {key} was {truth[key]!r}, is {value!r}"


def mend(store, report, capsys):
    """Do what the messages say; the command need not verify what was and will be verified here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoo.store.verify_store", lambda path: report)
        main(["repair", str(store)])
    capsys.readouterr()
    all_of.train(store)
    all_of.add(store)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_costs_what_it_holds_is_named_and_mended(
    damage, original, truth, kinds, tmp_path, capsys
):
    wrong = []
    for number, names in enumerate(kinds.values()):
        store = tmp_path / f"{number}.zarr"
        shutil.copytree(original, store, copy_function=os.link)
        try:
            wrong += one_case(store, original, truth, names, damage, capsys)
        except Exception as error:  # noqa: BLE001 - all of them at once
            wrong.append(f"{names[0]}, {damage}: {type(error).__name__} {error}")
        shutil.rmtree(store)
    assert not wrong, f"{len(wrong)} of {len(kinds)}:\n" + "\n".join(w[:600] for w in wrong)


def one_case(store, original, truth, names, damage, capsys):
    """Damage the first file of a kind, then a random one as well; then mend both."""
    what, damaged = f"{names[0]}, {damage}", []
    rng = random.Random(what)
    while len(damaged) < len(names):
        name = rng.choice([n for n in names if n not in damaged]) if damaged else names[0]
        further = hurt(store, name, damage, names)
        if not further:
            break
        both = bool(damaged)
        # a second swap may bring one back to what it was, where two files are equal
        every = dict.fromkeys([*damaged, *further])
        damaged = [n for n in every if changed(store / n, original / n)]
        further = [n for n in further if n in damaged]
        check_reading(store, truth, damaged, what)
        report = verify_store(store)
        yield from unnamed(named_by(report), further, what, damage)
        if both:
            break
    if not damaged or QUIET.fullmatch(names[0]):
        return  # what stands in a lock file is for people
    mend(store, report, capsys)
    left = verify_store(store).problems
    if left:
        yield f"{what}: not mended: {left}"
        return
    after = all_of.readable(store)
    for key, value in truth.items():
        if key[0] not in ("failures", "state") and not all_of.same(after[key], value):
            yield f"{what}: mended, {key} is {after[key]!r}, was {value!r}"


def unnamed(problems, damaged, what, damage):
    """Yield what verify does not say of damaged files, and what it says of sound ones."""
    for name in damaged:
        named = [p for p in problems if name in p or re.search(rf"{folder_of(name)}(/c\.|:)", p)]
        may_go = damage == "delete" and MAY_BE_ABSENT.fullmatch(name)
        if not named and not may_go and not QUIET.fullmatch(name):
            yield f"{what}: verify does not name {name}: {problems}"
        if not all("`zoo repair`" in p for p in named):
            yield f"{what}: verify does not say what mends {name}: {named}"
        if problems and QUIET.fullmatch(name):
            yield f"{what}: {problems}"


@pytest.mark.slow
def test_no_flipped_bit_changes_a_value_in_silence(original, truth, kinds, tmp_path, monkeypatch):
    store = shutil.copytree(original, tmp_path / "x.zarr")
    rng, flips, name = random.Random(12), 5000, ""
    plan = read_plan(store)

    def known(path):
        return read_plan(path) if name.startswith("_zoo/plan") else plan

    for module in ("zoo.store.reader", "zoo.store.states", "everything"):
        monkeypatch.setattr(f"{module}.read_plan", known)
    with_bits = ([n for n in names if (store / n).stat().st_size] for names in kinds.values())
    kind_names = list(filter(None, with_bits))
    wrong = []
    for number in range(flips):
        names = kind_names[number % len(kind_names)]
        name = rng.choice(names)
        file = store / name
        data = file.read_bytes()
        place = rng.randrange(len(data))
        changed = bytearray(data)
        bit = rng.randrange(8)
        changed[place] ^= 1 << bit
        file.write_bytes(changed)
        try:
            now = all_of.readable(store, want=lambda key, name=name: wanted(name, key))
            for key, value in now.items():
                told = all_of.same(value, truth[key]) or isinstance(value, ZooError)
                if not told and key[0] in ("status", "state", "failures"):
                    told = file.name in str(now.get(("status", *key[1:]), ""))
                    told |= file.name in str(now.get(("failures", *key[1:]), ""))
                told |= value is None
                if key[0] in ("weights", "probe", "metrics") and "_zoo/tasks" in name:
                    told |= all_of.less(value, truth[key])
                if not told:
                    wrong.append(f"{name} byte {place} bit {bit}: {key} {value!r}")
        except ZooError:
            pass
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{name} byte {place} bit {bit}: {type(error).__name__} {error}")
        file.write_bytes(data)
    assert not wrong, f"{len(wrong)} of {flips}:\n" + "\n".join(w[:300] for w in wrong[:40])
