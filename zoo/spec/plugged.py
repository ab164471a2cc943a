"""Which plug-ins a run uses, and whether those are loaded that it was planned with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from zoo.errors import PluginMissingError
from zoo.plugins import loaded_plugins, places
from zoo.registry import PLUGIN_FIELD
from zoo.spec.catalogue import catalogue
from zoo.spec.run import RunSpec

__all__ = [
    "check_plugins", "entries_of", "paths_of", "plugged_entries", "plugin_hash",
]  # fmt: skip


def plugged_entries(run: RunSpec) -> dict[str, str]:
    """Return ``"norm 'scaled'"`` -> sha256 of its plug-in, of every entry that a run reads."""
    known = catalogue()
    plugged = known.readers.get(PLUGIN_FIELD.name, ())  # none, mostly: runs are many
    found = {}
    for owner, entry in plugged:
        if getattr(run, owner) == entry:
            registry = known.owners[owner]
            found[f"{registry.kind} {entry!r}"] = registry.about(entry).plugin
    return found


def entries_of(runs: Sequence[RunSpec]) -> dict[str, str]:
    """Return entry -> sha256 of its plug-in, of all entries of runs that share a cohort."""
    if getattr(runs[0], PLUGIN_FIELD.name, None) is None:
        return {}
    return {entry: sha256 for run in runs for entry, sha256 in plugged_entries(run).items()}


def paths_of(entries: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return sha256 -> path of the loaded plug-ins that brought entries: entry -> sha256."""
    hashes = {sha256 for table in entries for sha256 in table.values()}
    return {p.sha256: str(p.path) for p in loaded_plugins() if p.sha256 in hashes}


def plugin_hash(run: RunSpec) -> str | None:
    """Return what the run's field ``plugin_sha256`` is: a hash of one plug-in, or of several."""
    found = sorted(set(plugged_entries(run).values()))
    if len(found) < 2:
        return found[0] if found else None
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def check_plugins(run: RunSpec) -> None:
    """Make sure that the plug-ins are loaded that a planned run was planned with.

    Args:
        run: the run; one that is not planned yet passes.

    Raises:
        PluginMissingError: they are not, or have other content.
    """
    wanted = getattr(run, PLUGIN_FIELD.name, None)
    if wanted is None or plugin_hash(run) == wanted:
        return
    known = places(wanted)
    here = plugged_entries(run)
    files = ", ".join(known) or "its file is not known"
    options = " ".join(f"--plugin {path}" for path in known) or "--plugin FILE"
    fix = f"give {options}, or call zoo.load_plugin first in Python"
    if not here:
        msg = f"the run uses entries of a plug-in that is not loaded ({files}): {fix}"
    else:
        msg = (
            f"{', '.join(here)} of the loaded plug-in has other content than the run was planned"
            f" with ({files}, sha256 {wanted}): put the original back, then {fix}"
        )
    raise PluginMissingError(msg)
