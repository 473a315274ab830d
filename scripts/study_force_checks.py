"""How often the check of forces refuses, leaves undecided or passes right and wrong forces.

    pip install -e '.[qm]'
    python scripts/study_force_checks.py --real ani1x_1000.h5 --larger larger.h5
    python scripts/study_force_checks.py --larger larger.h5      # without the real ANI-1x

Of every data set `N_SUBSETS` random subsets are taken, and of each its forces times every factor of
`FACTORS`, or those of other structures, are checked beside the same energies and positions. The
slope alone, the bonds alone and both together (what the gate does) are counted. The rules were
set on the embedded data and on `ani1x-release`'s conformers (`real`); the other data are for the
test alone. `larger` are conformers of molecules of 13 to 29 atoms by GFN2-xTB, far apart, harmonic
draws of 300 to 1000 K; the script computes them (minutes) where the file is missing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # read by the libraries when they load: one core, one job

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import typer  # noqa: E402
from ase import Atoms, units  # noqa: E402
from joblib import Parallel, delayed  # noqa: E402
from qm_records import read_lines, to_arrays  # noqa: E402

from hippynn_mf.data.checks.bonds import Bonds, find_bonds, find_stiffness, stiffness_of  # noqa: E402
from hippynn_mf.data.checks.forces import judge_forces  # noqa: E402
from hippynn_mf.data.checks.pairs import ConformerPairs, find_pairs  # noqa: E402
from hippynn_mf.data.checks.slopes import slope_of  # noqa: E402
from hippynn_mf.data.checks.units import FileUnits  # noqa: E402
from hippynn_mf.data.embedded import MINI_ANI1X  # noqa: E402
from hippynn_mf.data.formats.ani1x import read_ani1x  # noqa: E402
from hippynn_mf.data.structures import Block, Structures, join_blocks  # noqa: E402
from hippynn_mf.files import replace_when_complete  # noqa: E402
from hippynn_mf.labels import parse_labels  # noqa: E402
from hippynn_mf.levels import DZ, TZ, Level  # noqa: E402

TOP = Path(__file__).parent.parent
RESULT = TOP / "scripts" / "benchmarks" / "force_checks.json"
SECOND_EDITION = TOP / "scripts" / "second_edition"
N_SUBSETS = 100
SHARE = 0.8
FACTORS = {
    "right": 1.0,
    "wrong sign": -1.0,
    "hartree/bohr": units.Bohr,
    "times 1.89": 1 / units.Bohr,
    "eV/Å": units.Hartree,
    "kcal/mol/Å": units.Hartree / (units.kcal / units.mol),
    "read as eV/Å": 1 / units.Hartree,
}
SHUFFLED = "of other structures"
CHECKS = ("slope", "bonds", "both")
VERDICTS = ("refused", "undecided", "passed")

TEMPERATURES = (300.0, 1000.0)  # K
LARGER = {
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "alanine dipeptide": "CC(=O)NC(C)C(=O)NC",
    "nicotine": "CN1CCCC1c1cccnc1",
    "dopamine": "NCCc1ccc(O)c(O)c1",
    "proline": "OC(=O)C1CCCN1",
    "cytosine": "Nc1cc[nH]c(=O)n1",
    "menthone": "CC1CCC(C(C)C)C(=O)C1",
    "ribose": "OCC1OC(O)C(O)C1O",
    "octane": "CCCCCCCC",
    "leucine": "CC(C)CC(N)C(=O)O",
    "vanillin": "COc1cc(C=O)ccc1O",
    "triglyme": "COCCOCCOC",
    "histamine": "NCCc1c[nH]cn1",
    "azobenzene": "c1ccc(N=Nc2ccccc2)cc1",
}
N_EACH = 40


def make_larger(path: Path) -> None:
    """Write energies and forces of GFN2-xTB of conformers of `LARGER`, under the keys of DZ."""
    from rdkit import Chem
    from rdkit.Chem import AllChem
    from tblite.ase import TBLite

    from hippynn_mf.labelling.harmonic import draw_harmonic, minimum_near

    with replace_when_complete(path) as partial, h5py.File(partial, "w") as file:
        for place, (name, smiles) in enumerate(LARGER.items()):
            mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
            AllChem.EmbedMolecule(mol, randomSeed=7)
            AllChem.MMFFOptimizeMolecule(mol)
            start = Atoms(
                [atom.GetAtomicNum() for atom in mol.GetAtoms()],
                mol.GetConformer().GetPositions(),
            )
            try:
                minimum = minimum_near(start, name)
            except RuntimeError as error:
                typer.echo(f"left out: {error}")
                continue
            rng = np.random.default_rng(place)
            positions, energies, forces = [], [], []
            for _ in range(N_EACH):
                drawn = draw_harmonic(minimum, rng, temperatures=TEMPERATURES)
                atoms = Atoms(minimum.numbers, drawn)
                atoms.calc = TBLite(method="GFN2-xTB", verbosity=0, accuracy=0.01)
                positions.append(drawn)
                energies.append(atoms.get_potential_energy() / units.Hartree)
                forces.append(atoms.get_forces() / units.Hartree)
            group = file.create_group(name)
            group["atomic_numbers"] = minimum.numbers.astype("u1")
            group["coordinates"] = np.array(positions, "f4")
            group["wb97x_dz.energy"], group["wb97x_dz.forces"] = energies, np.array(forces, "f4")
            typer.echo(f"{name}: {len(start)} atoms")


def of_second_edition() -> Structures:
    """The conformers with DZ forces that the second edition has so far, grouped by molecule."""
    records: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(SECOND_EDITION.glob("*.jsonl")):
        for record in read_lines(path):
            if "wb97x_dz.forces" in record:
                records.setdefault(record["sample"].rpartition("/")[0], []).append(record)
    blocks = []
    for name, members in records.items():
        arrays = [to_arrays(record) for record in members]
        blocks.append(
            Block(
                name=name,
                numbers=arrays[0]["atomic_numbers"],
                kept=np.ones(len(arrays), bool),
                positions=np.stack([each["coordinates"] for each in arrays]),
                energies={DZ.id: np.array([float(each["wb97x_dz.energy"]) for each in arrays])},
                forces={DZ.id: np.stack([each["wb97x_dz.forces"] for each in arrays])},
            )
        )
    return join_blocks(blocks)


def read(path: Path, level: Level) -> Structures:
    """All conformers of a file with forces of one level."""
    return read_ani1x(path, parse_labels({level: "EF"}))[0]


def per_group(structures: Structures, n: int) -> Structures:
    """The first `n` conformers of every group."""
    place = np.arange(len(structures)) - np.searchsorted(structures.groups, structures.groups)
    return structures[place < n]


def data_sets(real: Path | None, larger: Path) -> Iterator[tuple[str, Structures, Level, bool]]:
    """Name, structures, level of the forces, and whether the rules were set on it."""
    embedded = read(MINI_ANI1X, DZ)
    yield "embedded, ωB97X/DZ, 100 to 200 of a molecule", embedded, DZ, True
    if real is not None:
        yield "real ANI-1x, ωB97X/DZ, 2 of a formula", read(real, DZ), DZ, True
        yield "real ANI-1x, ωB97X/TZ, 2 of a formula", read(real, TZ), TZ, False
    edition = of_second_edition()
    yield "second edition, ωB97X/DZ, few of a molecule", edition, DZ, False
    structures = read(larger, DZ)
    n = len(structures) // len(np.unique(structures.groups))
    yield f"larger molecules, GFN2-xTB, {n} of a molecule", structures, DZ, False
    for few in (2, 5):
        some = per_group(structures, few)
        yield f"larger molecules, GFN2-xTB, {few} of a molecule", some, DZ, False
    yield "embedded, 5 of a molecule", per_group(embedded, 5), DZ, False


def of_others(structures: Structures, level: Level, seed: int) -> Structures:
    """The same structures with forces of others of their group, where it has several."""
    rng = np.random.default_rng(seed)
    order = np.arange(len(structures))
    for group in np.unique(structures.groups):
        members = np.flatnonzero(structures.groups == group)
        order[members] = np.roll(members, rng.integers(1, max(2, len(members))))
    return replace(structures, forces={level.id: structures.forces[level.id][order]})


def verdicts_of(pairs: ConformerPairs, bonds: Bonds, level: Level) -> tuple[str, str, str]:
    """Of slope, bonds and both."""
    slope, stiffness = slope_of(pairs), stiffness_of(bonds)
    both = judge_forces(slope, stiffness, level, FileUnits("hartree")).verdict
    shown = {"forces": "passed", "undecided": "undecided"}
    return shown.get(slope.verdict, "refused"), shown.get(stiffness.verdict, "refused"), both


def study(structures: Structures, level: Level, seed: int) -> dict[str, tuple[str, str, str]]:
    """Verdicts of a random subset, by what its forces are."""
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(len(structures))[: round(SHARE * len(structures))])
    subset = structures[kept]
    # As in `find_slope` and `find_stiffness`; both are linear in the forces.
    pairs, bonds = ConformerPairs.join([find_pairs(subset, level)]), find_bonds([subset], level)
    found = {}
    for name, factor in FACTORS.items():
        scaled = replace(
            pairs,
            estimates=factor * pairs.estimates,
            bends=abs(factor) * pairs.bends,
            noise=abs(factor) * pairs.noise,
        )
        found[name] = verdicts_of(scaled, replace(bonds, given=factor * bonds.given), level)
    others = of_others(subset, level, seed)
    pairs, bonds = ConformerPairs.join([find_pairs(others, level)]), find_bonds([others], level)
    return {**found, SHUFFLED: verdicts_of(pairs, bonds, level)}


def main(
    larger: Annotated[Path, typer.Option(help="File of larger molecules, made if missing.")],
    real: Annotated[Path | None, typer.Option(help="1,000 conformers of ANI-1x.")] = None,
    n: Annotated[int, typer.Option(help="Subsets of each data set.", min=1)] = N_SUBSETS,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
    out: Annotated[Path, typer.Option(help="File to write.")] = RESULT,
) -> None:
    """Count the verdicts on random subsets and write them."""
    if not larger.exists():
        make_larger(larger)
    sets = []
    for name, structures, level, is_tuned in data_sets(real, larger):
        tasks = (delayed(study)(structures, level, seed) for seed in range(n))
        found = Parallel(n_jobs=jobs)(tasks)
        counts = {
            forces: {
                check: dict(Counter(each[forces][place] for each in found))
                for place, check in enumerate(CHECKS)
            }
            for forces in found[0]
        }
        whole = find_stiffness(structures, level)
        sets.append(
            {
                "data": name,
                "rules_were_set_on_it": is_tuned,
                "n_structures": len(structures),
                "bond_stiffness": round(whole.ratio, 3),
                "bond_correlation": round(whole.correlation, 3),
                "verdicts": counts,
            }
        )
        typer.echo(f"{name}: {json.dumps({k: v['both'] for k, v in counts.items()})}")
    content = {"n_subsets": n, "share": SHARE, "sets": sets}
    out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
