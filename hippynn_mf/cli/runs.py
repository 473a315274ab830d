"""Commands that make runs: `hippynn-mf campaign`, `status`, `train`, `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hippynn_mf.campaign.campaign import run_campaign, run_here
from hippynn_mf.campaign.engines import Engine
from hippynn_mf.campaign.plan import format_plan, plan_runs
from hippynn_mf.campaign.status import format_status, plain_status, read_status
from hippynn_mf.cli.options import (
    Comp6KeysOption,
    Comp6Option,
    CutOption,
    DataOption,
    DeviceOption,
    EngineChoice,
    FractionOption,
    LevelsOption,
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
from hippynn_mf.cli.report import print_figures, print_tables, refuse_if
from hippynn_mf.errors import UserError
from hippynn_mf.runs.experiment import get_experiment
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import ENERGY_CUT_KCAL_PER_MOL, build_settings
from hippynn_mf.runs.settings import RunSettings


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("hippynn-mf: interrupted. The same command continues.", err=True)
        raise typer.Exit(130) from None


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
        from hippynn_mf.report.results import Selection

        selection = Selection(experiments=chosen, seeds=parse_seeds(seeds))
        try:
            problems += [print_tables(out, selection), print_figures(out, selection)]
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
        from hippynn_mf.campaign.probe import probe

        costliest = max(unfinished, key=lambda run: run.experiment.relative_cost)
        probed = probe(costliest, n_threads=engine.n_threads)
    typer.echo(format_plan(planned, probed, getattr(engine, "n_workers", None)))


def status(
    directory: Annotated[Path, typer.Argument(help="Folder that holds runs/.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what the runs of a folder are doing, and why some have failed.

    Example: hippynn-mf status results
    """
    statuses = read_status(directory)
    typer.echo(json.dumps(plain_status(statuses), indent=2) if as_json else format_status(statuses))


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
    from hippynn_mf.training.loop import choose_device

    choose_device(device)
    with _interruptible():
        outcomes = run_here(settings, out)
    for outcome in outcomes:
        if outcome.error:
            raise UserError(f"{outcome.settings.name}: {outcome.error}")
        typer.echo(RunFolder.of(out, outcome.settings).path)


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
    from hippynn_mf.runs.train import evaluate_run

    texts, more = split_files(runs)
    folders = [RunFolder(Path(text)) for text in texts]
    for folder in folders:
        folder.read_settings()  # whose levels --train may name
    source = parse_data(data, train_files, more)
    for folder in folders:
        evaluate_run(folder, data=source, comp6=comp6, test_file=test_file, device=device)
        typer.echo(folder.file("metrics.json"))
