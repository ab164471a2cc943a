"""What other libraries call a field or a column, so that an unknown name can lead to ours."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from zoo.registry import revision
from zoo.spec.catalogue import field_infos

__all__ = ["other_names"]

#: Column -> what others call it; fields say it themselves.
_COLUMNS = {
    "test_accuracy": "accuracy acc test_acc val_accuracy val_acc",
    "test_r2": "r2 r_squared val_r2",
    "test_loss": "val_loss",
    "train_loss": "loss",
}


def other_names() -> Mapping[str, str]:
    """Return the names that others use, each with ours."""
    return _made(revision())


@lru_cache(maxsize=1)
def _made(revision: int) -> Mapping[str, str]:
    del revision  # the key of the cache: entries bring fields
    ours = _COLUMNS | {name: info.aka for name, info in field_infos().items()}
    return {theirs: name for name, words in ours.items() for theirs in words.split()}
