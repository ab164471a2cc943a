"""The first line of every result: where, with what and when it was measured."""

from __future__ import annotations

import datetime
from importlib import metadata

from zoo.provenance import fingerprint

__all__ = ["heading"]


def heading(*packages: str) -> str:
    """Return processor, cores, versions (torch and what else is named) and date in one line."""
    found = fingerprint()
    versions = [f"{name}={metadata.version(name)}" for name in ("torch", *packages)]
    words = [f"cpu={found['cpu']}", f"cores={found['cores']}", *versions]
    words += [f"python={found['python']}", f"date={datetime.datetime.now(datetime.UTC):%Y-%m-%d}"]
    return "  ".join(words)
