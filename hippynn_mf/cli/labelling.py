"""Commands that make structures and labels: `hippynn-mf sample` and `hippynn-mf label`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hippynn_mf.cli.options import (
    EngineChoice,
    EngineOption,
    ForceOption,
    LevelsOption,
    SiteOption,
    interruptible,
    known_levels_of,
    make_engine,
)
from hippynn_mf.errors import UserError, printable

FileArgument = Annotated[Path, typer.Argument(metavar="IN", help="Any file that ASE reads.")]
ArgOption = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="KEY=VALUE", help="Argument of the calculator; repeatable."),
]
AcceptChargedOption = Annotated[
    bool, typer.Option("--accept-charged", help="Also take what is no neutral singlet.")
]
BlockOption = Annotated[
    int | None,
    typer.Option(help="Structures of a task. (default: by number and workers)", min=1),
]
WorkersOption = Annotated[
    int | None, typer.Option(help="Processes. (default: one per core)", min=1)
]
CALCULATORS = (
    "tblite:GFN1-xTB, tblite:GFN2-xTB, pyscf:DZ|TZ|MP2|CC, hippynn_mf:MODEL#LEVEL, ase:NAME, "
    "module:factory or FILE.py:factory"
)
N_SHOWN = 3  # failures


def sample(
    molecules: FileArgument,
    out: Annotated[Path, typer.Option(help="Extended XYZ file to write.")],
    per: Annotated[int, typer.Option(help="Conformers of each molecule.", min=1)] = 100,
    temperature: Annotated[
        str, typer.Option(metavar="LOW:HIGH", help="K; each conformer has one between them.")
    ] = "100:1000",
    methods: Annotated[
        str,
        typer.Option(help="Taken in turn: modes, torsions, dynamics, with commas between."),
    ] = "modes,torsions,modes,dynamics",
    calculator: Annotated[
        str | None,
        typer.Option("--with", help=f"{CALCULATORS}. (default: tblite:GFN2-xTB)"),
    ] = None,
    arg: ArgOption = None,
    energy_cut: Annotated[
        float | None,
        typer.Option(
            help="Highest energy above the minimum, kcal/mol. (default: what the temperature "
            "explains)"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.", min=0)] = 0,
    engine: EngineOption = EngineChoice.parsl,
    site: SiteOption = None,
    workers: WorkersOption = None,
    block: BlockOption = None,
    force: ForceOption = False,
) -> None:
    """Draw conformers of molecules: by normal modes, torsions and short dynamics.

    Killed or interrupted, the same command continues.

    Example: hippynn-mf sample molecules.xyz --per 100 --temperature 100:1000 --out pool.xyz
    """
    from hippynn_mf.labelling.conformers import sample as draw
    from hippynn_mf.labelling.families import GFN2

    chosen = make_engine(engine, site, workers, "cpu")
    why = "as asked for" if calculator else "the default of this command; --with chooses another"
    typer.echo(f"Calculator {calculator or GFN2}: {why}.", err=True)
    with interruptible():
        drawn = draw(
            molecules,
            out=out,
            engine=chosen,
            per=per,
            temperatures=parse_temperatures(temperature),
            methods=tuple(name.strip() for name in methods.split(",")),
            energy_cut_kcal_per_mol=energy_cut,
            seed=seed,
            **_common(calculator or GFN2, arg, block, force),
        )
    kinds = ", ".join(f"{n} by {method}" for method, n in drawn.by_method.items())
    typer.echo(f"{out}: {drawn.n} conformers, {kinds}")
    if drawn.refused:
        counts = ", ".join(f"{n} {reason}" for reason, n in drawn.refused.items())
        typer.echo(f"Refused, and drawn again: {counts}.", err=True)
    _say_failures("molecules have fewer conformers than asked for", drawn.failures)


def label(
    pool: FileArgument,
    level: Annotated[str, typer.Option(help="Level of the labels: a known or a new name.")],
    calculator: Annotated[str, typer.Option("--with", help=f"{CALCULATORS}.")],
    out: Annotated[Path, typer.Option(help="Extended XYZ file to write.")],
    properties: Annotated[
        str | None,
        typer.Option(help="E, EF or EFS. (default: what the calculator usually gives)"),
    ] = None,
    arg: ArgOption = None,
    levels: LevelsOption = None,
    accept_charged: AcceptChargedOption = False,
    engine: EngineOption = EngineChoice.parsl,
    site: SiteOption = None,
    workers: WorkersOption = None,
    block: BlockOption = None,
    force: ForceOption = False,
) -> None:
    """Label structures by any ASE calculator: energies, forces and stress, as extended XYZ.

    Killed or interrupted, the same command continues. Structures that fail are kept apart, in
    OUT.failed.xyz, with the reason.

    Example: hippynn-mf label pool.xyz --level GFN2 --with tblite:GFN2-xTB --out labelled.xyz
    """
    from hippynn_mf.labelling.labels_of_pools import label as compute

    chosen = make_engine(engine, site, workers, "cpu")
    with interruptible():
        labelled = compute(
            pool,
            level=level,
            out=out,
            levels=known_levels_of(levels),
            engine=chosen,
            properties=properties,
            accept_charged=accept_charged,
            **_common(calculator, arg, block, force),
        )
    why = "as asked for" if properties else f"what {calculator} usually gives"
    before = f", {labelled.n_before} from before" if labelled.n_before else ""
    typer.echo(f"{out}: {labelled.n} structures with {level}/{labelled.properties} ({why}){before}")
    _say_failures(f"structures failed, and are in {labelled.failed}", labelled.failures)


def parse_temperatures(text: str) -> tuple[float, float]:
    """The lowest and the highest temperature from LOW:HIGH, or one for both."""
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise UserError(f"--temperature expects LOW:HIGH in K, as 100:1000; found {text!r}.")
    return numbers[0], numbers[-1]


def _common(
    calculator: str, arg: Sequence[str] | None, block: int | None, force: bool
) -> dict[str, Any]:
    from hippynn_mf.labelling.registry import parse_arguments

    return {
        "calculator": calculator,
        "arguments": parse_arguments(list(arg or [])),
        "block": block,
        "force": force,
    }


def _say_failures(what: str, failures: Sequence[str]) -> None:
    if failures:
        typer.echo(f"{len(failures)} {what}:", err=True)
        for text in failures[:N_SHOWN]:
            typer.echo(f"  {printable(text)}", err=True)
        if len(failures) > N_SHOWN:
            typer.echo(f"  and {len(failures) - N_SHOWN} more", err=True)
