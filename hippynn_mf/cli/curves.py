"""The command that asks whether there are labels enough: `hippynn-mf learning-curve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hippynn_mf.cli.asking import Asked, asking
from hippynn_mf.cli.options import EngineChoice, interruptible, make_engine
from hippynn_mf.cli.texts import parse_names
from hippynn_mf.errors import UserError

if TYPE_CHECKING:
    from hippynn_mf.levels import Level

FRACTIONS = "0.125,0.25,0.5,1"
N_SEEDS = 8


@asking({"seeds": tuple(range(N_SEEDS))})
def learning_curve(
    asked: Asked,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help="Level whose labels are few or many.")
    ],
    fractions: Annotated[
        str, typer.Option(metavar="FRACTION,...", help="Of its labels, to train with.")
    ] = FRACTIONS,
    engine: Annotated[
        EngineChoice, typer.Option(help="parsl; or pool, Python's own, where Parsl does not run.")
    ] = EngineChoice.parsl,
    workers: Annotated[
        int | None,
        typer.Option(help="Runs at a time. (default: one per GPU, or per core)", min=1),
    ] = None,
) -> None:
    """Train with fractions of a level's labels; draw and state what more labels would give.

    Eight seeds unless --seeds says others. Each fraction is a campaign in a folder of its own,
    OUT/fraction-F; killed or interrupted, the same command continues.

    Example: hippynn-mf learning-curve MF-DZ/EF-CC/E --level CC --data my.h5 --out curve
    """
    from hippynn_mf.campaign.campaign import run_campaign
    from hippynn_mf.report.label_curve import (
        FractionResults,
        beside_lower_lines,
        curve_columns,
        label_curve,
    )
    from hippynn_mf.report.label_curve_figure import write_label_curves
    from hippynn_mf.report.results import read_results
    from hippynn_mf.runs.build import build_settings

    of_level = _trained_level(asked, level)
    chosen = _parse_fractions(fractions)
    out = asked.request.out
    chosen_engine = make_engine(engine, None, workers, asked.request.device)
    parts = []
    for fraction in chosen:
        folder = out / f"fraction-{fraction:g}"
        kept = {**asked.request.label_fractions, level: fraction}
        request = asked.request.model_copy(update={"label_fractions": kept, "out": folder})
        settings = build_settings(request, asked.experiments)
        told = f"Fraction {fraction:g} of the labels of {of_level.label}."
        if fraction == chosen[0]:
            told = f"{asked.preset_line}\n{told}"
        with interruptible():
            outcomes = run_campaign(settings, folder, engine=chosen_engine, announcement=told)
        for outcome in outcomes:
            if outcome.error:
                raise UserError(
                    f"{outcome.settings.name}, seed {outcome.settings.seed}, fraction "
                    f"{fraction:g}: {outcome.error}"
                )
        results = read_results(folder).only(asked.request.seeds)
        parts.append(FractionResults(fraction, results))
    whole = parts[-1].results
    names = [experiment.name for experiment in asked.experiments]
    curves = [
        label_curve(parts, name, of_level, column)
        for column in curve_columns(whole, of_level)
        for name in names
    ]
    beside = [line for name in names for line in beside_lower_lines(whole, name, of_level)]
    for line in [text for curve in curves for text in curve.lines(of_level.label)] + beside:
        typer.echo(line)
    typer.echo(write_label_curves(curves, beside, of_level, out))


def _trained_level(asked: Asked, name: str) -> Level:
    """The level, which every experiment trains, and whose labels are not cut otherwise."""
    level = asked.request.known.get(name)
    for experiment in asked.experiments:
        if level not in experiment.resolved_labels:
            trained = ", ".join(each.label for each in experiment.resolved_labels)
            raise UserError(
                f"{experiment.name} does not train on {level.label}, but on {trained}. Name one of "
                "its levels with --level, or leave the experiment out."
            )
    cut = {asked.request.known.get(each) for each in asked.request.label_fractions}
    if level in cut:
        raise UserError(
            f"--label-fraction and --fractions both say how many labels of {level.label} are "
            "taken. Leave one out."
        )
    if len({each.split_seed for each in asked.settings}) > 1:
        raise UserError("A learning curve is of one split. Name it with --split-seed.")
    return level


def _parse_fractions(text: str) -> list[float]:
    """Ascending fractions; a UserError for what is none, or there twice."""
    found = []
    for word in parse_names(text, "--fractions"):
        try:
            value = float(word)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise UserError(
                f"--fractions: {word} is no fraction of labels; expected numbers above 0 and at "
                f"most 1, as {FRACTIONS}."
            )
        found.append(value)
    if len(set(found)) < len(found):
        raise UserError(f"--fractions {text}: a fraction is there twice.")
    return sorted(found)
