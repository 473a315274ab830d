"""The page of a campaign: all of its tables and figures, the paper's findings, and its runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hippynn_mf.paper import FIGURES
from hippynn_mf.paper.claims import claim_lines, find_claims
from hippynn_mf.paper.documents import build_tables, document_specs, split_parts
from hippynn_mf.paper.figures import shared_figures
from hippynn_mf.report.ensemble import split_ensembles
from hippynn_mf.report.experiment_figures import KINDS, drawn_figures
from hippynn_mf.report.page import (
    PageFigure,
    PageSection,
    PageTable,
    document_section,
    failures_section,
    render_page,
    runs_section,
    save_page,
    settings_section,
)
from hippynn_mf.report.results import Results, Selection, read_results

TITLES = {
    "table2": "Table 2",
    "table3": "Table 3",
    "table4": "Table 4",
    "low-level-forces": "Low-level forces",
    "experiments": "Experiments",
    "cc-forces": "CC forces",
    "strategies": "Strategies",
}
FIGURE_TITLES = {
    "parity": "Predicted against reference",
    "spread": "Error against the spread of the seeds",
    "learning": "Validation errors after each epoch",
}


def write_page(path: Path, directory: Path) -> Path:
    """Write the page of a folder of runs, or of kept results, whether they are finished or not.

    With several split seeds, there are tables of the means over them, and each has its own tables
    and figures. Raises UserError as
    `read_results` does.
    """
    results = read_results(directory)
    sections = []
    for part, _ in split_parts(results, Selection(partial=True)):
        of_this_part = _sections(results, part)
        if len(results.split_seeds) > 1:
            of_this_part = [_of_part(section, part.split_seed) for section in of_this_part]
        sections += of_this_part
    sections += [runs_section(results)]
    if failures := failures_section(results):
        sections.append(failures)
    sections.append(settings_section(results))
    return save_page(path, render_page(_title(directory), _summary(results), sections))


def _title(directory: Path) -> str:
    return f"Campaign: {directory.resolve().name}"


def _summary(results: Results) -> list[str]:
    seeds = {run.seed for run in results.finished}
    counts = [
        (len(results.experiments), "experiment"),
        (len(results.finished), "finished run"),
        (len(seeds), "seed"),
        (len(results.split_seeds), "split"),
        (len(results.sets), "test set"),
    ]
    texts = [f"{n} {noun}{'' if n == 1 else 's'}" for n, noun in counts]
    n_left = len(results.runs) - len(results.finished)
    return texts + ([f"{n_left} not finished"] if n_left else [])


def _of_part(section: PageSection, split_seed: int | None) -> PageSection:
    """The section named by its split, or as one of means over all of them."""
    if split_seed is None:
        return replace(section, title=f"{section.title}, mean over splits")
    return PageSection(
        id=f"split-{split_seed}-{section.id}",
        title=f"{section.title}, split seed {split_seed}",
        intro=section.intro,
        tables=[
            PageTable(f"split-{split_seed}-{table.id}", table.title, table.lines, table.notes)
            for table in section.tables
        ],
        figures=section.figures,
        folded=section.folded,
        notes=section.notes,
    )


def _sections(results: Results, selection: Selection) -> list[PageSection]:
    """The sections of one split, or of the means over several, which have no figures."""
    chosen = selection.of(results)
    ensembles = split_ensembles(chosen, list(chosen.by_name))
    findings, _ = find_claims(results, selection)
    sections = []
    if any(f.percent_improvement for f in findings.findings):
        lines, notes = claim_lines(findings)
        table = PageTable("findings-0", "", lines, notes)
        sections.append(PageSection("findings", "Findings of the paper", tables=[table]))
    for name, specs in document_specs(results, selection).items():
        with_runs = [spec for spec in specs if any(n in chosen.by_name for n in spec.names)]
        tables = build_tables(with_runs, chosen, ensembles, selection)
        if tables:
            title = TITLES.get(name, f"Test set {name.removeprefix('set-')}")
            sections.append(document_section(name, title, tables))
    if chosen.over == "splits":
        return sections
    shared = [
        PageFigure.of(figure.title, figure.make()[0])
        for name in FIGURES
        for figure in shared_figures(results, selection, name)
        if not figure.missing
    ]
    folded: dict[str, list[PageFigure]] = {}
    for kind in KINDS:
        for slug, figure, _ in drawn_figures(chosen, kind):
            name = next(run.name for run in chosen.finished if run.settings.slug == slug)
            folded.setdefault(name, []).append(PageFigure.of(FIGURE_TITLES[kind], figure))
    if shared or folded:
        sections.append(PageSection("figures", "Figures", figures=shared, folded=folded))
    return sections
