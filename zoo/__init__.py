"""phasezoo: a model-zoo generator and weight-space dataset builder.

``zoo.open(path)`` opens a store; ``zoo.load_sweep(path)``, ``zoo.plan(sweep)`` and
``zoo.run(sweep, out)`` make one. Each name is imported on first use, so ``import zoo`` is quick;
the same holds for the packages below it, such as ``zoo.dataset`` and ``zoo.errors``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zoo.filling import BEFORE_PLUGINS, FILLERS
from zoo.version import __version__

if TYPE_CHECKING:
    from zoo.dataset import Zoo, open  # noqa: A004
    from zoo.launch.local import run
    from zoo.plugins import load_plugin
    from zoo.spec import RecordSpec, RunSpec, Sweep, load_sweep
    from zoo.train.planner import plan

_WHERE = {
    "RecordSpec": "zoo.spec",
    "RunSpec": "zoo.spec",
    "Sweep": "zoo.spec",
    "Zoo": "zoo.dataset",
    "load_plugin": "zoo.plugins",
    "load_sweep": "zoo.spec",
    "open": "zoo.dataset",
    "plan": "zoo.train.planner",
    "run": "zoo.launch.local",
}
#: Packages and modules that need no import of their own.
_ROOMS = (
    "architectures", "data", "dataset", "diets", "errors", "landscape", "launch", "objectives",
    "optim", "phases", "plugin", "report", "seeds", "spec", "stages", "store", "train",
)  # fmt: skip
__all__ = [
    "RecordSpec",
    "RunSpec",
    "Sweep",
    "Zoo",
    "__version__",
    "load_plugin",
    "load_sweep",
    "open",
    "plan",
    "run",
]


def _fill_registries() -> None:
    import zoo.composition  # noqa: F401
    from zoo.plugins import load_installed

    load_installed()


def _import_plugin_rooms() -> None:
    import zoo.plugin  # noqa: F401


FILLERS.append(_fill_registries)
BEFORE_PLUGINS.append(_import_plugin_rooms)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"zoo.{name}")
    if name not in _WHERE:
        msg = f"module 'zoo' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *(name for name in globals() if name.startswith("__"))})
