"""The command that goes on with a finished model: `hippynn-mf extend`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from hippynn_mf.cli.asking import with_fields
from hippynn_mf.cli.options import interruptible
from hippynn_mf.cli.texts import read_values, split_files
from hippynn_mf.errors import UserError
from hippynn_mf.runs.request import Request
from hippynn_mf.starting import import_hippynn


class TrunkChoice(StrEnum):
    """What becomes of the network below the heads."""

    frozen = "frozen"
    trained = "trained"


@with_fields(
    *("--data", "--train", "--key", "--units", "--levels", "--label", "--valid-file", "--test"),
    *("--comp6", "--comp6-keys", "--energy-cut", "--preset", "--set", "--weight", "--rows"),
    *("--split-seed", "--split", "--label-fraction", "--accept-outliers", "--accept-charged"),
    *("--ignore-cell", "--seeds", "--device", "--out"),
)
def extend(
    parent: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|RUN...",
            help="Model file, or run folders that differ in their seeds; after --train more files.",
        ),
    ],
    fields: Mapping[str, Any],
    replay: Annotated[
        bool,
        typer.Option("--replay", help="Train on the training data of the run folder, too."),
    ] = False,
    trunk: Annotated[
        TrunkChoice | None,
        typer.Option(
            help="Train the network below the heads, or keep it. (default: train it if all levels "
            "of the model are trained)"
        ),
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option(
            "--base",
            metavar="NEW=LEVEL",
            help="Level that a new one begins as; repeatable. (default: the one below it)",
        ),
    ] = None,
) -> None:
    """Go on with a finished model: more labels, another level, another element.

    Without data, those of the run folder. The run is one like others: the same command continues
    it, and export makes its model file.

    Example: hippynn-mf extend model.safetensors --train CC=more.xyz
    """
    import_hippynn()
    from hippynn_mf.network.device import choose_device
    from hippynn_mf.runs.execute import run_here
    from hippynn_mf.runs.extending import build_extension
    from hippynn_mf.runs.folder import RunFolder
    from hippynn_mf.runs.summary import next_commands, summarize
    from hippynn_mf.runs.summary_of_changes import summarize_changes

    names, files = split_files(parent)
    request = Request.of(read_values(fields, (), files))
    choose_device(request.device)
    asked = build_extension(
        request,
        names,
        trunk=None if trunk is None else trunk.value,
        replay=replay,
        bases=_parse_bases(base or []),
    )
    with interruptible():
        outcomes = run_here(asked.settings, request.out, announcement="\n".join(asked.lines))
    finished = []
    for outcome in outcomes:
        if outcome.error:
            raise UserError(f"{outcome.settings.name}: {outcome.error}")
        finished.append(RunFolder.of(request.out, outcome.settings))
        typer.echo(finished[-1].path)
        typer.echo(summarize(finished[-1]))
        typer.echo(summarize_changes(finished[-1]))
    typer.echo(next_commands(finished, request.out))


def _parse_bases(pairs: list[str]) -> dict[str, str]:
    """New level → level from NEW=LEVEL; a UserError for another form, or a level twice."""
    found: dict[str, str] = {}
    for pair in pairs:
        new, _, old = pair.partition("=")
        if not new or not old or new in found:
            raise UserError(f"--base expects NEW=LEVEL, each new level once; found {pair!r}.")
        found[new] = old
    return found
