"""The files of the embedded data in the published layouts, from finished conformers and back."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np
from ase import Atoms
from qm_samples import GRADIENT_STEP, Sample, read_sample, write_sample

from hippynn_mf.files import replace_when_complete
from hippynn_mf.labelling.reference import composite

# Per conformer and NaN throughout, because the coupled cluster of this set is canonical.
ABSENT_KEYS = (
    "npno_ccsd(t)_dz.corr_energy",
    "npno_ccsd(t)_tz.corr_energy",
    "tpno_ccsd(t)_dz.corr_energy",
)
ENERGY_KEYS = (
    "wb97x_dz.energy",
    "wb97x_tz.energy",
    "hf_dz.energy",
    "hf_tz.energy",
    "hf_qz.energy",
    "mp2_dz.corr_energy",
    "mp2_tz.corr_energy",
    "mp2_qz.corr_energy",
    "ccsd(t)_dz.corr_energy",
)
CC_FORCES, CC_GRADIENT = "ccsd(t)_cbs.forces", "ccsd(t)_cbs_grad"
FORCE_KEYS = ("wb97x_dz.forces", "wb97x_tz.forces")

# As the files state it: sampling and labels are in hippynn_mf/labelling/ by now, the composite in
# hippynn_mf/data/composite.py.
PROVENANCE = {
    "license": "BSD-3-Clause",
    "sampling": "harmonic thermal samples of GFN2-xTB minima, 100-1000 K, at most 40 kcal/mol up "
    "(scripts/qm_sampling.py)",
    "software": "PySCF 2.14, tblite 0.8 (scripts/qm_labels.py)",
    "wb97x_dz": "RKS wB97X/6-31G(d), Cartesian d functions, no density fitting",
    "wb97x_tz": "RKS wB97X/def2-TZVPP, density fitting with def2-universal-JKFIT",
    "cc-pVDZ": "RHF, MP2, CCSD(T), frozen core, canonical, no density fitting",
    "cc-pVTZ and cc-pVQZ": "RHF and MP2, frozen core, density fitting with cc-pVXZ-JKFIT and -RI",
    "ccsd(t)_cbs": "HF_CBS + MP2_CBS + (CCSD(T) - MP2)/cc-pVDZ (hippynn_mf/composite.py)",
}


def assemble_ani1x(path: Path, work: Path, samples: list[Sample]) -> int:
    """Write a file in the ANI-1x layout from the finished samples; returns their number.

    Those with CCSD(T)/CBS forces are a file of their own.
    """
    groups: defaultdict[str, list[tuple[Sample, dict[str, np.ndarray]]]] = defaultdict(list)
    for sample in samples:
        if sample.path(work).exists():
            arrays = read_sample(sample.path(work))
            groups[Atoms(arrays["atomic_numbers"]).get_chemical_formula()].append((sample, arrays))
    with replace_when_complete(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(PROVENANCE)
        if any(sample.kind == "cc_forces" for sample in samples):
            file.attrs[CC_FORCES] = f"differences of the composite, step {GRADIENT_STEP} Angstrom"
        for formula, members in sorted(groups.items()):
            conformers = [arrays for _, arrays in members]
            n_atoms = len(conformers[0]["atomic_numbers"])
            no_forces = np.full((n_atoms, 3), np.nan)
            columns = {
                "coordinates": np.stack([c["coordinates"] for c in conformers]).astype("f4"),
                **{
                    k: np.stack([c.get(k, no_forces) for c in conformers]).astype("f4")
                    for k in FORCE_KEYS
                },
                **{k: np.array([c.get(k, np.nan) for c in conformers], "f8") for k in ENERGY_KEYS},
                **{k: np.full(len(members), np.nan) for k in ABSENT_KEYS},
                "ccsd(t)_cbs.energy": np.array([composite(c) for c in conformers], "f8"),
                "sample": np.array([sample.name.encode() for sample, _ in members]),
            }
            if members[0][0].kind == "cc_forces":
                columns[CC_FORCES] = -np.stack([c[CC_GRADIENT] for c in conformers]).astype("f4")
                columns[f"{CC_FORCES}_error"] = np.array(
                    [c.get(f"{CC_GRADIENT}_error", np.nan) for c in conformers]
                )
            write_group(file.create_group(formula), columns)
            file[formula]["atomic_numbers"] = conformers[0]["atomic_numbers"].astype("u1")
    return sum(map(len, groups.values()))


def assemble_comp6(path: Path, work: Path, samples: list[Sample]) -> int:
    """Write `mini-comp6.h5` from the finished samples; returns their number."""
    groups: defaultdict[str, list[tuple[Sample, dict[str, np.ndarray]]]] = defaultdict(list)
    for sample in samples:
        if sample.path(work).exists():
            groups[sample.molecule].append((sample, read_sample(sample.path(work))))
    with replace_when_complete(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(PROVENANCE)
        file.attrs["forces"] = "the gradient +dE/dR, as in the published COMP6 files"
        file.attrs["mp2_tz_grad"] = f"central differences, step {GRADIENT_STEP} Angstrom"
        for name, members in sorted(groups.items()):
            conformers = [arrays for _, arrays in members]
            numbers = conformers[0]["atomic_numbers"]
            columns = {
                "coordinates": np.stack([c["coordinates"] for c in conformers]).astype("f4"),
                "energies": np.array([c["wb97x_dz.energy"] for c in conformers], "f8"),
                "forces": np.stack([-c["wb97x_dz.forces"] for c in conformers]).astype("f4"),
                "mp2_tz_grad": np.stack([c["mp2_tz_grad"] for c in conformers]).astype("f4"),
                "mp2_tz.energy": np.array(
                    [c["hf_tz.energy"] + c["mp2_tz.corr_energy"] for c in conformers], "f8"
                ),
                "ccsd(t)_cbs.energy": np.array([composite(c) for c in conformers], "f8"),
                **{k: np.array([c[k] for c in conformers], "f8") for k in ENERGY_KEYS[2:]},
                "mp2_tz_grad_error": np.array(
                    [c.get("mp2_tz_grad_error", np.nan) for c in conformers]
                ),
                "sample": np.array([sample.name.encode() for sample, _ in members]),
            }
            group = file.create_group(f"mini-comp6/{name}")
            write_group(group, columns)
            group["species"] = np.array(
                [symbol.encode() for symbol in Atoms(numbers).symbols], "S1"
            )
            group["lot"] = np.array([b"wb97x/6-31g(d)"])
    return sum(map(len, groups.values()))


def write_group(group: h5py.Group, columns: dict[str, np.ndarray]) -> None:
    """Write compressed datasets."""
    for key, values in columns.items():
        group.create_dataset(key, data=values, compression="gzip", compression_opts=9, shuffle=True)


def unpack(path: Path, work: Path) -> None:
    """Write the conformers of an assembled file back into the work folder."""
    if not path.exists():
        return
    with h5py.File(path) as file:
        top = file.get("mini-comp6", file)
        for group in top.values():
            columns = {key: group[key][()] for key in group}
            names = columns.pop("sample")
            columns.pop("lot", None)
            if "species" in columns:
                numbers = Atoms([s.decode() for s in columns.pop("species")]).numbers
                columns["wb97x_dz.energy"] = columns.pop("energies")
                columns["wb97x_dz.forces"] = -columns.pop("forces")
                columns.pop("mp2_tz.energy")
            else:
                numbers = columns.pop("atomic_numbers")
                if CC_FORCES in columns:
                    columns[CC_GRADIENT] = -columns.pop(CC_FORCES)
                    columns[f"{CC_GRADIENT}_error"] = columns.pop(f"{CC_FORCES}_error")
            for row, name in enumerate(names):
                target = work / f"{name.decode()}.npz"
                if not target.exists():
                    values = {key: column[row] for key, column in columns.items()}
                    kept = {key: value for key, value in values.items() if np.isfinite(value).all()}
                    kept.pop("ccsd(t)_cbs.energy", None)
                    write_sample(target, {"atomic_numbers": numbers, **kept})
