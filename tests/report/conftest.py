"""Lets the report tests use the store in memory of the dataset tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))
