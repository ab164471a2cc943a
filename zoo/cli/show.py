"""What the verbs share: printing tables and JSON."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["human_bytes", "plural", "print_json"]


def print_json(value: Any) -> None:
    """Print one JSON document; what is no number in JSON becomes null."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def plural(count: int, noun: str) -> str:
    """Return ``"1 model"`` or ``"2,000 models"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def human_bytes(count: float) -> str:
    """Return bytes with a decimal unit: ``"1.2 GB"``."""
    from zoo.dataset.summary import human_bytes as words

    return words(count)
