"""The fingerprint of a machine and its software: what may change the bits of a model."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["fingerprint", "fingerprint_changes", "usable_cores"]

_PACKAGES = ("phasezoo", "torch", "numpy", "zarr", "numcodecs")


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def fingerprint(*, threads: int = 1) -> dict[str, Any]:
    """Return the machine and the software, JSON-ready.

    Args:
        threads: threads that torch computes with.
    """
    import torch

    from zoo.arithmetic import bit_variables

    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        **gpu,
        "cpu": _cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "threads": threads,
        "variables": bit_variables(),
    }


def fingerprint_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs between two fingerprints and may change bits, in words.

    The number of cores does not: every model is trained by one thread.
    """
    names = ("gpu", "cpu", "cpu_capability", "machine", "system", "threads", "variables")
    pairs = [(name, then.get(name), now.get(name)) for name in names]
    versions: tuple[Mapping[str, Any], ...] = (then.get("versions", {}), now.get("versions", {}))
    pairs += [(name, versions[0].get(name), versions[1].get(name)) for name in _PACKAGES]
    return tuple(
        f"{name} was {old}, is {new}" for name, old, new in pairs if old is not None and old != new
    )
