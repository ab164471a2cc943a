"""Makes every sync of a file take a while (a slow disk, and wide windows for kills), or break.

Python imports it where its folder is on PYTHONPATH; it costs no processor time.
"""

import os
import time
from pathlib import Path

_sync, _pause = os.fsync, float(os.environ.get("TEST_SYNC_S", "0"))
_break = os.environ.get("TEST_BREAK", "")


def _slow_sync(handle: int) -> None:
    time.sleep(_pause)
    if _break and _break in str(Path(f"/proc/self/fd/{handle}").readlink()):
        _broken()
    _sync(handle)


def _broken() -> None:
    raise RuntimeError("the test broke this")


if _pause:
    os.fsync = _slow_sync
