"""How Sphinx builds the manual and the API reference: `make docs`."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

import zoo

project = "phasezoo"
author = "the phasezoo developers"
release = version = zoo.__version__
copyright = author  # noqa: A001 - Sphinx's own name

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
myst_heading_anchors = 3
# Links from a page to a file of the repository outside docs/ are right on the forge alone.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"phasezoo {release}"
html_copy_source = False

#: The packages and modules with a public face, as the API reference has them; what each offers is
#: its ``__all__``, and what it is for is the first line of its docstring.
API = (
    "zoo", "zoo.dataset", "zoo.phases", "zoo.landscape", "zoo.spec", "zoo.data",
    "zoo.architectures", "zoo.optim", "zoo.diets.scores", "zoo.train.plan", "zoo.train.planner",
    "zoo.launch.local", "zoo.launch.reproduce", "zoo.launch.status", "zoo.launch.submit",
    "zoo.launch.profile", "zoo.store", "zoo.registry", "zoo.seeds", "zoo.errors",
)  # fmt: skip


def write_api(app: Sphinx) -> None:
    """Write one page per entry of ``API``, and their index; git ignores the folder."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    shapes = "Shape letters: M models, K checkpoints, P parameters, N examples, B batch, C classes."
    lines = ["# API reference", "", "The public names, from their docstrings.", shapes, ""]
    lines += ["```{toctree}", ":maxdepth: 1", "", *API, "```", ""]
    _write(folder / "index.md", "\n".join(lines))
    _write(folder / "zoo.md", _top())
    for name in API[1:]:
        directive = [f".. automodule:: {name}", "   :imported-members:"]
        page = [f"# `{name}`", "", "```{eval-rst}", *directive, "```", ""]
        _write(folder / f"{name}.md", "\n".join(page))


def _top() -> str:
    """Return the page of `zoo` itself, whose names come from the packages below it."""
    lines = ["# `zoo`", "", "| name | what it is | where it is described |", "|---|---|---|"]
    for name in zoo.__all__:
        held = getattr(zoo, name)
        if callable(held):
            home = held.__module__
            page = max((p for p in API if home == p or home.startswith(f"{p}.")), key=len)
            first = (held.__doc__ or "").strip().splitlines()[0].replace("``", "`")
            lines.append(f"| `zoo.{name}` | {first} | [{page}]({page}.md) |")
    return "\n".join([*lines, ""])


def _write(path: Path, text: str) -> None:
    """Write a page unless it is there already, so that a second build has nothing to do."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Let Sphinx call :func:`write_api` before it reads the pages."""
    app.connect("builder-inited", write_api)
