"""All fields that a run can have, from the declarations: which there are, and who reads which.

A field of :data:`zoo.spec.common.COMMON` is in every run. Every other is conditional: only some
entries of some registries read it, and a run whose entries do not has None there. A field that
names an entry is an *owner*; an owner may be conditional itself (``select``, which only runs with a
score have).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from zoo.fields import Field
from zoo.registry import Registry, revision, vocabularies
from zoo.spec.common import COMMON

__all__ = ["Catalogue", "Choice", "catalogue", "field_infos"]

#: Choices of entries that are kept, before all are forgotten.
_MOST_CHOICES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What runs with the same entries have in common; each holds one, and a tuple of its values.

    Args:
        names: every field, in order.
        place: name -> index in ``names``.
        defaults: the declared default of each field that these runs read, None for all others.
        start: the same, with what the entries decide themselves.
        open: whether a value that is given counts: the run reads the field, and no entry fixes it.
        follows: (index, index of the field whose value it takes where it has none).
    """

    names: tuple[str, ...]
    place: Mapping[str, int]
    defaults: tuple[Any, ...]
    start: tuple[Any, ...]
    open: tuple[bool, ...]
    follows: tuple[tuple[int, int], ...]

    def extended(self, names: Sequence[str]) -> Choice:
        """Return the same choice with further fields, which no declaration knows."""
        every = (*self.names, *names)
        return Choice(
            every,
            {name: index for index, name in enumerate(every)},
            (*self.defaults, *(None for _ in names)),
            (*self.start, *(None for _ in names)),
            (*self.open, *(True for _ in names)),
            self.follows,
        )


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Every field that there is.

    Args:
        fields: by name, in the order of tables; the default of a conditional field is None here,
            since the entry that reads it decides.
        owners: the fields that name an entry, each behind those whose entries bring it.
        readers: conditional field -> the (owner, entry) pairs that read it.
    """

    fields: Mapping[str, Field]
    owners: Mapping[str, Registry[Any]]
    readers: Mapping[str, Sequence[tuple[str, str]]]
    _choices: dict[tuple[str | None, ...], Choice] = field(default_factory=dict, repr=False)

    @cached_property
    def planned(self) -> tuple[str, ...]:
        """The fields that planning sets, to hashes of content."""
        return tuple(name for name, info in self.fields.items() if info.planned)

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """The fields that split cohorts by their values."""
        return tuple(name for name, info in self.fields.items() if info.per == "cohort")

    @cached_property
    def switches(self) -> tuple[str, ...]:
        """The fields that split cohorts by being on or off."""
        return tuple(name for name, info in self.fields.items() if info.per == "switch")

    def under(self, *owners: str) -> tuple[str, ...]:
        """Return some owners with every field that their entries bring."""
        found = dict.fromkeys(owners)
        for name, readers in self.readers.items():
            if any(owner in found for owner, _ in readers):
                found[name] = None
        return tuple(found)

    def defaults_of(self, name: str) -> tuple[Any, ...]:
        """Return the different defaults that a field has, in order of its readers."""
        if name not in self.readers:
            return (self.fields[name].default,)
        pairs = self.readers[name]
        found = [self.owners[o].about(entry).fields[name].default for o, entry in pairs]
        return tuple(dict.fromkeys(found))

    def choose(self, given: Mapping[str, Any]) -> Choice:
        """Return what runs have in common that name these entries.

        Args:
            given: field -> value; only owners count, and names that no registry has bring nothing.
        """
        key = tuple([given.get(owner) for owner in self.owners])
        found = self._choices.get(key)
        if found is None:
            if len(self._choices) >= _MOST_CHOICES:  # every file of a user's own is another entry
                self._choices.clear()
            found = self._choices[key] = self._chosen(given)
        return found

    def _chosen(self, given: Mapping[str, Any]) -> Choice:
        names = tuple(self.fields)
        place = {name: index for index, name in enumerate(names)}
        defaults = {name: info.default for name, info in self.fields.items()}
        read = {name for name in names if name not in self.readers}
        fixed: dict[str, Any] = {}
        for owner, registry in self.owners.items():
            value = _first(fixed.get(owner), given.get(owner), defaults[owner])
            if value in registry:
                fixed.update(registry.about(value).fixes)
        for owner, registry in self.owners.items():
            if owner not in read:
                continue
            value = _first(fixed.get(owner), given.get(owner), defaults[owner])
            if value in registry:
                for brought in registry.about(value).fields.values():
                    read.add(brought.name)
                    defaults[brought.name] = brought.default
        return Choice(
            names,
            place,
            tuple(defaults[name] for name in names),
            tuple(fixed.get(name, defaults[name]) for name in names),
            tuple(name in read and name not in fixed for name in names),
            tuple(
                (place[name], place[info.follows])
                for name, info in self.fields.items()
                if info.follows and name in read
            ),
        )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


_MADE: list[tuple[int, Catalogue]] = []


def catalogue() -> Catalogue:
    """Return the fields as the entries that are registered now declare them."""
    vocabularies()  # fills the registries
    if not _MADE or _MADE[0][0] != revision():
        _MADE[:] = [(revision(), _make(vocabularies()))]
    return _MADE[0][1]


def field_infos() -> Mapping[str, Field]:
    """Return every field that a run can have, by name and in the order of tables."""
    return catalogue().fields


def _make(registries: Mapping[str, Registry[Any]]) -> Catalogue:
    fields: dict[str, Field] = {}
    owners: dict[str, Registry[Any]] = {}
    readers: dict[str, list[tuple[str, str]]] = {}

    def enter(declared: Field) -> None:
        fields[declared.name] = declared
        registry = registries.get(declared.name)
        if registry is None:
            return
        owners[declared.name] = registry
        for entry in registry:
            for brought in registry.about(entry).fields.values():
                readers.setdefault(brought.name, []).append((declared.name, entry))
                if brought.name not in fields:
                    enter(brought.at(None))

    for declared in COMMON.values():
        enter(declared)
    return Catalogue(fields, owners, readers)
