"""The command line, `hippynn-mf`: it reads options, calls the library, and prints."""

from __future__ import annotations

import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hippynn_mf.campaign import (
    Engine,
    LocalPool,
    Outcome,
    available_cores,
    ignore_import_warnings,
    in_process,
    run_campaign,
)
from hippynn_mf.data.info import describe_file, format_description
from hippynn_mf.documents import write_documents
from hippynn_mf.errors import UserError
from hippynn_mf.experiment import Experiment, get_experiment, table1
from hippynn_mf.figures import write_complete_figures
from hippynn_mf.labels import plain_labels
from hippynn_mf.results import read_results
from hippynn_mf.runs import RunFolder, RunSettings
from hippynn_mf.settings import ENERGY_CUT_KCAL_PER_MOL, build_settings

app = typer.Typer(
    help="Multi-fidelity learning for interatomic potentials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look into data files.", no_args_is_help=True)
app.add_typer(data_app, name="data")


class MetricChoice(StrEnum):
    """Errors that tables can show."""

    rmse = "rmse"
    mae = "mae"


OutOption = Annotated[
    Path, typer.Option(help="Folder of runs, tables and figures.", file_okay=False)
]
DataOption = Annotated[
    Path | None, typer.Option(help="File in the ANI-1x layout. [default: the embedded data]")
]
Comp6Option = Annotated[
    Path | None,
    typer.Option(help="File or folder in the COMP6 layout. [default: embedded, with its data]"),
]
Comp6KeysOption = Annotated[
    Path | None,
    typer.Option(help="JSON key map of --comp6. [default: the public layout]", dir_okay=False),
]
CutOption = Annotated[
    float, typer.Option(help="COMP6 conformers up to so far above their minimum, kcal/mol.", min=0)
]
PresetOption = Annotated[str, typer.Option(help="Hyperparameters: quick or paper.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one, NAME=VALUE; repeatable.")
]
RowsOption = Annotated[
    str,
    typer.Option(help="common: structures with all four levels' energies; all: any label."),
]
SplitSeedOption = Annotated[
    int, typer.Option(help="Chooses test and validation structures.", min=0)
]
OnlySeedsOption = Annotated[
    str | None,
    typer.Option(help="Seeds, comma-separated. [default: all that any row has]"),
]
PartialOption = Annotated[
    bool, typer.Option("--partial", help="Write what is there, and name what is missing.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def _parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for pair in pairs or []:
        name, separator, text = pair.partition("=")
        if not separator:
            raise UserError(f"--set expects NAME=VALUE, found {pair!r}.")
        try:
            overrides[name] = json.loads(text)
        except ValueError:
            overrides[name] = text
    return overrides


def _parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds expects whole numbers as 0,1,2; found {text!r}.") from None
    if any(seed < 0 for seed in seeds):
        raise UserError(f"Seeds are not negative; found {text!r}.")
    return seeds


def _parse_experiments(names: str | None) -> list[Experiment]:
    return [get_experiment(n.strip()) for n in names.split(",")] if names is not None else table1()


def _resolve_device(name: str) -> str:
    """The type of a device; both engines of the command line train on this machine."""
    from hippynn_mf.training import choose_device

    return choose_device(name).type


def _run(settings: list[RunSettings], out: Path, engine: Engine) -> list[Outcome]:
    try:
        return run_campaign(settings, out, engine=engine)
    except KeyboardInterrupt:
        typer.echo("hippynn-mf: interrupted. The same command continues.", err=True)
        raise typer.Exit(130) from None


@app.command()
def reproduce(
    out: OutOption = Path("results"),
    data: DataOption = None,
    comp6: Comp6Option = None,
    comp6_keys: Comp6KeysOption = None,
    energy_cut: CutOption = ENERGY_CUT_KCAL_PER_MOL,
    preset: PresetOption = "quick",
    set_: SetOption = None,
    experiments: Annotated[
        str | None, typer.Option(help="Names, comma-separated. [default: all 17]")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1",
    workers: Annotated[
        int | None,
        typer.Option(help="Runs at a time. [default: one per core; one on a GPU]", min=1),
    ] = None,
    rows: RowsOption = "common",
    split_seed: SplitSeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train the models of Table 1, evaluate them, and write the paper's tables and figures.

    Killed or interrupted, the same command continues: finished runs are kept.

    Example: hippynn-mf reproduce --out results --experiments SF-CC/E,MF-DZ/EF-CC/E --seeds 0,1
    """
    settings = build_settings(
        _parse_experiments(experiments),
        _parse_seeds(seeds),
        data=data,
        comp6=comp6,
        comp6_keys=comp6_keys,
        energy_cut_kcal_per_mol=energy_cut,
        preset=preset,
        overrides=_parse_overrides(set_),
        rows=rows,
        split_seed=split_seed,
        device=device,
    )
    if workers is None:
        workers = 1 if _resolve_device(device) == "cuda" else available_cores()
    outcomes = _run(settings, out, LocalPool(workers))
    failed = [outcome for outcome in outcomes if outcome.error]
    refusals: list[str | None] = []
    if len(failed) < len(outcomes):
        chosen, numbers = _parse_experiments(experiments), _parse_seeds(seeds)
        refusals = [
            _print_tables(out, MetricChoice.rmse, experiments=chosen, seeds=numbers),
            _print_figures(out, experiments=chosen, seeds=numbers),
        ]
    if failed:
        message = (
            f"{len(failed)} of {len(outcomes)} runs failed; the others are kept. First failure, "
            f"{failed[0].settings.name}, seed {failed[0].settings.seed}: {failed[0].error}"
        )
        raise UserError(" ".join([message, *filter(None, refusals)]))


@app.command()
def train(
    names: Annotated[list[str], typer.Argument(help="Experiments, as MF-DZ/EF-CC/E.")],
    out: OutOption = Path("results"),
    data: DataOption = None,
    comp6: Comp6Option = None,
    comp6_keys: Comp6KeysOption = None,
    energy_cut: CutOption = ENERGY_CUT_KCAL_PER_MOL,
    preset: PresetOption = "quick",
    set_: SetOption = None,
    seed: Annotated[int, typer.Option(help="Changes weights and batch order.", min=0)] = 0,
    rows: RowsOption = "common",
    split_seed: SplitSeedOption = 0,
    device: DeviceOption = "auto",
) -> None:
    """Train and evaluate experiments, one after another, with one seed.

    Example: hippynn-mf train MF-DZ/EF-CC/E --seed 3 --set n_features=32
    """
    settings = build_settings(
        [get_experiment(name) for name in names],
        [seed],
        data=data,
        comp6=comp6,
        comp6_keys=comp6_keys,
        energy_cut_kcal_per_mol=energy_cut,
        preset=preset,
        overrides=_parse_overrides(set_),
        rows=rows,
        split_seed=split_seed,
        device=device,
    )
    _resolve_device(device)
    for outcome in _run(settings, out, in_process):
        if outcome.error:
            raise UserError(f"{outcome.settings.name}: {outcome.error}")
        typer.echo(RunFolder.of(out, outcome.settings).path)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, OUT/runs/NAME/seed-K.")],
    data: DataOption = None,
    comp6: Comp6Option = None,
    device: DeviceOption = "auto",
) -> None:
    """Evaluate trained runs again and rewrite their metrics and predictions.

    The data may have moved (--data, --comp6), but must be the same by its hash.

    Example: hippynn-mf evaluate results/runs/mf_dz_ef_cc_e/seed-0
    """
    from hippynn_mf.running import evaluate_run

    for path in runs:
        evaluate_run(RunFolder(path), data=data, comp6=comp6, device=device)
        typer.echo(path / "metrics.json")


@app.command()
def tables(
    directory: Annotated[Path, typer.Argument(help="Folder that holds runs/.")],
    metric: Annotated[MetricChoice, typer.Option(help="rmse or mae.")] = MetricChoice.rmse,
    seeds: OnlySeedsOption = None,
    partial: PartialOption = False,
) -> None:
    """Write the paper's tables 2 to 4 and what is said about them, and print them.

    A table that lacks runs is refused.

    Example: hippynn-mf tables results --metric mae
    """
    only = None if seeds is None else _parse_seeds(seeds)
    _refuse(_print_tables(directory, metric, seeds=only, partial=partial))


@app.command()
def figures(
    directory: Annotated[Path, typer.Argument(help="Folder that holds runs/.")],
    seeds: OnlySeedsOption = None,
    partial: PartialOption = False,
) -> None:
    """Draw the paper's figure 3, parity plots and learning curves from finished runs.

    A figure 3 that lacks runs is refused.

    Example: hippynn-mf figures results
    """
    only = None if seeds is None else _parse_seeds(seeds)
    _refuse(_print_figures(directory, seeds=only, partial=partial))


@app.command()
def experiments(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the 17 experiments of Table 1.

    Example: hippynn-mf experiments --json
    """
    rows = [
        {"name": e.name, "script": e.script, "labels": plain_labels(e.resolved_labels)}
        for e in table1()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            typer.echo(f"{row['name']:<22}{row['script']}")


@data_app.command()
def info(
    file: Annotated[Path, typer.Argument(help="File in the ANI-1x layout.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Describe a data file: labels per level, overlaps, and what looks wrong.

    Example: hippynn-mf data info ani1x-release.h5 --json
    """
    description = describe_file(file)
    typer.echo(json.dumps(description, indent=2) if as_json else format_description(description))


def _print_tables(
    out: Path,
    metric: MetricChoice,
    *,
    experiments: list[Experiment] | None = None,
    seeds: list[int] | None = None,
    partial: bool = False,
) -> str | None:
    """Write the complete tables and print them; why others were not written, or None."""
    written = write_documents(
        out,
        read_results(out),
        metric=metric.value,
        experiments=experiments,
        seeds=seeds,
        partial=partial,
    )
    for path in written.paths:
        typer.echo(path.read_text())
    return written.refusal


def _print_figures(
    out: Path,
    *,
    experiments: list[Experiment] | None = None,
    seeds: list[int] | None = None,
    partial: bool = False,
) -> str | None:
    """Draw the figures and say where; why figure 3 was not drawn, or None."""
    written = write_complete_figures(
        out, read_results(out), experiments=experiments, seeds=seeds, partial=partial
    )
    names = ", ".join(path.name for path in written.paths[:3]) or "none"
    more = ", …" if len(written.paths) > 3 else ""
    typer.echo(f"{len(written.paths)} figures in {out / 'figures'}: {names}{more}")
    return written.refusal


def _refuse(refusal: str | None) -> None:
    if refusal:
        raise UserError(refusal)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; wrong input prints one message and exits with code 2."""
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)  # of what runs log for their own file, only this
    logging.basicConfig(format="%(name)s: %(message)s", handlers=[terminal])
    ignore_import_warnings()
    try:
        app(arguments)
    except UserError as error:
        typer.echo(f"hippynn-mf: {error}", err=True)
        sys.exit(2)


def train_script(experiment: Experiment) -> None:
    """Run an experiment script: `hippynn-mf train` with its name and the script's arguments."""
    main(["train", experiment.name, *sys.argv[1:]])
