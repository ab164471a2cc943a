"""The hidden folder beside its place in which a store is made, and what a kill leaves of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from zoo.store.files import STRAY_SUFFIX
from zoo.store.locks import hold
from zoo.store.paths import StorePaths

__all__ = ["keep_alive", "remove_dead_siblings"]


@contextlib.contextmanager
def keep_alive(temporary: Path) -> Iterator[None]:
    """Make the temporary folder, and keep its lock, by which others see that it is in use."""
    lock = StorePaths(temporary).extend_lock
    lock.parent.mkdir(parents=True)
    # whoever takes it for a killed one's empty folder removes it before the lock is there
    while not _touched(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
    with hold(lock):
        yield


def _touched(lock: Path) -> bool:
    try:
        lock.touch()
    except FileNotFoundError:
        return False
    return True


def remove_dead_siblings(target: Path) -> None:
    """Delete what killed creations of the same store left."""
    for folder in target.parent.glob(f".{target.name}.*{STRAY_SUFFIX}"):
        lock = StorePaths(folder).extend_lock
        if not lock.exists():
            _remove_empty(lock.parent, folder)
            continue
        with hold(lock) as free:
            if free:
                _remove_but(lock, folder)
                with contextlib.suppress(OSError):
                    lock.unlink()
                _remove_empty(lock.parent, folder)


def _remove_but(lock: Path, folder: Path) -> None:
    """Delete all but the lock: without it, a folder that is killed halfway is never cleared."""
    for path in folder.iterdir():
        if path == lock:
            continue
        if path in lock.parents:
            _remove_but(lock, path)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove_empty(inner: Path, outer: Path) -> None:
    """Remove empty folders from one out to another; a process may be about to use them."""
    with contextlib.suppress(OSError):
        for path in (inner, *inner.parents):
            if path.exists():
                path.rmdir()
            if path == outer:
                return
