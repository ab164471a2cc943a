"""The plug-in and the sweep of docs/extend.md, as files."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"


def block(language: str) -> str:
    """Return the blocks of the page in a language: the plug-in, the sweep or the commands."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return "\n\n".join(found) if language == "python" else str(found[-1])


def write_files(folder: Path) -> Path:
    """Write ``my_zoo.py`` and ``my.toml``; return the plug-in."""
    (folder / "my.toml").write_text(block("toml"))
    plugin = folder / "my_zoo.py"
    plugin.write_text(block("python"))
    return plugin
