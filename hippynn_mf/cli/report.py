"""Commands that show what finished runs say: `hippynn-mf tables`, `figures`, `graph`."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from hippynn_mf.runs.experiment import Experiment


def tables(
    directory: Annotated[Path, typer.Argument(help="Folder that holds runs/.")],
    metric: Annotated[MetricChoice, typer.Option(help="rmse or mae.")] = MetricChoice.rmse,
    experiments: OnlyExperimentsOption = None,
    seeds: OnlySeedsOption = None,
    partial: PartialOption = False,
) -> None:
    """Write the paper's tables 2 to 4 and what is said about them, and print them.

    Where runs were tested on CC forces, there is a table of their errors; experiments that are not
    in Table 1 have tables of their own. A table that lacks runs is refused.

    Example: hippynn-mf tables results --metric mae
    """
    only = None if seeds is None else list(parse_seeds(seeds))
    chosen = None if experiments is None else parse_experiments(parse_names(experiments))
    refuse_if(print_tables(directory, metric, experiments=chosen, seeds=only, partial=partial))


def figures(
    directory: Annotated[Path, typer.Argument(help="Folder that holds runs/.")],
    only: Annotated[
        str | None,
        typer.Option(help="Kinds, as figure3,parity,spread; a wrong one lists all. (default: all)"),
    ] = None,
    experiments: OnlyExperimentsOption = None,
    seeds: OnlySeedsOption = None,
    partial: PartialOption = False,
) -> None:
    """Draw the paper's figure 3, parity plots, error against spread of seeds, and learning curves.

    Where runs were tested on CC forces, there is a figure of their errors. A figure of several
    experiments that lacks runs is refused.

    Example: hippynn-mf figures results --only parity,spread
    """
    kinds = None if only is None else parse_names(only)
    numbers = None if seeds is None else list(parse_seeds(seeds))
    chosen = None if experiments is None else parse_experiments(parse_names(experiments))
    refuse_if(
        print_figures(directory, only=kinds, experiments=chosen, seeds=numbers, partial=partial)
    )


def graph(
    name: Annotated[str, typer.Argument(help="Experiment, as MF-DZ/EF-CC/E, or a run folder.")],
    out: Annotated[Path, typer.Option(help="Image to write, as PNG.", dir_okay=False)],
    preset: Annotated[
        str | None, typer.Option(help="Of an experiment: quick or paper. (default: quick)")
    ] = None,
    set_: SetOption = None,
    levels: LevelsOption = None,
) -> None:
    """Draw the graph of a model: its trunk, and a head for each level.

    Example: hippynn-mf graph MF-DZ/EF-CC/E --preset paper --out graph.png
    """
    from hippynn_mf.report.model_graph import write_model_graph

    known_levels_of(levels)
    typer.echo(write_model_graph(name, out, preset=preset, overrides=parse_overrides(set_)))


def print_tables(
    out: Path,
    metric: MetricChoice,
    *,
    experiments: list[Experiment] | None = None,
    seeds: list[int] | None = None,
    partial: bool = False,
) -> str | None:
    """Write the complete tables and print them; why others were not written, or None."""
    from hippynn_mf.paper.documents import write_documents
    from hippynn_mf.report.results import read_results

    written = write_documents(
        out,
        read_results(out),
        metric=metric.value,
        experiments=experiments,
        seeds=seeds,
        partial=partial,
    )
    for path in written.paths:
        typer.echo(path.read_text(encoding="utf-8"))
    return written.refusal


def print_figures(
    out: Path,
    *,
    only: list[str] | None = None,
    experiments: list[Experiment] | None = None,
    seeds: list[int] | None = None,
    partial: bool = False,
) -> str | None:
    """Draw the figures and say where; why some were not drawn, or None."""
    from hippynn_mf.paper.figures import write_complete_figures
    from hippynn_mf.report.results import read_results

    written = write_complete_figures(
        out,
        read_results(out),
        only=only,
        experiments=experiments,
        seeds=seeds,
        partial=partial,
    )
    names = ", ".join(path.name for path in written.paths[:3]) or "none"
    more = ", …" if len(written.paths) > 3 else ""
    typer.echo(f"{len(written.paths)} figures in {out / 'figures'}: {names}{more}")
    return written.refusal


def refuse_if(refusal: str | None) -> None:
    """Raise UserError with what was not written, if anything was not."""
    if refusal:
        raise UserError(refusal)
