"""Minima and vibrations of the shipped model beside those of quantum chemistry.

    python scripts/compare_minima.py
    python scripts/compare_minima.py --model model.safetensors

The references are in `hippynn_mf/embedded/minima.json`, made by `generate_mini_dataset.py`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from ase import Atoms
from ase.build import molecule
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from hippynn_mf import embedded
from hippynn_mf.potentials.calculator import MultiFidelityCalculator
from hippynn_mf.potentials.potential import Potential

MINIMA = Path(embedded.__file__).with_name("minima.json")
# Below 0.005 Å symmetric molecules show the network's norms, which are rounded at zero: their
# curvature there is not that of the surface around.
ASE_STEP = 0.01  # Å
N_RIGID = 6  # translations and rotations of a molecule that is not linear
HEADER = "| molecule | level | error of distances | wavenumbers (1/cm), model | quantum chemistry |"


def read_references() -> list[dict[str, Any]]:
    """The minima of quantum chemistry."""
    return json.loads(MINIMA.read_text(encoding="utf-8"))["references"]


def compare(model: Potential, reference: dict[str, Any], step: float = ASE_STEP) -> dict[str, Any]:
    """Optimise with the model and find its wavenumbers (1/cm); errors of distances in Å."""
    expected = Atoms(reference["atomic_numbers"], reference["positions_angstrom"])
    atoms = molecule(reference["molecule"])
    atoms = atoms[np.argsort(atoms.symbols, kind="stable")]  # the order of the reference
    atoms.calc = MultiFidelityCalculator(model, reference["level"])
    if not BFGS(atoms, logfile=None).run(fmax=1e-5, steps=300):
        raise RuntimeError(f"No minimum of {reference['molecule']} at {reference['level']}")
    with tempfile.TemporaryDirectory() as folder:
        vibrations = Vibrations(atoms, name=f"{folder}/vibrations", delta=step)
        vibrations.run()
        frequencies = vibrations.get_frequencies()
    return {
        "rigid": np.abs(frequencies[:N_RIGID]),
        "model": frequencies[N_RIGID:].real,
        "reference": np.array(reference["wavenumbers_per_cm"]),
        "distance_error": np.abs(_distances(atoms) - _distances(expected)).max(),
    }


def _distances(atoms: Atoms) -> np.ndarray:
    """All distances between atoms, sorted: equal atoms may have changed places."""
    return np.sort(atoms.get_all_distances()[np.triu_indices(len(atoms), 1)])


def table(model: Potential, step: float = ASE_STEP) -> str:
    """The comparison as Markdown."""
    lines = [HEADER, "|---|---|---|---|---|"]
    for reference in read_references():
        found = compare(model, reference, step)
        numbers = [", ".join(f"{v:.0f}" for v in found[name]) for name in ("model", "reference")]
        label = model.level(reference["level"]).label
        lines.append(
            f"| {reference['molecule']} | {label} | {found['distance_error']:.3f} Å "
            f"| {numbers[0]} | {numbers[1]} |"
        )
    return "\n".join(lines)


def main(
    model: Annotated[str, typer.Option(help="Model file or name.")] = "mini-ani1x",
    step: Annotated[float, typer.Option(help="Of the differences of forces, in Å.")] = ASE_STEP,
) -> None:
    """Print the table."""
    typer.echo(table(Potential.load(model), step))


if __name__ == "__main__":
    typer.run(main)
