"""Make every committed table and figure again from the committed metrics.

    python scripts/make_documents.py

With folders, only of these. The figures are those that need no predictions: figure 3 of Table 1,
and the errors of CC forces of the strategies; others are made with the runs at hand, by
`keep_results.py`. The numbers of tables in full are written beside them, and not committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.figures import write_figures
from hippynn_mf.report.kept import CAMPAIGN
from hippynn_mf.report.results import read_results

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
# Figures that a folder has, of those that follow from metrics.
FIGURES = {"results": ["figure3"], "strategies/results": ["cc-forces"]}


def figures_of(folder: Path) -> Sequence[str]:
    """The figures that are committed with a folder of results."""
    inside = folder.resolve().is_relative_to(EXPERIMENTS)
    return FIGURES.get(str(folder.resolve().relative_to(EXPERIMENTS)), []) if inside else []


def campaigns() -> list[Path]:
    """Every folder of committed results."""
    return sorted(path.parent for path in EXPERIMENTS.rglob(CAMPAIGN))


def make_documents(results_folder: Path, out: Path) -> list[Path]:
    """The documents of one campaign, all but those that lack runs."""
    results = read_results(results_folder)
    written = write_documents(out, results)
    if names := figures_of(results_folder):
        written += write_figures(out, results, only=names)
    return written.paths


def main(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders of kept results. (default: all committed)")
    ] = None,
) -> None:
    """Write tables and figures beside the metrics that they are made from."""
    for folder in folders or campaigns():
        for path in make_documents(folder, folder):
            typer.echo(path)


if __name__ == "__main__":
    typer.run(main)
