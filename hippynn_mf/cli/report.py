"""Commands that show what finished runs say: `hippynn-mf tables`, `figures`, `report`, `graph`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hippynn_mf.cli.options import (
    LevelsOption,
    MetricChoice,
    OnlyExperimentsOption,
    OnlySeedsOption,
    PartialOption,
    SetOption,
    known_levels_of,
    parse_experiments,
)
from hippynn_mf.cli.texts import parse_names, parse_overrides, parse_seeds
from hippynn_mf.errors import UserError

if TYPE_CHECKING:  # pandas and matplotlib take a second, which --help need not wait for
    from hippynn_mf.report.results import Results, Selection

PAGES = (".html", ".htm")

OnlySplitOption = Annotated[
    int | None,
    typer.Option(
        "--split-seed", help="Of runs with several: the one to show. (default: means over all)"
    ),
]


def tables(
    directory: Annotated[Path, typer.Argument(help="Folder of runs, or of kept results.")],
    metric: Annotated[MetricChoice, typer.Option(help="rmse or mae.")] = MetricChoice.rmse,
    experiments: OnlyExperimentsOption = None,
    seeds: OnlySeedsOption = None,
    split_seed: OnlySplitOption = None,
    partial: PartialOption = False,
) -> None:
    """Write the paper's tables 2 to 4 and what is said about them, and print them.

    Where runs were tested on CC forces, there is a table of their errors; experiments that are not
    in Table 1, test sets of one's own, and all on other data than the embedded ones or ANI-1x, have
    tables of their own, without the paper's numbers. A table that lacks runs is refused.

    Example: hippynn-mf tables results --metric mae
    """
    from hippynn_mf.report.results import read_results

    results = read_results(directory)
    selection = make_selection(results, experiments, seeds, split_seed, partial, metric)
    refuse_if(print_tables(results, selection))


def figures(
    directory: Annotated[Path, typer.Argument(help="Folder of runs, or of kept results.")],
    only: Annotated[
        str | None,
        typer.Option(help="Kinds, as figure3,parity,spread; a wrong one lists all. (default: all)"),
    ] = None,
    experiments: OnlyExperimentsOption = None,
    seeds: OnlySeedsOption = None,
    split_seed: OnlySplitOption = None,
    partial: PartialOption = False,
) -> None:
    """Draw the paper's figure 3, parity plots, error against spread of seeds, and learning curves.

    Where runs were tested on forces of a level that nothing learns, there is a figure of their
    errors. A figure of several experiments that lacks runs is refused.

    Example: hippynn-mf figures results --only parity,spread
    """
    kinds = None if only is None else parse_names(only, "--only")
    from hippynn_mf.report.results import read_results

    results = read_results(directory)
    selection = make_selection(results, experiments, seeds, split_seed, partial)
    refuse_if(print_figures(results, selection, only=kinds))


def report(
    directory: Annotated[Path, typer.Argument(help="Folder of runs, or of kept results.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write. (default: report.html in the folder)"),
    ] = None,
) -> None:
    """Write one page that shows a campaign: tables that sort, figures, settings, what failed.

    The page needs nothing beside itself: it can be mailed. Unfinished campaigns have one, too.

    Example: hippynn-mf report results
    """
    if out is not None and out.suffix not in PAGES:
        raise UserError(f"The page is HTML; name it *.html, not {out.name}.")
    from hippynn_mf.paper.page import write_page

    typer.echo(write_page(out or directory / "report.html", directory))


def graph(
    name: Annotated[str, typer.Argument(help="Experiment, as MF-DZ/EF-CC/E, or a run folder.")],
    out: Annotated[Path, typer.Option(help="Image to write, as PNG.")],
    preset: Annotated[
        str | None, typer.Option(help="Of an experiment: quick, paper or robust. (default: quick)")
    ] = None,
    set_: SetOption = None,
    levels: LevelsOption = None,
) -> None:
    """Draw the graph of a model: its trunk, and a head for each level.

    Example: hippynn-mf graph MF-DZ/EF-CC/E --preset paper --out graph.png
    """
    from hippynn_mf.paper.graph import write_model_graph

    known = known_levels_of(levels)
    overrides = parse_overrides(set_)
    typer.echo(write_model_graph(name, out, preset=preset, overrides=overrides, levels=known))


def make_selection(
    results: Results,
    experiments: str | None,
    seeds: str | None,
    split_seed: int | None,
    partial: bool,
    metric: MetricChoice = MetricChoice.rmse,
) -> Selection:
    """What was chosen by options; experiments are of levels that the runs know.

    Raises UserError for seeds of which no run is there.
    """
    from hippynn_mf.report.results import Selection

    wanted = None if seeds is None else list(parse_seeds(seeds))
    there = sorted({run.seed for run in results.runs})
    if wanted is not None and not set(wanted) & set(there):
        raise UserError(f"No run has seed {seeds}. There are runs of {', '.join(map(str, there))}.")
    splits = results.split_seeds
    if split_seed is not None and split_seed not in splits:
        known = ", ".join(map(str, splits))
        raise UserError(f"No run has split seed {split_seed}. There are runs of {known}.")
    names = None if experiments is None else parse_names(experiments, "--experiments")
    return Selection(
        experiments=None if names is None else parse_experiments(names, results.known),
        seeds=wanted,
        split_seed=split_seed,
        metric=metric.value,
        partial=partial,
    )


def print_tables(results: Results, selection: Selection) -> str | None:
    """Write the complete tables and print them; why others were not written, or None.

    Of several splits, the tables of means over them are printed.
    """
    from hippynn_mf.paper.documents import write_documents

    written = write_documents(results.out, results, selection)
    of_splits = [p for p in written.paths if p.parent.parent.name == "tables"]
    shown = [p for p in written.paths if p not in of_splits] or of_splits
    for path in shown:
        typer.echo(path.read_text(encoding="utf-8"))
    if len(shown) < len(written.paths):
        folders = dict.fromkeys(str(path.parent) for path in of_splits)
        typer.echo(f"Tables of each split: {', '.join(folders)}\n")
    return written.refusal


def print_figures(
    results: Results, selection: Selection, *, only: Sequence[str] | None = None
) -> str | None:
    """Draw the figures and say where; why some were not drawn, or None."""
    from hippynn_mf.paper.figures import write_figures

    written = write_figures(results.out, results, selection, only=only)
    folder = results.out / "figures"
    names = ", ".join(str(path.relative_to(folder)) for path in written.paths[:3]) or "none"
    more = ", …" if len(written.paths) > 3 else ""
    typer.echo(f"{len(written.paths)} figures in {folder}: {names}{more}")
    return written.refusal


def refuse_if(refusal: str | None) -> None:
    """Raise UserError with what was not written, if anything was not."""
    if refusal:
        raise UserError(refusal)
