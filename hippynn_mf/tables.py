"""The paper's tables 2 to 4 from finished runs, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.experiment import Experiment, table1
from hippynn_mf.files import replace_when_complete
from hippynn_mf.levels import CC, MP2, TZ, Level
from hippynn_mf.results import FEWEST_FOR_INTERVAL, Results, summarize

Metric = Literal["rmse", "mae"]


@dataclass(frozen=True)
class Column:
    """A column of results: its heading, and where runs keep its metric (`{}` is rmse or mae)."""

    heading: str
    unit: str
    path: tuple[str, ...]

    def metric_path(self, metric: Metric) -> tuple[str, ...]:
        """Path of keys into `metrics.json`."""
        return tuple(part.format(metric) for part in self.path)


def heldout_energy(level: Level) -> Column:
    """Energy error on the held-out structures against a level."""
    path = ("heldout", level.id, "energy_{}_kcal_per_mol")
    return Column(f"energy, held-out {level.label}", "kcal/mol", path)


def heldout_force(level: Level) -> Column:
    """Force error on the held-out structures against a level."""
    path = ("heldout", level.id, "force_{}_kcal_per_mol_per_angstrom")
    return Column(f"force, held-out {level.label}", "kcal/mol/Å", path)


def comp6_force(level: Level) -> Column:
    """Force error on COMP6 against a level."""
    path = ("comp6", level.id, "force_{}_kcal_per_mol_per_angstrom")
    return Column(f"force, COMP6 {level.label}", "kcal/mol/Å", path)


def comp6_delta_e(level: Level) -> Column:
    """Conformer energy error on COMP6 against a level."""
    path = ("comp6", level.id, "delta_e_{}_kcal_per_mol")
    return Column(f"ΔE, COMP6 {level.label}", "kcal/mol", path)


# Number in the paper → its two columns. The rows are the experiments that published there.
TABLES: dict[int, tuple[Column, Column]] = {
    2: (heldout_energy(TZ), heldout_force(TZ)),
    3: (heldout_energy(MP2), comp6_force(MP2)),
    4: (heldout_energy(CC), comp6_delta_e(CC)),
}


def format_table(
    number: int, results: Results, metric: Metric, experiments: Sequence[Experiment]
) -> str:
    """One of the paper's tables as Markdown, with the published RMSEs in their own columns.

    Runs that are missing or unfinished are named below the table, never averaged over.
    """
    columns = TABLES[number]
    rows = [e for e in experiments if e.published and e.published.table == number]
    present = [e for e in rows if e.name in results.by_name]
    heading = ["model", "seeds"]
    for column in columns:
        heading.append(f"{column.heading} ({column.unit})")
        if metric == "rmse":
            heading.append("published")
    lines = [_row(heading), _row(["---"] * len(heading))]
    for experiment in present:
        assert experiment.published is not None
        cells = [experiment.name, str(len(results.by_name[experiment.name]))]
        published = (experiment.published.energy, experiment.published.other)
        for column, (mean, half_width) in zip(columns, published, strict=True):
            cells.append(summarize(results.values(experiment.name, *column.metric_path(metric))))
            if metric == "rmse":
                cells.append(f"{mean:.2f} ± {half_width:.2f}")
        lines.append(_row(cells))
    title = f"## Table {number}: {metric.upper()} of {columns[0].heading}; {columns[1].heading}"
    notes = [*_label_notes(columns, rows, results, metric), *_notes(rows, results)]
    return "\n".join([title, "", *lines, "", *notes]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _label_notes(
    columns: Sequence[Column], rows: Sequence[Experiment], results: Results, metric: Metric
) -> list[str]:
    """How large the labels are: what an error has to be compared with."""
    notes = []
    for column in columns:
        name = column.path[-1].replace("_{}_", "_label_rms_")
        values = [v for row in rows for v in results.values(row.name, *column.path[:-1], name)]
        if metric == "rmse" and values:
            size = f"{np.mean(values):.2f} {column.unit}"
            notes.append(f"- {column.heading}: predicting zero has an RMSE of {size}.")
    return notes


def _notes(rows: Sequence[Experiment], results: Results) -> list[str]:
    present = [result for e in rows for result in results.by_name.get(e.name, [])]
    notes = []
    missing = [e.name for e in rows if e.name not in results.by_name]
    if missing:
        notes.append(f"- Not trained: {', '.join(missing)}.")
    seeds = sorted({result.settings.seed for result in present})
    for e in rows:
        have = {result.settings.seed for result in results.by_name.get(e.name, [])}
        if e.name not in missing and have != set(seeds):
            notes.append(f"- {e.name} lacks seeds {sorted(set(seeds) - have)}.")
    unfinished = [run for run in results.unfinished if run.split(",")[0] in {e.name for e in rows}]
    if unfinished:
        notes.append(f"- Unfinished: {'; '.join(unfinished)}.")
    if present:
        settings = present[0].settings
        fewest = min(len(results.by_name[e.name]) for e in rows if e.name in results.by_name)
        spread = "mean ± 95 % interval over seeds (t)"
        if fewest < FEWEST_FOR_INTERVAL:
            spread += ", mean and range for fewer than three seeds"
        notes.append(
            f"- {spread}; rows: {settings.rows}; preset: {settings.preset}; data: "
            f"{settings.data.path.name} (SHA-256 {settings.data.sha256[:12]}), split seed "
            f"{settings.split_seed}. Published numbers: eight seeds on the real ANI-1x and COMP6."
        )
    return notes


def write_tables(
    out: Path,
    results: Results,
    *,
    metric: Metric = "rmse",
    experiments: Sequence[Experiment] | None = None,
) -> list[Path]:
    """Write `out/tables/table2.md` to `table4.md` (`…-mae.md` for MAEs); returns their paths."""
    if metric not in get_args(Metric):
        raise UserError(unknown_name_message("metric", metric, get_args(Metric)))
    folder = out / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in TABLES:
        path = folder / f"table{number}{'' if metric == 'rmse' else '-' + metric}.md"
        with replace_when_complete(path) as partial:
            partial.write_text(format_table(number, results, metric, experiments or table1()))
        paths.append(path)
    return paths
