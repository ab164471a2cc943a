"""phasezoo: a model-zoo generator and weight-space dataset builder.

``zoo.open(path)`` opens a store; ``zoo.load_sweep(path)``, ``zoo.plan(sweep)`` and
``zoo.run(sweep, out)`` make one. Each name is imported on first use, so ``import zoo`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.dataset import Zoo, open  # noqa: A004
    from zoo.launch.local import run
    from zoo.spec import RecordSpec, RunSpec, Sweep, load_sweep
    from zoo.train.planner import plan

__version__ = "0.1.0"

_WHERE = {
    "RecordSpec": "zoo.spec",
    "RunSpec": "zoo.spec",
    "Sweep": "zoo.spec",
    "Zoo": "zoo.dataset",
    "load_sweep": "zoo.spec",
    "open": "zoo.dataset",
    "plan": "zoo.train.planner",
    "run": "zoo.launch.local",
}
__all__ = [
    "RecordSpec",
    "RunSpec",
    "Sweep",
    "Zoo",
    "__version__",
    "load_sweep",
    "open",
    "plan",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        msg = f"module 'zoo' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_WHERE[name]), name)
