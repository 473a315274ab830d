"""Commands that use trained models: `hippynn-mf export`, `card`, `predict`, `extract`, and more."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hippynn_mf.cli.options import DeviceOption, ForceOption
from hippynn_mf.cli.texts import parse_names
from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import refuse_output

ModelArgument = Annotated[
    str, typer.Argument(help="Model file, or the name of one that ships: mini-ani1x.")
]
LevelOption = Annotated[
    str | None,
    typer.Option(help="Level, by id or label; several with commas between."),
]
SeedOption = Annotated[
    int | None, typer.Option(help="Of the member of this seed alone. (default: all members)")
]


PICTURES = ("*.png", "*.pdf", "*.svg")


class DTypeChoice(StrEnum):
    """Floating-point numbers of a prediction."""

    float32 = "float32"
    float64 = "float64"


def export(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, OUT/runs/NAME/seed-K.")],
    out: Annotated[Path, typer.Option(help="Model file to write, *.safetensors.")],
    force: ForceOption = False,
) -> None:
    """Pack one finished run, or an ensemble of seeds, into a model file.

    Example: hippynn-mf export results/runs/mf_dz_ef_cc_e/seed-* --out model.safetensors
    """
    from hippynn_mf.runs.exporting import export_runs

    refuse_output(out, force)
    potential = export_runs(runs)
    potential.save(out)
    levels = ", ".join(level.label for level in potential.levels)
    typer.echo(f"{out}: {potential.card.members_text}, levels {levels}")


def card(
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with all metrics.")] = False,
) -> None:
    """Show what a model file says about its model.

    Example: hippynn-mf card mini-ani1x
    """
    from hippynn_mf.potentials.card import format_card
    from hippynn_mf.potentials.potential import Potential

    content = Potential.load(model).card
    typer.echo(content.model_dump_json(indent=2) if as_json else format_card(content))


def predict(
    model: ModelArgument,
    structures: Annotated[Path, typer.Argument(metavar="IN", help="Any file that ASE reads.")],
    out: Annotated[Path, typer.Option(help="Extended XYZ file to write.")],
    level: LevelOption = None,
    main: Annotated[
        str | None,
        typer.Option(
            help="Level of the frames' own energy and forces. (default: the highest of --level)"
        ),
    ] = None,
    ensemble_std: Annotated[
        bool, typer.Option("--ensemble-std", help="Also standard deviations over the members.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Structures at a time, at most.", min=1)] = 64,
    atoms_per_block: Annotated[
        int | None,
        typer.Option(help="For systems that do not fit into memory, a few hundred.", min=1),
    ] = None,
    dtype: Annotated[
        DTypeChoice, typer.Option(help="float32, or float64 for differences of energies.")
    ] = DTypeChoice.float32,
    device: DeviceOption = "auto",
    force: ForceOption = False,
) -> None:
    """Predict energies (eV) and forces (eV/Å) of structures, as extended XYZ.

    Example: hippynn-mf predict mini-ani1x in.xyz --level CC --ensemble-std --out out.extxyz
    """
    from hippynn_mf.potentials.evaluator import DTYPES, Evaluator
    from hippynn_mf.potentials.potential import Potential
    from hippynn_mf.potentials.predicting import predict_file

    for path in (model, structures):
        refuse_output(out, force, read=path)
    potential = Potential.load(model)
    names = [None] if level is None else parse_names(level, "--level")
    evaluator = Evaluator(
        potential,
        dtype=DTYPES[dtype.value],
        device=device,
        atoms_per_block=atoms_per_block,
    )
    outside = predict_file(
        evaluator,
        structures,
        out,
        [potential.level(name) for name in names],
        main=main,
        ensemble_std=ensemble_std,
        batch_size=batch_size,
    )
    typer.echo(f"{out}: {outside.n} structures")
    typer.echo(outside)


def extract(
    model: ModelArgument,
    level: Annotated[str, typer.Option(help="The level to keep, by id or label.")],
    out: Annotated[Path, typer.Option(help="Model file to write, *.safetensors.")],
    seed: SeedOption = None,
    force: ForceOption = False,
) -> None:
    """Write one level of a model as a model of its own, with nothing of the others in it.

    Example: hippynn-mf extract mini-ani1x --level CC --out cc.safetensors
    """
    from hippynn_mf.potentials.potential import Potential

    refuse_output(out, force, read=model)
    potential = Potential.load(model)
    if seed is not None:
        potential = potential.member(seed)
    alone = potential.only([level])
    alone.save(out)
    typer.echo(f"{out}: {alone.card.members_text}, level {alone.levels[0].label}")


def mliap(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="File to write, *.pkl.")],
    level: Annotated[str | None, typer.Option(help="Level, by id or label.")] = None,
    seed: SeedOption = None,
    dtype: Annotated[
        DTypeChoice, typer.Option(help="float64, or float32, which is faster.")
    ] = DTypeChoice.float64,
    force: ForceOption = False,
) -> None:
    """Write one level of one member for LAMMPS' pair_style mliap, through hippynn's interface.

    The file is pickled, as ML-IAP wants it: whoever loads it runs its code. Share model files.

    Example: hippynn-mf mliap mini-ani1x --level CC --seed 0 --out cc.pkl
    """
    from hippynn_mf.potentials.evaluator import DTYPES
    from hippynn_mf.potentials.mliap import write_mliap
    from hippynn_mf.potentials.potential import Potential

    refuse_output(out, force, read=model)
    potential = Potential.load(model)
    if seed is not None:
        potential = potential.member(seed)
    lines = write_mliap(potential, level, out, dtype=DTYPES[dtype.value])
    typer.echo(f"{out} is written. In LAMMPS' input:\n\n{lines}")


def torsion(
    model: ModelArgument,
    structure: Annotated[Path, typer.Argument(metavar="IN", help="Any file that ASE reads.")],
    dihedral: Annotated[str, typer.Option(help="Four atoms, as 2,0,1,3, counted from 0.")],
    out: Annotated[Path, typer.Option(help="Picture to write: *.png, *.pdf or *.svg.")],
    step: Annotated[float, typer.Option(help="Degrees between angles.", min=0.5, max=120)] = 10.0,
    force: ForceOption = False,
) -> None:
    """Draw the energies of every level along a torsion, with the spread of the members.

    Scans the last structure of IN rigidly; numbers are written as JSON beside the picture.

    Example: hippynn-mf torsion mini-ani1x ethane.xyz --dihedral 2,0,1,5 --out torsion.png
    """
    import numpy as np

    from hippynn_mf.potentials.potential import Potential
    from hippynn_mf.potentials.structure_files import read_structures
    from hippynn_mf.potentials.torsion import scan_torsion
    from hippynn_mf.report.torsion import write_torsion

    for path in (out, out.with_suffix(".json")):
        refuse_output(path, force, read=structure)
    if not (360 / step).is_integer():
        raise UserError(f"--step divides 360 degrees into equal parts; {step} does not.")
    if f"*{out.suffix}" not in PICTURES:
        raise UserError(f"A picture is named {', '.join(PICTURES)}; found {out.name}.")
    try:
        atoms = [int(number) for number in dihedral.split(",")]
    except ValueError:
        raise UserError(f"--dihedral expects four numbers, as 2,0,1,3; found {dihedral}.") from None
    potential = Potential.load(model)
    with errors_about(structure):
        read = list(read_structures(structure))
        if not read:
            raise UserError("there is no structure in the file.")
        last = read[-1]
        scan = scan_torsion(potential, last, atoms, np.arange(0, 360 + step / 2, step))
    for path in write_torsion(potential, scan, out):
        typer.echo(path)
