"""Execute docs/tutorial.ipynb in this Python, in an empty folder; ``--write`` keeps its outputs."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
SECONDS = 900


def execute(notebook: Any, folder: Path) -> Any:
    """Run every cell in a folder, and return the notebook with its outputs.

    Raises:
        CellExecutionError: a cell failed.
    """
    # no folders of kernels: what is left is the kernel of this very Python
    specs = KernelSpecManager(kernel_dirs=[])
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    client = NotebookClient(
        notebook, km=manager, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}
    )
    # the manager is ours, so the client would leave the kernel and its sockets open
    done = client.execute(cleanup_kc=True, env={**os.environ, "MPLBACKEND": "agg"})
    return clean(done, folder)


def clean(notebook: Any, folder: Path) -> Any:
    """Remove what differs from machine to machine: paths, times, versions of the kernel."""
    notebook.metadata = {"kernelspec": notebook.metadata.get("kernelspec", {})}
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("text", "?").strip()]
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(f"{folder}/", "")
                continue
            output.metadata = {}
            for kind, text in output.get("data", {}).items():
                if isinstance(text, str) and kind.startswith("text/"):
                    output.data[kind] = text.replace(f"{folder}/", "")
    return notebook


def main() -> None:
    """Execute the notebook; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebook")
    args = parser.parse_args()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        done = execute(notebook, Path(folder).resolve())
    if args.write:
        nbformat.write(done, NOTEBOOK)


if __name__ == "__main__":
    main()
