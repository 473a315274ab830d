"""The command line, `hippynn-mf`: it reads options, calls the library, and prints."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hippynn_mf.campaign import ignore_import_warnings, run_campaign, run_here
from hippynn_mf.data_commands import data_app
from hippynn_mf.engines import Engine
from hippynn_mf.errors import UserError
from hippynn_mf.experiment import Experiment, beyond_table1, get_experiment, table1
from hippynn_mf.labels import plain_labels
from hippynn_mf.model_commands import card, export, extract, mliap, predict, torsion
from hippynn_mf.options import (
    Comp6KeysOption,
    Comp6Option,
    CutOption,
    DataOption,
    DeviceOption,
    EngineChoice,
    FractionOption,
    LevelsOption,
    MetricChoice,
    MoreFiles,
    OutOption,
    PresetOption,
    RowsOption,
    SetOption,
    SplitSeedOption,
    TestFileOption,
    TrainOption,
    common_levels_of,
    declare,
    make_engine,
    parse_data,
    parse_experiments,
    parse_fractions,
    parse_overrides,
    parse_seeds,
    split_files,
)
from hippynn_mf.plan import format_plan, plan_runs
from hippynn_mf.report_commands import (
    figures,
    graph,
    print_figures,
    print_tables,
    refuse_if,
    tables,
)
from hippynn_mf.runs import RunFolder, RunSettings
from hippynn_mf.settings import ENERGY_CUT_KCAL_PER_MOL, build_settings
from hippynn_mf.status import format_status, plain_status, read_status

app = typer.Typer(
    help="Multi-fidelity learning for interatomic potentials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
for command in (tables, figures, graph, export, card, predict, torsion, extract, mliap):
    app.command()(command)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("hippynn-mf: interrupted. The same command continues.", err=True)
        raise typer.Exit(130) from None


@app.command("reproduce", help="The same as campaign.")
@app.command("campaign")
def campaign(
    more: MoreFiles = None,
    out: OutOption = Path("results"),
    data: DataOption = None,
    train_files: TrainOption = None,
    levels: LevelsOption = None,
    comp6: Comp6Option = None,
    comp6_keys: Comp6KeysOption = None,
    energy_cut: CutOption = ENERGY_CUT_KCAL_PER_MOL,
    test_file: TestFileOption = None,
    preset: PresetOption = "quick",
    set_: SetOption = None,
    experiments: Annotated[
        str | None,
        typer.Option(help="Names, or strategies, comma-separated. (default: table1, all 17)"),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0,1",
    engine: Annotated[
        EngineChoice, typer.Option(help="parsl; or pool, Python's own, where Parsl does not run.")
    ] = EngineChoice.parsl,
    site: Annotated[
        Path | None,
        typer.Option(help="Python file that defines a Parsl `config`. (default: this machine)"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Runs at a time. (default: one per GPU, or per core)", min=1),
    ] = None,
    rows: RowsOption = "common",
    split_seed: SplitSeedOption = 0,
    label_fraction: FractionOption = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and what it costs here.")
    ] = False,
) -> None:
    """Train the models of Table 1, evaluate them, and write the paper's tables and figures.

    Killed or interrupted, the same command continues: finished runs are kept, others go on from
    their last epoch. Experiments of other levels are spelt as those of Table 1, SF-GFN2/E.

    Example: hippynn-mf campaign --out results --experiments SF-CC/E,MF-DZ/EF-CC/E --seeds 0,1
    """
    declare(levels)
    chosen = parse_experiments(experiments)
    source = parse_data(data, train_files, more or [])
    settings = build_settings(
        chosen,
        parse_seeds(seeds),
        data=source,
        comp6=comp6,
        comp6_keys=comp6_keys,
        energy_cut_kcal_per_mol=energy_cut,
        test_file=test_file,
        preset=preset,
        overrides=parse_overrides(set_),
        rows=rows,
        common_levels=common_levels_of(levels, source),
        split_seed=split_seed,
        label_fractions=parse_fractions(label_fraction),
        device=device,
    )
    chosen_engine = make_engine(engine, site, workers, device)
    if dry_run:
        _print_plan(settings, out, chosen_engine, with_probe=site is None)
        return
    with _interruptible():
        outcomes = run_campaign(settings, out, engine=chosen_engine)
    failed = [outcome for outcome in outcomes if outcome.error]
    problems: list[str | None] = []
    if failed:
        problems.append(
            f"{len(failed)} of {len(outcomes)} runs failed; the others are kept. First failure, "
            f"{failed[0].settings.name}, seed {failed[0].settings.seed}: {failed[0].error}"
        )
    if len(failed) < len(outcomes):
        numbers = parse_seeds(seeds)
        try:
            problems += [
                print_tables(out, MetricChoice.rmse, experiments=chosen, seeds=numbers),
                print_figures(out, experiments=chosen, seeds=numbers),
            ]
        except UserError as error:  # must not hide which runs failed
            problems.append(str(error))
    refuse_if(" ".join(filter(None, problems)))


def _print_plan(
    settings: list[RunSettings], out: Path, engine: Engine, *, with_probe: bool
) -> None:
    planned = plan_runs(settings, out)
    unfinished = [run.settings for run in planned if run.state in ("to do", "to continue")]
    probed = None
    if unfinished and with_probe:  # of a site this machine tells nothing
        from hippynn_mf.probing import probe

        costliest = max(unfinished, key=lambda run: run.experiment.relative_cost)
        probed = probe(costliest, n_threads=engine.n_threads)
    typer.echo(format_plan(planned, probed, getattr(engine, "n_workers", None)))


@app.command()
def status(
    directory: Annotated[Path, typer.Argument(help="Folder that holds runs/.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what the runs of a folder are doing, and why some have failed.

    Example: hippynn-mf status results
    """
    statuses = read_status(directory)
    typer.echo(json.dumps(plain_status(statuses), indent=2) if as_json else format_status(statuses))


@app.command()
def train(
    names: Annotated[list[str], typer.Argument(help="Experiments, as MF-DZ/EF-CC/E.")],
    out: OutOption = Path("results"),
    data: DataOption = None,
    train_files: TrainOption = None,
    levels: LevelsOption = None,
    comp6: Comp6Option = None,
    comp6_keys: Comp6KeysOption = None,
    energy_cut: CutOption = ENERGY_CUT_KCAL_PER_MOL,
    test_file: TestFileOption = None,
    preset: PresetOption = "quick",
    set_: SetOption = None,
    seed: Annotated[int, typer.Option(help="Changes weights and batch order.", min=0)] = 0,
    rows: RowsOption = "common",
    split_seed: SplitSeedOption = 0,
    label_fraction: FractionOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Train and evaluate experiments, one after another, with one seed.

    Example: hippynn-mf train MF-DZ/EF-CC/E --seed 3 --set n_features=32
    """
    declare(levels)
    names, more = split_files(names)
    source = parse_data(data, train_files, more)
    settings = build_settings(
        [get_experiment(name) for name in names],
        [seed],
        data=source,
        comp6=comp6,
        comp6_keys=comp6_keys,
        energy_cut_kcal_per_mol=energy_cut,
        test_file=test_file,
        preset=preset,
        overrides=parse_overrides(set_),
        rows=rows,
        common_levels=common_levels_of(levels, source),
        split_seed=split_seed,
        label_fractions=parse_fractions(label_fraction),
        device=device,
    )
    from hippynn_mf.training import choose_device

    choose_device(device)
    with _interruptible():
        outcomes = run_here(settings, out)
    for outcome in outcomes:
        if outcome.error:
            raise UserError(f"{outcome.settings.name}: {outcome.error}")
        typer.echo(RunFolder.of(out, outcome.settings).path)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, OUT/runs/NAME/seed-K.")],
    data: DataOption = None,
    train_files: TrainOption = None,
    comp6: Comp6Option = None,
    test_file: TestFileOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Evaluate trained runs again and rewrite their metrics and predictions.

    The data may have moved (--data, --comp6, --test-file), but must be the same by its hash. Runs
    that were not tested on a --test-file are now.

    Example: hippynn-mf evaluate results/runs/mf_dz_ef_cc_e/seed-0
    """
    from hippynn_mf.running import evaluate_run

    texts, more = split_files(runs)
    folders = [RunFolder(Path(text)) for text in texts]
    for folder in folders:
        folder.read_settings()  # whose levels --train may name
    source = parse_data(data, train_files, more)
    for folder in folders:
        evaluate_run(folder, data=source, comp6=comp6, test_file=test_file, device=device)
        typer.echo(folder.file("metrics.json"))


@app.command()
def experiments(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the 17 experiments of Table 1, and the strategies beside them.

    Example: hippynn-mf experiments --json
    """
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
        for row in rows:
            typer.echo(f"{row['name']:<22}{row['script']:<44}{row['strategy']}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; wrong input prints one message and exits with code 2."""
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)  # of what runs log for their own file, only this
    # Parsl has a log of its own, and reports the same through the outcomes of runs.
    terminal.addFilter(lambda record: not record.name.startswith("parsl"))
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
