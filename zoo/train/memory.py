"""Keep freed memory in the process: an eager step's temporaries are of one size, again and again.

glibc hands blocks above a threshold back to the kernel when they are freed, so that every step pays
for page faults: up to half of an eager step's time at a width of 64.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LIMIT = 1 << 30


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep freed blocks below 1 GiB; return whether it could be told.

    Meant for worker processes and benchmarks: it changes the allocator of the whole process.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LIMIT) and mallopt(_M_TRIM_THRESHOLD, _LIMIT))
