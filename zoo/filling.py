"""Who fills the registries: a hook, so that the ground floor need not know the rooms above it.

The composition root is registered here when ``zoo`` is imported, and imports them on first need.
This file imports nothing that costs time, since ``import zoo`` imports it.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["BEFORE_PLUGINS", "FILLERS"]

#: Called in order before a vocabulary is read. Each fills registries; calling one again is free.
FILLERS: list[Callable[[], None]] = []
#: Called before a plug-in is run: every room whose entries it may add to is imported by then, so
#: that no entry of phasezoo's own counts as the plug-in's.
BEFORE_PLUGINS: list[Callable[[], None]] = []
