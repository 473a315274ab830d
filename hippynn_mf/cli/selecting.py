"""The command that says what to label next: `hippynn-mf select`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hippynn_mf.cli.options import DeviceOption, ForceOption
from hippynn_mf.errors import UserError
from hippynn_mf.files import refuse_output

if TYPE_CHECKING:
    from ase import Atoms

RANK, SCORE = "select_rank", "select_score"  # of the written structures


def select(
    pool: Annotated[Path, typer.Argument(metavar="POOL", help="Any file that ASE reads.")],
    model: Annotated[
        str, typer.Option(help="Model file, or the name of one that ships: mini-ani1x.")
    ],
    level: Annotated[str, typer.Option(help="Level to be computed, by id or label.")],
    n: Annotated[int, typer.Option("--n", help="How many structures to choose.", min=1)],
    out: Annotated[Path, typer.Option(help="Extended XYZ file to write, best first.")],
    by: Annotated[
        str,
        typer.Option(help="diverse, spread, spread-diverse, difference or random."),
    ] = "diverse",
    labelled: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of structures that have labels or that tests are made of; their copies are "
            "left out, and diverse stays away from them; repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.", min=0)] = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> None:
    """Choose the structures of a pool whose labels at an expensive level would tell most.

    diverse: far from each other and from what is labelled, by the features of the model; spread:
    where the members of the model disagree; spread-diverse: diverse among those; difference: where
    the level is far from the one below.

    Example: hippynn-mf select pool.xyz --model mini-ani1x --level CC --n 40 --out next.xyz
    """
    from hippynn_mf.data.formats.xyz_file import write_structures
    from hippynn_mf.errors import errors_about
    from hippynn_mf.files import replace_when_complete
    from hippynn_mf.potentials.evaluator import Evaluator
    from hippynn_mf.potentials.structure_files import read_structures
    from hippynn_mf.uncertainty.selection import select as select_structures

    known_files = labelled or []
    for path in (model, pool, *known_files):
        refuse_output(out, force, read=path)
    if out.suffix not in (".extxyz", ".xyz"):
        raise UserError(f"The choice is extended XYZ; name it *.xyz, not {out.name}.")
    evaluator = Evaluator.of(model, dtype="float32", device=device)
    chosen_level = evaluator.potential.level(level)
    structures: list[Atoms] = []
    known: list[Atoms] = []
    for path, into in ((pool, structures), *((path, known) for path in known_files)):
        with errors_about(path):
            into += read_structures(path)
    if not structures:
        raise UserError(f"{pool}: there is no structure in the file.")
    with errors_about(pool):
        chosen = select_structures(
            evaluator, structures, chosen_level, n, by=by, labelled=known, seed=seed
        )
    with replace_when_complete(out) as partial, partial.open("w", encoding="utf-8") as stream:
        for rank, (row, score) in enumerate(
            zip(chosen.rows.tolist(), chosen.scores.tolist(), strict=True), 1
        ):
            atoms = structures[row].copy()
            atoms.info |= {RANK: rank, SCORE: round(score, 6)}
            write_structures(stream, [atoms])
    typer.echo(
        f"{out}: {n} of {chosen.n_pool} structures, chosen by {by}; {chosen.n_labelled} are "
        f"labelled already, {chosen.n_copies} copies of others."
    )
