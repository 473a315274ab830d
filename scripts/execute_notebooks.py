"""Execute notebooks and keep their outputs, as they are committed.

python scripts/execute_notebooks.py                      # all of notebooks/: two minutes
python scripts/execute_notebooks.py levels_and_labels    # some
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def execute(path: Path, check: str = "", timeout_s: int = 300) -> nbformat.NotebookNode:
    """The notebook with fresh outputs, run in its own folder; `check` is run after it.

    Raises nbclient's CellExecutionError if a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    if check:
        notebook.cells.append(nbformat.v4.new_code_cell(check))
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        resources={"metadata": {"path": path.parent}},
        record_timing=False,
    )
    client.execute()
    if check:
        notebook.cells.pop()
    notebook.metadata["language_info"] = {"name": "python"}  # not the version
    return notebook


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help="Notebooks without .ipynb. (default: all)")
    ] = None,
) -> None:
    """Execute notebooks in place."""
    known = {path.stem: path for path in sorted(NOTEBOOKS.glob("*.ipynb"))}
    for name in names or known:
        if name not in known:
            raise SystemExit(f"execute_notebooks: no {name}; known: {', '.join(known)}.")
        start = time.monotonic()
        nbformat.write(execute(known[name]), known[name])
        size = known[name].stat().st_size / 1000
        typer.echo(f"{name}: {time.monotonic() - start:.0f} s, {size:.0f} kB")


if __name__ == "__main__":
    typer.run(main)
