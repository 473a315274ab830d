"""Commands that make runs: `hippynn-mf new`, `train`, `campaign`, `status`, `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hippynn_mf.cli.asking import Asked, asking, with_fields
from hippynn_mf.cli.options import (
    EngineChoice,
    EngineOption,
    KeyOption,
    LevelsOption,
    SiteOption,
    UnitsOption,
    WorkersOption,
    interruptible,
    make_engine,
    told_source,
)
from hippynn_mf.cli.report import print_figures, print_tables, refuse_if
from hippynn_mf.cli.texts import parse_levels, read_values, split_words
from hippynn_mf.errors import UserError
from hippynn_mf.runs.request import CAMPAIGN_DEFAULTS, EMBEDDED_PRESET, Request
from hippynn_mf.starting import import_hippynn

if TYPE_CHECKING:
    from hippynn_mf.engine import Engine
    from hippynn_mf.runs.settings import RunSettings


def new(
    run_file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="Run file to write.")],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="A data file or folder, or LEVEL=FILE several times.",
        ),
    ],
    levels: LevelsOption = None,
    key: KeyOption = None,
    units: UnitsOption = None,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Write its JSON schema beside it, for editors of TOML."),
    ] = False,
) -> None:
    """Write a run file for data files, with a comment on every line, to look through and train.

    Example: hippynn-mf new my.toml DZ=dz.xyz CC=cc.xyz
    """
    from hippynn_mf.runs.new_run_file import write_run_file

    chosen = None if levels is None else parse_levels(levels)
    write_run_file(run_file, told_source(data, key, units), chosen, with_schema=schema)
    typer.echo(f"{run_file}\nLook through it, then: hippynn-mf train {run_file}")


@asking(CAMPAIGN_DEFAULTS)
def campaign(
    asked: Asked,
    engine: EngineOption = EngineChoice.parsl,
    site: SiteOption = None,
    workers: WorkersOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and what it costs here.")
    ] = False,
) -> None:
    """Train the models of Table 1, evaluate them, and write the paper's tables and figures.

    Killed or interrupted, the same command continues: finished runs are kept, others go on from
    their last epoch. Experiments of other levels are spelt as those of Table 1, SF-GFN2/E.

    Example: hippynn-mf campaign --out results --experiments SF-CC/E,MF-DZ/EF-CC/E --seeds 0,1
    """
    from hippynn_mf.campaign.campaign import run_campaign

    out = asked.request.out
    chosen_engine = make_engine(engine, site, workers, asked.request.device)
    if dry_run:
        typer.echo(asked.preset_line, err=True)
        _print_plan(asked, chosen_engine, with_probe=site is None)
        return
    with interruptible():
        outcomes = run_campaign(
            asked.settings, out, engine=chosen_engine, announcement=asked.preset_line
        )
    _print_warnings([outcome.settings for outcome in outcomes if not outcome.error], out)
    failed = [outcome for outcome in outcomes if outcome.error]
    problems: list[str | None] = []
    if failed:
        problems.append(
            f"{len(failed)} of {len(outcomes)} runs failed; the others are kept. First failure, "
            f"{failed[0].settings.name}, seed {failed[0].settings.seed}: {failed[0].error}"
        )
    if len(failed) < len(outcomes):
        from hippynn_mf.report.results import Selection, read_results

        try:
            results = read_results(out)
            selection = Selection(experiments=asked.experiments, seeds=list(asked.request.seeds))
            problems += [print_tables(results, selection), print_figures(results, selection)]
        except UserError as error:  # must not hide which runs failed
            problems.append(str(error))
    refuse_if(" ".join(filter(None, problems)))


# The paper's table is not made with another preset unless that is asked for.
reproduce = asking({**CAMPAIGN_DEFAULTS, "preset": EMBEDDED_PRESET})(
    campaign.__wrapped__  # type: ignore[attr-defined]
)


def _print_plan(asked: Asked, engine: Engine, *, with_probe: bool) -> None:
    from hippynn_mf.campaign.plan import format_plan, plan_runs

    planned = plan_runs(asked.settings, asked.request.out)
    unfinished = [run.settings for run in planned if run.state in ("to do", "to continue")]
    probed = None
    if unfinished and with_probe:  # of a site this machine tells nothing
        from hippynn_mf.campaign.probe import probe

        costliest = max(unfinished, key=lambda run: run.experiment.relative_cost)
        probed = probe(costliest, n_threads=engine.n_threads)
    typer.echo(format_plan(planned, probed, getattr(engine, "n_workers", None)))


def _print_warnings(finished: Sequence[RunSettings], out: Path) -> None:
    """What the runs of a campaign warn of in their metrics, a line for each experiment."""
    from hippynn_mf.runs.folder import RunFolder

    warned: dict[str, list[str]] = {}
    for settings in finished:
        texts = RunFolder.of(out, settings).read_metrics().get("warnings", [])
        warned.setdefault(settings.name, []).extend(texts)
    for name, texts in warned.items():
        if texts:
            more = f" And {len(texts) - 1} more in metrics.json." if len(texts) > 1 else ""
            typer.echo(f"{name}: {texts[0]}{more}", err=True)


def status(
    directory: Annotated[Path, typer.Argument(help="Folder that holds runs/.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show what the runs of a folder are doing, and why some have failed.

    Example: hippynn-mf status results
    """
    from hippynn_mf.campaign.status import format_status, plain_status, read_status

    statuses = read_status(directory)
    typer.echo(json.dumps(plain_status(statuses), indent=2) if as_json else format_status(statuses))


@asking({})
def train(asked: Asked) -> None:
    """Train and evaluate experiments, or what a run file asks for, one run after another.

    Example: hippynn-mf train MF-DZ/EF-CC/E --seed 3 --set n_features=32
    """
    import_hippynn()
    from hippynn_mf.network.device import choose_device
    from hippynn_mf.runs.execute import run_here
    from hippynn_mf.runs.folder import RunFolder
    from hippynn_mf.runs.summary import next_commands, summarize

    choose_device(asked.request.device)
    out = asked.request.out
    with interruptible():
        outcomes = run_here(asked.settings, out, announcement=asked.preset_line)
    finished = []
    for outcome in outcomes:
        if outcome.error:
            raise UserError(f"{outcome.settings.name}: {outcome.error}")
        finished.append(RunFolder.of(out, outcome.settings))
        typer.echo(finished[-1].path)
        typer.echo(summarize(finished[-1]))
    typer.echo(next_commands(finished, out))


@with_fields("--data", "--train", "--valid-file", "--test", "--comp6", "--device")
def evaluate(
    runs: Annotated[list[str], typer.Argument(help="Run folders, OUT/runs/NAME/seed-K.")],
    fields: Mapping[str, Any],
) -> None:
    """Evaluate trained runs again and rewrite their metrics and predictions.

    The files may have moved (--data, --comp6, --test), but must be the same by their hashes. Runs
    that were not tested on a --test are now.

    Example: hippynn-mf evaluate results/runs/mf_dz_ef_cc_e/seed-0
    """
    import_hippynn()
    from hippynn_mf.runs.build import requested_source
    from hippynn_mf.runs.evaluate import evaluate_run
    from hippynn_mf.runs.folder import RunFolder

    _, names, files = split_words(runs)
    request = Request.of(read_values(fields, (), files))
    folders = [RunFolder(Path(name)) for name in names]
    settings = [folder.read_settings() for folder in folders]
    for run_settings in settings:
        request.check_levels(run_settings.known)
    for folder, run_settings in zip(folders, settings, strict=True):
        moved = {} if request.data is None else {"data": request.data}
        if request.valid is not None:
            moved["valid"] = request.valid
        tests = []
        for name, test in request.tests.items():
            if run_settings.test(name) is None or test.path is None:
                tests.append(
                    requested_source(
                        name,
                        test,
                        run_settings.known,
                        keys=run_settings.data.keys,
                        units=run_settings.data.units,
                    )
                )
            else:
                moved[name] = test.path
        evaluate_run(folder, tests=tests, moved=moved, device=request.device)
        typer.echo(folder.file("metrics.json"))
