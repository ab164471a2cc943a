"""Registries: named entries of one kind, filled by a decorator, that also serve as vocabularies.

A registry made with ``field="norm"`` is the list of values that the run-spec field ``norm`` may
take, and its entries may bring further fields: those that only runs with this norm have. The spec
room lies below the rooms that fill the registries, so it never imports them: it asks
:func:`vocabularies`, which has them filled on first use (:mod:`zoo.filling`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from zoo.errors import RegistryError, UnknownNameError, did_you_mean, listed
from zoo.fields import Field, Fields, named
from zoo.filling import FILLERS

__all__ = [
    "PLUGIN_FIELD",
    "About",
    "Registry",
    "brought_by",
    "declare",
    "first_sentence",
    "loading",
    "reserve",
    "revision",
    "take_out",
    "vocabularies",
    "vocabulary",
]  # fmt: skip

T = TypeVar("T")

_VOCABULARIES: dict[str, Registry[Any]] = {}
_ALL: list[Registry[Any]] = []
#: Fields that every run has -> their declaration.
_COMMON: dict[str, Field] = {}
#: Names that no field may have -> what has them.
_RESERVED: dict[str, str] = {}
#: How often any entry came or went: what follows from the entries is made anew when it changes.
_CHANGES = [0]
#: Content hashes of the plug-ins that are being loaded, the innermost last.
_LOADING: list[str] = []

#: What runs read whose entries come from plug-ins: an entry's name says nothing of its content.
PLUGIN_FIELD = Field(
    "plugin_sha256", "str", None, "content of the plug-ins that a run uses; set when planning",
    per="cohort", planned=True,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """What is known of an entry without using it.

    Args:
        doc: one line.
        source: where it was published: author, year, arXiv; empty where there is nothing to cite.
        fields: the fields that it reads, and that runs without it lack.
        fixes: fields that it decides itself (the activation of a norm that has its own).
        plugin: sha256 of the plug-in that brings it; empty for an entry of phasezoo's own.
    """

    doc: str = ""
    source: str = ""
    fields: Fields = field(default_factory=dict)
    fixes: Mapping[str, Any] = field(default_factory=dict)
    plugin: str = ""


class Registry(Generic[T]):
    """Named entries of one kind (optimizers, norms, data sets, ...).

    Args:
        kind: what an entry is, for messages (``"optimizer"``).
        field: the run-spec field whose allowed values are this registry's names, if any.
        builds: the entries make the network, which all models of a cohort share; so every field
            that they bring must be shared too.
    """

    def __init__(self, kind: str, *, field: str | None = None, builds: bool = False) -> None:
        self.kind = kind
        self.builds = builds
        self._entries: dict[str, T] = {}
        self._abouts: dict[str, About] = {}
        self._field = field
        _ALL.append(self)
        if field is not None:
            _VOCABULARIES[field] = self
            _CHANGES[0] += 1

    def register(self, name: str, *, doc: str = "", source: str = "") -> Callable[[T], T]:
        """Return a decorator that enters its argument under ``name``.

        An entry says itself which run-spec fields it reads, in its attribute ``fields`` (see
        :func:`zoo.fields.named`), and which it decides, in ``fixes``.

        Args:
            name: what sweeps and verbs call it.
            doc: one line about it; by default the entry's attribute ``doc``, or the first sentence
                of its docstring.
            source: author, year, arXiv; by default the entry's ``citation`` or ``source``.

        Raises:
            RegistryError: ``name`` is taken, or a field is declared otherwise elsewhere.
        """

        def enter(entry: T) -> T:
            if name in self._entries:
                msg = f"{self.kind} {name!r} is registered twice"
                raise RegistryError(msg)
            plugin = _LOADING[-1] if _LOADING else ""
            marked = named(PLUGIN_FIELD) if plugin and self._field is not None else {}
            about = About(
                doc=doc or str(getattr(entry, "doc", "")) or first_sentence(entry),
                source=source or str(getattr(entry, "citation", getattr(entry, "source", ""))),
                fields={**getattr(entry, "fields", {}), **marked},
                fixes=dict(getattr(entry, "fixes", {})),
                plugin=plugin,
            )
            _check_fields(f"{self.kind} {name!r}", about.fields, shared=self.builds)
            self._entries[name] = entry
            self._abouts[name] = about
            _CHANGES[0] += 1
            return entry

        return enter

    def remove(self, name: str) -> None:
        """Take an entry out again, so that a cell of a notebook can register it anew.

        Raises:
            UnknownNameError: there is none.
        """
        self[name]
        del self._entries[name], self._abouts[name]
        _CHANGES[0] += 1

    def key(self, name: str) -> str:
        """Return the name that an entry is registered under; a kind of names may share one."""
        return name

    def about(self, name: str) -> About:
        """Return what is known of an entry.

        Raises:
            UnknownNameError: there is none.
        """
        self[name]
        return self._abouts[self.key(name)]

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[self.key(name)]
        except KeyError:
            parts = [f"unknown {self.kind} {name!r}", did_you_mean(name, self._entries)]
            msg = "; ".join([*filter(None, parts), f"known: {listed(self.names())}"])
            raise UnknownNameError(msg) from None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.key(name) in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def names(self) -> tuple[str, ...]:
        """Return every name, in order of registration."""
        return tuple(self._entries)


def declare(fields: Fields) -> None:
    """Declare the fields that every run has, whatever its entries.

    Raises:
        RegistryError: an entry has one of them already.
    """
    for name, declared in fields.items():
        found = _declaration(name)
        if found is not None:
            msg = f"field {name!r} of every run is one of {found[0]} already"
            raise RegistryError(msg)
        _COMMON[name] = declared
    _CHANGES[0] += 1


@contextmanager
def brought_by(sha256: str) -> Iterator[None]:
    """Mark every entry that is registered inside as one of a plug-in, or take them all out again.

    Args:
        sha256: of the plug-in's content.
    """
    _LOADING.append(sha256)
    try:
        yield
    except BaseException:
        take_out(sha256)
        raise
    finally:
        _LOADING.pop()


def loading() -> bool:
    """Return whether a plug-in is being loaded."""
    return bool(_LOADING)


def take_out(sha256: str) -> None:
    """Remove every entry that the plug-in with this content brought."""
    for registry in _ALL:
        for name in [n for n, about in registry._abouts.items() if about.plugin == sha256]:
            registry.remove(name)


def reserve(whose: str, names: Iterable[str]) -> None:
    """Keep names from becoming fields.

    Args:
        whose: what has them, for the message: a run (``replace``), a store (``status``).
        names: the names.
    """
    _RESERVED.update(dict.fromkeys(names, whose))


def revision() -> int:
    """Return a number that changes whenever an entry comes or goes."""
    return _CHANGES[0]


def vocabularies() -> Mapping[str, Registry[Any]]:
    """Return the registry of each run-spec field that names an entry."""
    for fill in FILLERS:
        fill()
    return _VOCABULARIES


def vocabulary(field: str) -> Registry[Any] | None:
    """Return the registry whose names are the allowed values of a run-spec field, or None."""
    return vocabularies().get(field)


def _declaration(name: str) -> tuple[str, Field] | None:
    """Return who declares a field, and how."""
    if name in _COMMON:
        return "every run", _COMMON[name]
    for registry in _VOCABULARIES.values():
        for entry, about in registry._abouts.items():
            if name in about.fields:
                return f"{registry.kind} {entry!r}", about.fields[name]
    return None


def _check_fields(who: str, fields: Mapping[str, object], *, shared: bool) -> None:
    """Make sure that an entry's fields can stand beside those that there are."""
    for name, declared in fields.items():
        if not isinstance(declared, Field) or declared.name != name:
            msg = f"{who}: fields[{name!r}] is not a Field of that name; write named(Field(...))"
            raise RegistryError(msg)
        if shared and declared.per != "cohort":
            msg = f"{who}: field {name!r} needs per='cohort', since a cohort has one network"
            raise RegistryError(msg)
        if name in _RESERVED:
            msg = (
                f"{who} declares field {name!r}, which {_RESERVED[name]} has as something else:"
                " take another name"
            )
            raise RegistryError(msg)
        other = _declaration(name)
        if other is not None and (name in _COMMON or not declared.agrees(other[1])):
            same = "" if name in _COMMON else ", or the declaration that is there"
            msg = (
                f"{who} declares field {name!r} ({_shown(declared)}), which {other[0]} has as"
                f" {_shown(other[1])}: take another name{same}"
            )
            raise RegistryError(msg)


def _shown(declared: Field) -> str:
    parts = (declared.kind, declared.bounds(), f"per {declared.per}", repr(declared.doc))
    return ", ".join(filter(None, parts))


def first_sentence(entry: object) -> str:
    """Return the first sentence of an entry's own docstring; an entry of text is its own."""
    if isinstance(entry, str):
        return entry
    known = inspect.isclass(entry) or inspect.isroutine(entry)
    if not known and hasattr(entry, "__dataclass_fields__"):
        return ""  # that would be about the record, not about the entry
    text = (inspect.getdoc(entry) or "") if known else (type(entry).__doc__ or "")
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")
