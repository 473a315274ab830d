"""The command line, `hippynn-mf`: it reads options, calls the library, and prints."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hippynn_mf.cli.curves import learning_curve
from hippynn_mf.cli.data import data_app
from hippynn_mf.cli.extend import extend
from hippynn_mf.cli.labelling import label, sample
from hippynn_mf.cli.once import OnceCommand
from hippynn_mf.cli.potentials import card, export, extract, mliap, predict, torsion
from hippynn_mf.cli.report import figures, graph, report, tables
from hippynn_mf.cli.runs import campaign, evaluate, new, reproduce, status, train
from hippynn_mf.cli.selecting import select
from hippynn_mf.cli.stopping import Stopping, end_process, stoppable
from hippynn_mf.errors import UserError, ignore_import_warnings, printable
from hippynn_mf.starting import match_numba_threads

if TYPE_CHECKING:
    from hippynn_mf.runs.experiment import Experiment

app = typer.Typer(
    help="Multi-fidelity learning for interatomic potentials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
app.command("campaign", cls=OnceCommand)(campaign)
app.command(
    "reproduce", cls=OnceCommand, help="The same as campaign, with the preset quick on any data."
)(reproduce)
for command in (
    *(new, train, extend, status, evaluate, learning_curve),
    *(tables, figures, report, graph),
    *(export, card, predict, torsion, extract, mliap, select),
    *(sample, label),
):
    app.command(cls=OnceCommand)(command)


@app.command(cls=OnceCommand)
def experiments(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the 17 experiments of Table 1, and the strategies beside them.

    Example: hippynn-mf experiments --json
    """
    from hippynn_mf.labels import plain_labels
    from hippynn_mf.paper.table1 import beyond_table1, table1

    rows = [
        {
            "name": e.name,
            "script": e.script,
            "strategy": e.strategy.title,
            "labels": plain_labels(e.resolved_labels),
        }
        for e in (*table1(), *beyond_table1())
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        name, script = (max(len(str(row[column])) for row in rows) for column in ("name", "script"))
        for row in rows:
            typer.echo(f"{row['name']:<{name}}  {row['script']:<{script}}  {row['strategy']}")


@app.command(cls=OnceCommand)
def settings(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List what --set takes: every hyperparameter with its presets, its unit and its meaning.

    Example: hippynn-mf settings
    """
    from hippynn_mf.runs.setting_texts import format_hyperparameters, hyperparameter_rows

    rows = hyperparameter_rows()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        typer.echo(format_hyperparameters(rows))


class _Once(logging.Filter):
    """Lets a message through once: what is read twice is warned of twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self.shown
        self.shown.add(message)
        return is_new


class _Plain(logging.Formatter):
    """What this package warns of, without the module that does; of others, who they are."""

    def format(self, record: logging.LogRecord) -> str:
        is_own = record.name.split(".")[0] == "hippynn_mf"
        return f"{'warning' if is_own else record.name}: {super().format(record)}"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; wrong input prints one message and exits with code 2."""
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)  # of what runs log for their own file, only this
    # Parsl has a log of its own, and reports the same through the outcomes of runs.
    terminal.addFilter(lambda record: not record.name.startswith("parsl"))
    terminal.addFilter(_Once())
    terminal.setFormatter(_Plain())
    logging.basicConfig(handlers=[terminal])
    ignore_import_warnings()
    match_numba_threads()
    if not sys.stderr.isatty():
        os.environ.setdefault("HIPPYNN_PROGRESS", "none")  # hippynn's bars are for terminals
    with stoppable() as stopping:
        code = _run(arguments, stopping)
    parsl_session = sys.modules.get("hippynn_mf.campaign.parsl_session")
    # Threads of Parsl would keep this process.
    is_abandoned = bool(getattr(parsl_session, "is_abandoned", False))
    if is_abandoned or stopping.signal is not None:
        end_process(code, in_order=not is_abandoned)
    sys.exit(code)


def _run(arguments: list[str] | None, stopping: Stopping) -> int:
    """Run a command; its exit code."""
    try:
        app(arguments)
    except UserError as error:
        if stopping.signal is None:
            typer.echo(f"hippynn-mf: {printable(str(error))}", err=True)
            return 2
    except BrokenPipeError:  # who reads has seen enough, as 'hippynn-mf ... | head'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as error:
        # What no reader or writer has said better: see `files`.
        if stopping.signal is None:
            about = f"{error.filename}: " if error.filename else ""
            text = f"{about}{error.strerror or error}. Check the file, its folder and their rights."
            typer.echo(f"hippynn-mf: {printable(text)}", err=True)
            return 2
    except SystemExit as end:
        if stopping.signal is None:
            raise
        if end.code in (0, None):  # done before the signal was heard
            return 0
    except (Exception, KeyboardInterrupt):  # imports make other errors of an interrupt
        if stopping.signal is None:
            raise
    return stopping.exit_code


def train_script(experiment: Experiment) -> None:
    """Run an experiment script: `hippynn-mf train` with its name and the script's arguments."""
    main(["train", experiment.name, *sys.argv[1:]])
