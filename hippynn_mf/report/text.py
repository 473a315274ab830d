"""Tables as Markdown, from their numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.report.columns import set_name
from hippynn_mf.report.statistics import FEWEST_FOR_INTERVAL, format_interval, format_mean
from hippynn_mf.report.table_data import Cell, RowData, TableData

FORMULAS = {
    "seeds": """\
- ±: 95 % interval of the mean over n seeds, t·s/√n, with the standard deviation s (n − 1) and the
  97.5 % quantile t of Student's t with n − 1 degrees of freedom. It covers what the seed changes
  (weights, order of batches), not the choice of structures.{of_paper}
- mean prediction: the error of the mean of all seeds' predictions, beside the mean of their errors.
- difference: the mean over seeds of the model's error minus the other error of the same seed, with
  the interval of the paired t test.""",
    "splits": """\
- ±: 95 % interval of the mean over n splits, t·s/√n, with the standard deviation s (n − 1) and the
  97.5 % quantile t of Student's t with n − 1 degrees of freedom. The error of a split is the mean
  over its seeds. The interval covers what the choice of structures for training and test changes,
  together with what is left of that of the seed; splits share structures, so that it is somewhat
  too narrow.{of_paper}
- mean prediction: the mean over splits of the error of the mean of all seeds' predictions.
- difference: the mean over splits of the model's error minus the other error of the same split,
  with the interval of the paired t test.""",
}
IMPROVEMENT = """\
- improvement: 100·(1 − exp(mean d)), where d is the logarithm of the ratio of both errors of one
  {unit}; in brackets its 95 % interval, from that of the mean of d."""
# What follows where the paper's numbers stand beside.
FORMULA_OF_PAPER = " The paper does not state its formula."
IMPROVEMENT_OF_PAPER = " Beside it that of the published\n  means."
DATA_OF_PAPER = " Published numbers: eight seeds on ANI-1x and COMP6."


Lines = list[Sequence[str]]  # the heading, then the rows


def main_table(table: TableData) -> str:
    """The paper's columns, each with the ensemble's own error and the published number."""
    return markdown(main_lines(table))


def main_lines(table: TableData) -> Lines:
    """The cells of `main_table`."""
    heading = ["model", "seeds" if table.over == "seeds" else "splits × seeds"]
    for column in table.columns:
        heading.append(f"{column.heading} ({column.unit})")
        if column.is_error:
            heading.append("mean prediction")
        if _has_published(table):
            heading.append("published")
    return [heading, *(_main_row(row, table) for row in table.rows)]


def _main_row(row: RowData, table: TableData) -> list[str]:
    n_seeds = str(len(row.seeds))
    texts = [row.model, f"{len(row.splits)} × {n_seeds}" if table.over == "splits" else n_seeds]
    for cell, column in zip(row.cells, table.columns, strict=True):
        texts.append(format_mean(cell.mean, unit=table.unit))
        if column.is_error:
            texts.append(_number(cell.ensemble))
        if _has_published(table):
            texts.append(_published(cell))
    return texts


def paired_table(table: TableData) -> str:
    """Every row beside the reference of the table, seed by seed; empty without such a row."""
    lines = paired_lines(table)
    return markdown(lines) if lines else ""


def paired_lines(table: TableData) -> Lines:
    """The cells of `paired_table`; none without a row."""
    heading = ["model", table.over]
    for column in table.columns:
        difference = f"{column.heading}: difference ({column.unit})"
        if table.paired_with_experiment:
            heading += [difference, "improvement (%)"]
            heading += ["published (%)"] if _has_published(table) else []
        else:
            published = ["published"] if _has_published(table) else []
            heading += [table.reference, *published, difference]
    rows = [
        _paired_row(row, table)
        for row in table.rows
        if any(cell.difference is not None for cell in row.cells)
    ]
    return [heading, *rows] if rows else []


def _paired_row(row: RowData, table: TableData) -> list[str]:
    counts = [cell.difference.n for cell in row.cells if cell.difference is not None]
    texts = [row.model, str(max(counts))]
    for cell, column in zip(row.cells, table.columns, strict=True):
        difference = format_mean(cell.difference, signed=True, unit=table.unit)
        if table.paired_with_experiment:
            improvement = format_interval(cell.percent_improvement, unit=table.unit)
            texts += [difference, improvement]
            if _has_published(table):
                texts.append(_number(cell.published_percent_improvement, digits=1))
        else:
            published = [_number(column.published_reference)] if _has_published(table) else []
            texts += [_number(cell.reference), *published, difference]
    return texts


def format_document(tables: Sequence[TableData]) -> str:
    """Tables with titles, and below them what their readers have to know, as Markdown."""
    parts = [text for table in tables for text in _format(table)]
    return "\n".join([*parts, *how_to_read(tables)]) + "\n"


def _format(table: TableData) -> list[str]:
    parts = [f"## {table.title} ({table.metric.upper()})", "", main_table(table), ""]
    if paired := paired_table(table):
        parts += [f"{beside(table)}:", "", paired, ""]
    elif table.rows:
        parts += [f"Nothing here could be compared with {table.reference}.", ""]
    notes = table_notes(table)
    return [*parts, *notes, ""] if notes else parts


def beside(table: TableData) -> str:
    """What a paired table shows."""
    return f"Beside {table.reference}, {table.unit} by {table.unit}"


def table_notes(table: TableData) -> list[str]:
    """What readers of one table have to know, as items of a list."""
    notes = []
    if table.missing:
        notes.append(f"- **Partial.** Missing: {'; '.join(table.missing)}.")
    for place, column in enumerate(table.columns):
        cells = [row.cells[place] for row in table.rows]
        if table.metric == "rmse" and column.label_rms is not None:
            size = f"{column.label_rms:.2f} {column.unit}"
            note = f"- {column.heading}: predicting zero has an RMSE of {size}"
            above = [
                row.model
                for row, cell in zip(table.rows, cells, strict=True)
                if cell.mean is not None and cell.mean.value > column.label_rms
            ]
            notes.append(f"{note}; above it: {', '.join(above)}." if above else f"{note}.")
        if any(cell.mean is None for cell in cells) and column.null_reason:
            notes.append(f"- {column.heading}: — because {column.null_reason}.")
    without = [
        row.model
        for row in table.rows
        if table.columns[0].is_error and len(row.seeds) > 1 and row.cells[0].ensemble is None
    ]
    if without:
        notes.append(
            f"- No mean prediction of {', '.join(without)}: the runs' predictions.npz are missing "
            "('hippynn-mf evaluate' makes them)."
        )
    return notes


def how_to_read(tables: Sequence[TableData]) -> list[str]:
    """Formulas, and the data and recipe, which are those of all tables of a document."""
    filled = [table for table in tables if table.rows]
    if not filled:
        return []
    of_paper = any(cell.published for table in filled for row in table.rows for cell in row.cells)
    over, unit = filled[0].over, filled[0].unit
    lines = [FORMULAS[over].format(of_paper=FORMULA_OF_PAPER if of_paper else "")]
    if any(table.paired_with_experiment for table in filled):
        lines.append(IMPROVEMENT.format(unit=unit) + (IMPROVEMENT_OF_PAPER if of_paper else ""))
    counts = [len(getattr(row, over)) for table in filled for row in table.rows]
    if min(counts) < FEWEST_FOR_INTERVAL:
        lines.append(f"- Fewer than three {over} have no interval: in parentheses is their range.")
    if source := filled[0].source:
        splits = f"split seed {source.split_seed}"
        if source.split_seeds:
            splits = f"split seeds {', '.join(map(str, source.split_seeds))}"
        line = (
            f"- rows: {source.rows}; preset: {source.preset}; data: {source.data_file} (SHA-256 "
            f"{source.data_sha256[:12]}), {splits}."
        )
        tests = {test.name: test for table in filled if table.source for test in table.source.tests}
        for test in tests.values():
            line += f" {set_name(test.name)}: {test.file} (SHA-256 {test.sha256[:12]})."
        if of_paper:
            line += DATA_OF_PAPER
        lines.append(line)
    return lines


def _has_published(table: TableData) -> bool:
    """Whether the paper's RMSEs stand beside: it has none of experiments beyond its Table 1."""
    cells = [cell for row in table.rows for cell in row.cells]
    return table.metric == "rmse" and (not cells or any(cell.published for cell in cells))


def _published(cell: Cell) -> str:
    if cell.published is None:
        return "—"
    value = f"{cell.published.value:.2f}"
    width = cell.published.half_width
    return value if width is None else f"{value} ± {width:.2f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "—" if value is None else f"{value:.{digits}f}".replace("-", "−")


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A heading and rows as a Markdown table."""
    heading, *rows = lines
    cells = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)
