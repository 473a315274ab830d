"""Figures as files, with the numbers in them beside them."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from hippynn_mf.files import make_folder, replace_when_complete, write_json
from hippynn_mf.schema import Strict


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, complete or not at all."""
    with replace_when_complete(path) as partial, matplotlib.rc_context({"savefig.dpi": 150}):
        figure.savefig(partial, format="png")
    return path


def save_with_numbers(figure: Figure, data: Strict, path: Path) -> Path:
    """Write a figure as PNG, and the numbers in it as JSON beside it."""
    make_folder(path.parent)
    write_json(path.with_suffix(".json"), data.model_dump(mode="json"))
    return save_figure(figure, path)
