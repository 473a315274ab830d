"""One page of HTML that shows a campaign and needs nothing beside itself.

Tables sort by a click on a heading; `page.html?sort=ID.COLUMN` opens it with table ID sorted by its
column, counted from 0.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.files import make_folder, replace_when_complete
from hippynn_mf.labels import has_stress
from hippynn_mf.report.columns import field_name, set_name
from hippynn_mf.report.results import Results
from hippynn_mf.report.runs import Run
from hippynn_mf.report.table_data import TableData
from hippynn_mf.report.text import (
    beside,
    how_to_read,
    main_lines,
    paired_lines,
    table_notes,
)
from hippynn_mf.runs.weights import weights_text

TEMPLATE = "page.html.j2"
DOTS_PER_INCH = 110


@dataclass(frozen=True)
class PageTable:
    """A table that sorts: `lines` are its heading and its rows, `notes` stand below it."""

    id: str
    title: str
    lines: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class PageFigure:
    """A figure as a `data:` URI."""

    title: str
    uri: str

    @classmethod
    def of(cls, title: str, figure: Figure) -> PageFigure:
        """A figure as PNG inside the page."""
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
        encoded = base64.b64encode(content.getvalue()).decode("ascii")
        return cls(title, f"data:image/png;base64,{encoded}")


@dataclass(frozen=True)
class PageSection:
    """A heading with tables and figures; those in `folded` groups are shown on a click."""

    id: str
    title: str
    intro: str = ""
    tables: Sequence[PageTable] = ()
    figures: Sequence[PageFigure] = ()
    folded: dict[str, list[PageFigure]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def document_section(name: str, title: str, tables: Sequence[TableData]) -> PageSection:
    """The tables of a document, each followed by what it is compared with."""
    page_tables = []
    for place, table in enumerate(tables):
        id_ = f"{name}-{place}"
        heading = f"{table.title} ({table.metric.upper()})"
        page_tables.append(PageTable(id_, heading, main_lines(table), _items(table_notes(table))))
        if paired := paired_lines(table):
            page_tables.append(PageTable(f"{id_}-paired", beside(table), paired))
    return PageSection(name, title, tables=page_tables, notes=_items(how_to_read(tables)))


def _items(lines: Iterable[str]) -> list[str]:
    """Items of Markdown lists as texts."""
    text = "\n".join(lines).replace("\n  ", " ").replace("**", "")
    return [line.removeprefix("- ") for line in text.splitlines() if line]


def runs_section(results: Results) -> PageSection:
    """Every run: whether it is finished, the epoch that it kept, and its own heads' errors."""
    heading = ["experiment", "seed", "split", "state", "kept epoch", "training (s)"]
    heads = {level for e in results.experiments.values() for level in e.resolved_labels}
    levels = sorted(heads, key=lambda level: level.rank)
    heading += [f"energy, held-out {level.label} (kcal/mol)" for level in levels]
    ids = [level.id for level in levels]
    runs = _sorted(results)
    rows = [[*_run_cells(run), *(_own_energy(run, level) for level in ids)] for run in runs]
    n_finished, n_failed = len(results.finished), sum(r.failure is not None for r in results.runs)
    intro = f"{n_finished} of {len(results.runs)} runs are finished"
    intro += f", {n_failed} ended with an error." if n_failed else "."
    return PageSection("runs", "Runs", intro, [PageTable("all-runs", "All runs", [heading, *rows])])


def _sorted(results: Results) -> list[Run]:
    names = list(results.experiments)
    return sorted(
        results.runs, key=lambda run: (names.index(run.name), run.settings.split_seed, run.seed)
    )


def _run_cells(run: Run) -> list[str]:
    state = "failed" if run.failure is not None else "unfinished"
    kept = "—"
    if run.kept_epoch is not None and run.kept_epoch.number is not None:
        kept = f"{run.kept_epoch.number} of {run.kept_epoch.of}"
    training = (run.metrics or {}).get("training") or {}
    wall = training.get("wall_s")
    return [
        run.name,
        str(run.seed),
        str(run.settings.split_seed),
        "finished" if run.metrics is not None else state,
        kept,
        "—" if wall is None else f"{wall:.0f}",
    ]


def _own_energy(run: Run, level: str) -> str:
    entry = run.sets.get(HELDOUT, {}).get(level, {}).get(level, {})
    value = entry.get(field_name("energy", "rmse"))
    return "—" if value is None else f"{value:.3f}"


def failures_section(results: Results) -> PageSection | None:
    """What ended runs early, None where nothing did."""
    rows = [
        [run.name, str(run.seed), run.failure, run.where]
        for run in _sorted(results)
        if run.failure is not None
    ]
    if not rows:
        return None
    lines = [["experiment", "seed", "what ended its last attempt", "where"], *rows]
    return PageSection("failures", "What failed", tables=[PageTable("failed-runs", "", lines)])


def settings_section(results: Results) -> PageSection:
    """Settings, data and test sets with their hashes, levels, and versions."""
    settings = [run.settings for run in results.runs]
    first = settings[0]
    files = [
        ["set", "file", "SHA-256", "energy cut (kcal/mol)"],
        ["training, held-out", first.data.file_name, first.data.sha256, "—"],
    ]
    tests = {test.name: test for one in settings for test in one.tests}
    for test in tests.values():
        cut = test.energy_cut_kcal_per_mol
        text = "—" if cut is None else f"{cut:g}"
        files.append([set_name(test.name), test.file_name, test.sha256, text])
    used = {level.id for e in results.experiments.values() for level in e.resolved_labels}
    levels = [
        [level.label, level.id, f"{level.method}/{level.basis}", f"{level.rank:g}"]
        for level in results.known
        if level.id in used
    ]
    values: dict[str, dict[str, None]] = {}
    for one in settings:
        plain = {
            "preset": one.preset,
            "rows": one.rows,
            "split seed": one.split_seed,
            "labels kept": _fractions(one.label_fractions),
            "weights": weights_text(
                one.hyperparameters,
                one.weights,
                one.known,
                stress=has_stress(one.experiment.resolved_labels),
            )
            or "all 1",
            "common levels": ", ".join(one.common_levels),
            **one.hyperparameters.model_dump(mode="json"),
        }
        for name, value in plain.items():
            values.setdefault(name, {})[_shown(value)] = None
    recipe = [
        ["setting", "value"],
        *([name, " · ".join(versions_and_device)] for name, versions_and_device in values.items()),
    ]
    versions: dict[str, dict[str, None]] = {}
    for run in results.runs:
        versions_and_device = {
            **run.facts.get("versions", {}),
            "device": run.facts.get("device_used"),
            "interaction": run.facts.get("interaction_used"),
        }
        for name, value in versions_and_device.items():
            if value is not None:
                versions.setdefault(name, {})[str(value)] = None
    tables = [
        PageTable("files", "Data and test sets", files),
        PageTable("levels", "Levels of theory", [["label", "id", "method", "rank"], *levels]),
        PageTable("settings-of-runs", "Settings of the runs", recipe),
    ]
    if versions:
        lines = [["package", "version"], *([n, " · ".join(v)] for n, v in versions.items())]
        tables.append(PageTable("versions", "Versions", lines))
    return PageSection("settings", "Settings, data and versions", tables=tables)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _fractions(fractions: dict[str, float]) -> str:
    return ", ".join(f"{level} {100 * part:g} %" for level, part in fractions.items()) or "all"


def render_page(title: str, summary: Sequence[str], sections: Sequence[PageSection]) -> str:
    """The page as HTML; whatever runs are called, it is text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hippynn_mf.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(TEMPLATE)
    return template.render(
        title=title, summary=summary, sections=sections, version=version("hippynn_mf")
    )


def save_page(path: Path, content: str) -> Path:
    """Write the page, complete or not at all."""
    make_folder(path.parent)
    with replace_when_complete(path) as partial:
        partial.write_text(content, encoding="utf-8")
    return path
