"""What an extension has made of the levels of its parent, for the end of `hippynn-mf extend`."""

from __future__ import annotations

from hippynn_mf.evaluation.schema import validate_metrics
from hippynn_mf.runs.folder import RunFolder

QUANTITIES = {
    "energy": ("energy", "kcal/mol"),
    "delta_e": ("conformer energy", "kcal/mol"),
    "force": ("force", "kcal/mol/Å"),
}


def summarize_changes(folder: RunFolder) -> str:
    """A line for every error of a level of the parent: before, now, and whether it got worse.

    Raises UserError if the run is not finished.
    """
    metrics = validate_metrics(folder.read_metrics(), folder.file("metrics.json"))
    labels = {level.id: level.label for level in folder.read_settings().known}
    rows = [("test set", "level of the parent", "parent", "now", "difference", "")]
    for name, of_set in (metrics.parent or {}).items():
        for level_id, of_level in of_set.items():
            for quantity, change in of_level.items():
                title, unit = QUANTITIES[quantity]
                between = ""
                if change.low is not None and change.high is not None:
                    between = f"{change.low:+.2f} to {change.high:+.2f}".replace("-", "−")
                rows.append(
                    (
                        name,
                        f"{labels[level_id]} {title}, {unit}",
                        f"{change.before:.2f}",
                        f"{change.now:.2f}",
                        between,
                        change.verdict,
                    )
                )
    if len(rows) == 1:
        return "  No structures have labels of the parent's levels: nothing tells if it got worse."
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.append("RMSE; 95 % interval of the difference over structures, by paired bootstrap.")
    return "\n".join(f"  {line}" for line in lines)
