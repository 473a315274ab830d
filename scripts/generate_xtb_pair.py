"""Compute a file with two cheap levels of theory, GFN1-xTB and GFN2-xTB, to try methods on.

    pip install -e '.[qm]'
    python scripts/generate_xtb_pair.py xtb-pair.h5
    hippynn-mf campaign --levels scripts/xtb_levels.json --data xtb-pair.h5 \
        --experiments SF-GFN2/E,MF-GFN1/EF-GFN2/E,MFC-GFN1/EF-GFN2/E --out xtb

The file has the ANI-1x layout, with energies and forces at both levels, in hartree and hartree/Å.
Its conformers are those of small molecules of C, H, N, O around their GFN2-xTB minima, drawn as
`hippynn_mf/labelling/harmonic.py` says, from `TEMPERATURES` and at most `HIGHEST_ENERGY` above the
minimum. A conformer depends on the seed and on its number only: a larger file holds those of a
smaller one.

`xtb_levels.json` declares both levels. Its self energies are the energies of the free atoms, in
their ground states, by each method.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # read by the libraries when they load: one core, one job

import h5py  # noqa: E402
import typer  # noqa: E402
from ase import Atoms, units  # noqa: E402
from joblib import Parallel, delayed  # noqa: E402
from qm_starts import find_minimum  # noqa: E402
from tblite.ase import TBLite  # noqa: E402
from tqdm import tqdm  # noqa: E402

from hippynn_mf.data.formats.ani1x_writer import write_ani1x  # noqa: E402
from hippynn_mf.data.formats.frames import Frame  # noqa: E402
from hippynn_mf.files import replace_when_complete  # noqa: E402
from hippynn_mf.labelling.harmonic import Minimum, draw_conformer  # noqa: E402

METHODS = {"gfn1_xtb": "GFN1-xTB", "gfn2_xtb": "GFN2-xTB"}
TEMPERATURES = (300.0, 2000.0)  # K
# kcal/mol by GFN2-xTB; the harmonic mean of 11 atoms at 2000 K is 54
HIGHEST_ENERGY = 80.0

ACCURACY = 0.01  # tblite's own 1 leaves errors of 1e-5 hartree/Å in forces

MOLECULES = (
    *("H2O", "NH3", "CH4", "HCN", "C2H2", "C2H4", "C2H6", "H2CO", "CH3OH", "H3CNH2"),
    *("H2O2", "N2H4", "CO2", "N2O", "CH3CN", "HCOOH", "CH3CHO", "H2CCO", "CH2OCH2", "CH3OCH3"),
    *("CH3CH2OH", "C3H6_Cs", "C3H8", "OCHCHO", "H2CCHCN", "HCOOCH3", "CH3COOH", "CH3CONH2"),
)


def compute_conformer(number: int, minimum: Minimum, seed: int) -> Frame:
    """The conformer of a molecule with this number in the file, with the labels of both levels."""
    positions = draw_conformer(
        minimum, (seed, number), temperatures=TEMPERATURES, highest_energy=HIGHEST_ENERGY
    )
    energies, forces = {}, {}
    for level, method in METHODS.items():
        atoms = Atoms(minimum.numbers, positions)
        atoms.calc = TBLite(method=method, verbosity=0, accuracy=ACCURACY)
        energies[f"{level}.energy"] = float(atoms.get_potential_energy() / units.Hartree)
        # The precision of the public file's forces.
        forces[f"{level}.forces"] = (atoms.get_forces() / units.Hartree).astype("f4").astype("f8")
    return Frame(
        numbers=minimum.numbers.astype("u1"),
        positions=positions,
        energies=energies,
        forces=forces,
        group=None,
        path=Path(__file__),
        number=number + 1,
    )


def write_pair(path: Path, n: int, *, seed: int = 0, jobs: int = 1, progress: bool = True) -> None:
    """Write a file of `n` conformers, as many of each molecule, complete or not at all."""
    path = path.absolute()
    with Parallel(n_jobs=jobs, return_as="generator") as parallel:
        names = MOLECULES[:n]
        tasks = (delayed(find_minimum)(name) for name in names)
        found = tqdm(
            parallel(tasks), total=len(names), unit="minimum", desc="minima", disable=not progress
        )
        minima = list(found)
        tasks = (
            delayed(compute_conformer)(number, minima[number % len(minima)], seed)
            for number in range(n)
        )
        computed = tqdm(
            parallel(tasks), total=n, unit="conformer", desc="conformers", disable=not progress
        )
        frames = list(computed)
    with replace_when_complete(path) as partial, h5py.File(partial, "w") as file:
        write_ani1x(file, frames)
        file.attrs.update(
            license="BSD-3-Clause",
            sampling="harmonic thermal samples of GFN2-xTB minima, "
            f"{TEMPERATURES[0]:.0f}-{TEMPERATURES[1]:.0f} K, at most {HIGHEST_ENERGY:.0f} kcal/mol "
            "up (hippynn_mf/labelling/harmonic.py)",
            software="tblite (scripts/generate_xtb_pair.py)",
            seed=seed,
            **METHODS,
        )


def main(
    out: Annotated[Path, typer.Argument(help="File to write.", dir_okay=False)],
    n: Annotated[int, typer.Option(help="Conformers.", min=1)] = 1250,
    seed: Annotated[int, typer.Option(help="Chooses the conformers.", min=0)] = 0,
    jobs: Annotated[int, typer.Option(help="Processes, one thread each.", min=1)] = 1,
) -> None:
    """Compute the file, in less than a minute."""
    write_pair(out, n, seed=seed, jobs=jobs)
    typer.echo(f"{out}: {n} conformers of {min(n, len(MOLECULES))} molecules")


if __name__ == "__main__":
    typer.run(main)
