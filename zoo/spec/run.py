"""The run spec: everything that decides one model, frozen, validated and hashed.

Fields are flat, so that a field, a sweep axis, a store column and a name in a query are one word.
Which fields there are follows from declarations: :mod:`zoo.spec.common` has those of every run, and
each registry entry brings those that it reads. A field that no entry of a run reads is None.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from zoo.errors import Problem, SpecError, unknown_name
from zoo.registry import reserve
from zoo.spec.catalogue import Choice, catalogue, field_infos
from zoo.spec.check import check_value
from zoo.spec.common import SEED_FIELDS
from zoo.spec.diet import canonical_scorer, diet_problems, kept_of
from zoo.spec.limits import MAX_STEPS
from zoo.spec.other_names import other_names

__all__ = ["SEED_FIELDS", "RunSpec", "field_infos", "unknown_field"]

#: Changes whenever the meaning of a spec changes, so that run ids never lie.
SPEC_VERSION = 2


class RunSpec:
    """One model of a zoo: data, architecture, optimization and seeds.

    ``RunSpec(width=16, lr=0.1)``; each field is an attribute. A run is its values: frozen, equal to
    a run with the same ones, and hashable.

    Args:
        values: fields; each that is not given has its default, which for a field that an entry
            brings is that entry's. A value that none of the run's entries reads is dropped.

    Raises:
        SpecError: listing every field whose name is unknown, or whose value is of the wrong type,
            out of range or unknown.
    """

    __slots__ = ("_choice", "_values")
    _choice: Choice
    _values: tuple[Any, ...]

    def __init__(self, **values: Any) -> None:
        found = catalogue()
        given, problems = _checked(values)
        if problems:
            raise SpecError(problems)
        if given.get("keep") == 1:  # everything is kept: the run without a diet
            given["score"] = "none"
        choice = found.choose(given)
        own = list(choice.start)
        place, is_open = choice.place, choice.open
        for name, value in given.items():
            index = place[name]
            if is_open[index]:
                own[index] = value
        for index, leader in choice.follows:
            if own[index] is None:
                own[index] = own[leader]
        if own[place["steps"]] is None and own[place["epochs"]] is None:
            own[place["epochs"]] = 20.0
        self._set(choice, own)
        if self.score == "none":
            return
        if self.scorer is not None:
            own[place["scorer"]] = canonical_scorer(self.scorer)
            self._set(choice, own)
        problems = diet_problems(self)
        if problems:
            raise SpecError(problems)

    def _set(self, choice: Choice, values: list[Any]) -> None:
        object.__setattr__(self, "_choice", choice)
        object.__setattr__(self, "_values", tuple(values))

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> RunSpec:
        """Rebuild a resolved run from what a store has, as it is there.

        Nothing is checked, since a rule that is tightened later must not lock an old store, and a
        field that is declared nowhere, as where a plug-in is missing, keeps its value. A field that
        is younger than the store has its default; None is kept, as of an imported model nobody may
        know a value.
        """
        found = catalogue()
        given = {name: value for name, value in values.items() if value is not None}
        choice = found.choose(given)
        strange = [name for name in given if name not in choice.place]
        if strange:
            choice = choice.extended(strange)
        run = cls.__new__(cls)
        own = list(choice.start)
        for name, value in values.items():
            if name in choice.place:
                own[choice.place[name]] = value
        run._set(choice, own)
        return run

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            index = self._choice.place.get(name)
            if index is not None:
                return self._values[index]
            if name in field_infos():  # brought by an entry that is younger than this run
                return None
        message = f"a run has no field {name!r}"
        raise AttributeError(message, name=name, obj=self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        message = f"a run is frozen: use run.replace({name}=...)"
        raise dataclasses.FrozenInstanceError(message)

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._choice.names]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunSpec):
            return NotImplemented
        if self._choice.names == other._choice.names:
            return self._values == other._values
        return self._given() == other._given()

    def __hash__(self) -> int:
        return hash(frozenset(self._given().items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return RunSpec.stored, (self.to_dict(),)

    def __repr__(self) -> str:
        from zoo.spec.describe import own_fields

        return f"RunSpec({', '.join(f'{n}={v!r}' for n, v in own_fields(self).items())})"

    def _given(self) -> dict[str, Any]:
        pairs = zip(self._choice.names, self._values, strict=True)
        return {name: value for name, value in pairs if value is not None}

    def replace(self, **changes: Any) -> RunSpec:
        """Return the run with other values of some fields.

        All others stay as they are, those that were defaults too: the six seeds do not follow a
        new ``seed``, and a ``beta1`` that the new optimizer reads as well keeps its value.

        Raises:
            SpecError: as for a new run.
        """
        return RunSpec(**{**self.to_dict(), **changes})

    def _with(self, changes: Mapping[str, Any]) -> RunSpec:
        """Return the run with other values of fields that it reads, known to be right."""
        own = list(self._values)
        for name, value in changes.items():
            own[self._choice.place[name]] = value
        run = RunSpec.__new__(RunSpec)
        run._set(self._choice, own)
        return run

    def resolve(self, train_examples: int, *, hashes: Mapping[str, str] | None = None) -> RunSpec:
        """Return this spec with ``train_size``, ``steps`` and ``epochs`` as numbers.

        An epoch is ``train_size // batch_size`` steps: the remainder of a shuffled epoch is
        dropped, so that every step of every model has the same shape. On a diet with the budget
        ``steps`` it is as long as without the diet; with ``epochs``, as the kept examples last.

        Args:
            train_examples: training examples of the data set.
            hashes: the content fields (``data_sha256``, ``score_sha256``), where files of the
                user's have been read.

        Raises:
            SpecError: the training set is smaller than ``train_size``, or it or what the diet
                keeps is smaller than one batch.
        """
        size = self.train_size if self.train_size is not None else train_examples
        problems = [
            Problem(name, given, "is not the content that the file has", found)
            for name, found in (hashes or {}).items()
            if (given := getattr(self, name)) not in (None, found)
        ]
        if size > train_examples:
            allowed = f"<= {train_examples} ({self.data})"
            problems.append(Problem("train_size", size, "more than the data set has", allowed))
        elif self.batch_size > size:
            allowed = f"<= {size} (training examples)"
            problems.append(Problem("batch_size", self.batch_size, "more than one epoch", allowed))
        if problems:
            raise SpecError(problems)
        kept = kept_of(self, size)
        if kept < self.batch_size:
            message = f"keeps {kept} of {size} examples, fewer than one batch"
            allowed = f">= {self.batch_size / size:.3g} (batch_size = {self.batch_size})"
            raise SpecError([Problem("keep", self.keep, message, allowed)])
        per_epoch = (kept if self.budget == "epochs" else size) // self.batch_size
        steps = self.steps if self.steps is not None else round((self.epochs or 0.0) * per_epoch)
        if steps > MAX_STEPS:
            message = f"takes {steps:,} steps of {self.batch_size} examples"
            allowed = f"up to {MAX_STEPS:,} steps, {MAX_STEPS / per_epoch:.6g} epochs"
            raise SpecError([Problem("epochs", self.epochs, message, allowed)])
        found: dict[str, Any] = {
            "train_size": size,
            "steps": steps,
            "epochs": steps / per_epoch,
            **(hashes or {}),
        }
        return self._with(found)

    def options_of(self, owner: str) -> dict[str, Any]:
        """Return the fields that the entry which ``owner`` names brings, but for hashes.

        An entry that is not registered brings none.
        """
        registry, entry = catalogue().owners[owner], getattr(self, owner)
        fields = registry.about(entry).fields if entry in registry else {}
        return {name: getattr(self, name) for name, field in fields.items() if not field.planned}

    @property
    def data_key(self) -> str:
        """The data set with its options, those at their defaults left out: ``npz:a{context=64}``.

        Runs with one key train on the same examples.
        """
        own = [f"{n}={v}" for n, v in self.options_of("data").items() if self.departs(n)]
        return f"{self.data}{{{','.join(own)}}}" if own else str(self.data)

    @property
    def examples(self) -> int:
        """Examples that a resolved run trains on."""
        return kept_of(self, int(self.train_size or 0))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch of a resolved run; on a diet, see :meth:`resolve`."""
        size = self.examples if self.budget == "epochs" else int(self.train_size or 0)
        return size // int(self.batch_size)

    def departs(self, name: str) -> bool:
        """Return whether the run has another value of a field than its declared default."""
        index = self._choice.place[name]
        value = self._values[index]
        return value is not None and bool(value != self._choice.defaults[index])

    def idle_fields(self) -> frozenset[str]:
        """Return the fields that change nothing in this run, though it has a value of them.

        ``seed`` is one: only the six seeds that follow it are used.
        """
        idle = {"seed"}
        if self.weight_decay == 0:
            idle.add("decay_mask")
        if self.steps is not None:
            idle.add("epochs")
        if self.label_noise == 0 and self.train_size is None:
            idle.add("noise_seed")
        if self.dropout == 0:
            idle.add("dropout_seed")
        if self.augmentation == "none":
            idle.add("augment_seed")
        if self.keep is None and self.dynamic == "none":
            idle.add("diet_seed")
        return frozenset(idle)

    def identity(self) -> dict[str, object]:
        """Return what the run id is the hash of: every field that changes a bit of the result.

        A field at its declared default is left out, so that a field which an entry gets later
        leaves the ids of older runs alone. Of a user's own scores the content counts, once planning
        knows it, and not the path.
        """
        idle = self.idle_fields()
        columns = zip(self._choice.names, self._values, self._choice.defaults, strict=True)
        values = {
            name: value
            for name, value, default in columns
            if value is not None and value != default and name not in idle
        }
        if self.score_sha256 is not None:
            values["score"] = "file"
        return {"version": SPEC_VERSION, **values}

    @property
    def run_id(self) -> str:
        """Sixteen hexadecimal digits: the sha256 of the canonical JSON of :meth:`identity`."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-ready."""
        return dict(zip(self._choice.names, self._values, strict=True))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Build a spec from a mapping.

        Raises:
            SpecError: unknown fields (with the nearest known name) and bad values, all at once.
        """
        return cls(**values)


reserve("a run", (name for name in dir(RunSpec) if not name.startswith("_")))


def _checked(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return the values that are given, each in its field's type, and all that is wrong."""
    infos = field_infos()
    given: dict[str, Any] = {}
    unknown: list[Problem] = []
    problems: list[Problem] = []
    for name, value in values.items():
        info = infos.get(name)
        if info is None:
            unknown.append(unknown_field(name, name))
            continue
        checked, problem = check_value(info, value)
        if problem is not None:
            problems.append(problem)
        elif checked is not None:
            given[name] = checked
    return given, [*unknown, *problems]


def unknown_field(place: str, name: str) -> Problem:
    """Return the problem of a field name that no run spec has."""
    found = unknown_name(place, name, f"unknown field {name!r}", field_infos(), other_names())
    return dataclasses.replace(found, value=None)
