"""The commands `hippynn-mf data ...`: what is in a data file, and conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hippynn_mf.cli.once import OnceCommand
from hippynn_mf.cli.options import (
    KeyOption,
    LevelsOption,
    UnitsOption,
    known_levels_of,
    told_source,
)

data_app = typer.Typer(help="Look into data files, and convert them.", no_args_is_help=True)

FilesArgument = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="A file or folder, or LEVEL=FILE several times"),
]


@data_app.command(cls=OnceCommand)
def info(
    files: FilesArgument,
    levels: LevelsOption = None,
    key: KeyOption = None,
    units: UnitsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Describe a data file: labels per level, overlaps, and what looks wrong.

    Example: hippynn-mf data info ani1x-release.h5 --json
    """
    from hippynn_mf.data.info import describe_file, format_description

    description = describe_file(told_source(files, key, units), levels=known_levels_of(levels))
    typer.echo(json.dumps(description, indent=2) if as_json else format_description(description))


@data_app.command(cls=OnceCommand)
def convert(
    files: FilesArgument,
    out: Annotated[Path, typer.Argument(help="File to write; its suffix says what it becomes.")],
    levels: LevelsOption = None,
    key: KeyOption = None,
    units: UnitsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    drop_others: Annotated[
        bool, typer.Option("--drop-others", help="Leave out what OUT has no place for.")
    ] = False,
    accept_outliers: Annotated[
        bool,
        typer.Option("--accept-outliers", help="Convert although more labels stand out than pass."),
    ] = False,
    accept_charged: Annotated[
        bool,
        typer.Option("--accept-charged", help="Convert others than neutral singlets."),
    ] = False,
) -> None:
    """Convert any format that is read to the ANI-1x layout (.h5), extended XYZ (.xyz), or .npz.

    One file for each level makes one file: DZ=a.xyz CC=b.npz all.h5

    Example: hippynn-mf data convert my.xyz my.h5
    """
    from hippynn_mf.data.checks.report import Accepted
    from hippynn_mf.data.convert import convert_data

    known = known_levels_of(levels)
    source = told_source(files, key, units)
    notes = convert_data(
        source,
        out,
        force=force,
        drop_others=drop_others,
        accepted=Accepted(outliers=accept_outliers, charged=accept_charged),
        levels=known,
    )
    for note in notes:
        typer.echo(note)
    typer.echo(out)
