"""What is in a data file: sizes, labels, overlaps, and what looks wrong."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection
from typing import Any

import h5py
import numpy as np
from ase.data import chemical_symbols

from hippynn_mf.data.checks.crystals import shortest_in_cells
from hippynn_mf.data.checks.gate import check_structures
from hippynn_mf.data.checks.report import CheckReport
from hippynn_mf.data.copies import join_copies
from hippynn_mf.data.elements import labelled_elements
from hippynn_mf.data.formats.ani1x import labels_in_file, read_ani1x
from hippynn_mf.data.formats.hdf5 import require_dataset
from hippynn_mf.data.formats.held_elements import AtomEnergies, isolated_atoms
from hippynn_mf.data.formats.layout import energy_datasets
from hippynn_mf.data.formats.sources import (
    DataPath,
    data_notes,
    format_name,
    has_frames,
    held_names,
    open_data,
    refuse_absent_keys,
    refuse_untold,
    shown_path,
)
from hippynn_mf.data.self_energies import lacking_elements, with_self_energies
from hippynn_mf.data.structures import (
    Structures,
    atomic_energy_sum,
    composition,
    elements_of,
)
from hippynn_mf.errors import UserError
from hippynn_mf.labels import Labels
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.ragged import Ragged, blocks_of
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

# Beyond these a value is counted as absurd: it exists, but hardly near equilibrium.
LARGEST_FORCE = 1.0  # hartree/Å, of one atom
SHORTEST_DISTANCE = 0.5  # Å
N_HELD = 30  # names that a line lists
# Where self energies are from, in words.
ORIGINS = {
    "declared": "declared",
    "isolated_atoms": "of isolated atoms",
    "fitted": "fitted in training, to its training energies",
}


def describe_file(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> dict[str, Any]:
    """Describe a data file, for `hippynn-mf data info`; the result is JSON.

    Extended XYZ is described as the file in the ANI-1x layout that it becomes. Raises UserError if
    the file cannot be read or holds none of `levels`.
    """
    path = shown_path(source, levels=levels)
    refuse_untold(source)
    labels = labels_in_file(source, levels=levels)
    refuse_absent_keys(source, levels=levels)
    if not labels:
        names = ", ".join(key for level in levels for key in level.energy_keys)
        raise UserError(
            f"{path} is {format_name(source)} and has the keys of no known level of theory. Found: "
            f"{_found_keys(source, levels)}. Looked for: {names}. Levels of your own are "
            "declared with --levels, and names of your own with --key LEVEL.energy=NAME."
        )
    common_levels = list(labels)
    structures, is_common = read_ani1x(
        source, labels, common_levels=common_levels, drop_damaged=True, levels=levels
    )
    copies = count_copies(structures)
    report = check_structures(structures, levels, source, n_copies=copies["duplicates"])
    atoms = isolated_atoms(source, labels, levels)
    n_atoms = structures.n_atoms
    numbers = sorted(set(elements_of(structures.species)) - {0})
    return {
        "file": str(path),
        "format": format_name(source),
        "holds": _holds(source, levels),
        "notes": list(data_notes(source, levels=levels)),
        "n_structures": len(is_common),
        "n_unlabelled": len(is_common) - len(structures),
        "n_groups": len(structures.group_names),
        "elements": [chemical_symbols[number] for number in numbers],
        "n_periodic": int(structures.is_periodic.sum()),
        "atoms_per_structure": [int(n_atoms.min()), int(n_atoms.max())] if n_atoms.size else [0, 0],
        "levels": {level.id: _describe_level(structures, level, report, atoms) for level in labels},
        "common_levels": [level.id for level in common_levels],
        "n_common": int(is_common.sum()),
        "overlap": _overlap(structures, list(labels)),
        "checks": report.model_dump(mode="json")["outcomes"],
        "problems": {
            **count_non_finite(source, labels, levels=levels),
            **copies,
            f"shorter_than_{SHORTEST_DISTANCE}_angstrom": count_close_atoms(structures),
        },
    }


def _holds(source: DataPath, levels: Levels) -> dict[str, int]:
    """Names in the files beside atoms and positions, with the number of structures."""
    counts: Counter[str] = Counter()
    if has_frames(source):
        for held in held_names(source, levels=levels).values():
            counts.update({name: each.count for name, each in held.items()})
        return dict(sorted(counts.items()))
    with open_data(source, levels=levels) as file:
        for group in (item for item in file.values() if isinstance(item, h5py.Group)):
            n_conformers = len(group["coordinates"]) if "coordinates" in group else 0
            names = (name for name in group if name not in ("atomic_numbers", "coordinates"))
            counts.update(dict.fromkeys(names, n_conformers))
    return dict(sorted(counts.items()))


def _found_keys(source: DataPath, levels: Levels) -> str:
    """What a file has instead of labels of known levels."""
    with open_data(source, levels=levels) as file:
        groups = [item for item in file.values() if isinstance(item, h5py.Group)]
        return ", ".join(sorted({name for group in groups for name in group})) or "nothing"


def count_non_finite(
    source: DataPath, labels: Labels, *, levels: Levels = KNOWN_LEVELS
) -> dict[str, int]:
    """Conformers with non-finite coordinates, infinite labels, or forces for some atoms only."""
    counts = Counter(dict.fromkeys(("bad_coordinates", "infinite_labels", "partial_forces"), 0))
    path = shown_path(source, levels=levels)
    force_keys = {level.force_key for level, props in labels.items() if props.forces} - {None}
    with open_data(source, levels=levels) as file:
        for group in (item for item in file.values() if isinstance(item, h5py.Group)):
            positions = require_dataset(group, "coordinates", path)[()]
            counts["bad_coordinates"] += _n_rows(~np.isfinite(positions))
            sums = [names for level in labels for names in energy_datasets(group, level)]
            for key in {key for names in sums for key in names}:
                counts["infinite_labels"] += _n_rows(np.isinf(require_dataset(group, key, path)))
            for force_key in force_keys:
                values = require_dataset(group, str(force_key), path)[()]
                missing = np.isnan(values).reshape(len(values), -1)
                counts["infinite_labels"] += _n_rows(np.isinf(values))
                counts["partial_forces"] += int((missing.any(axis=1) & ~missing.all(axis=1)).sum())
    return dict(counts)


def _n_rows(flags: np.ndarray) -> int:
    """Rows with any flag."""
    return int(flags.reshape(len(flags), -1).any(axis=1).sum())


def _describe_level(
    structures: Structures, level: Level, report: CheckReport, atoms: AtomEnergies
) -> dict[str, Any]:
    labelled = structures.has_energy(level)
    entry: dict[str, Any] = {"label": level.label, "energy": int(labelled.sum())}
    entry["forces"] = 0
    if level.id in structures.forces:
        has_forces = structures.has_forces(level)
        entry["forces"] = int(has_forces.sum())
        largest = _largest_forces(structures[has_forces].forces[level.id])
        entry["largest_force_hartree_per_angstrom"] = float(largest.max(initial=0))
        entry[f"forces_above_{LARGEST_FORCE}_hartree_per_angstrom"] = int(
            (largest > LARGEST_FORCE).sum()
        )
        found = report.of("forces", level.id)
        if found is not None:
            entry["force_check"] = {"verdict": found.verdict, **found.values}
    entry["stress"] = 0
    if level.id in structures.stress:
        entry["stress"] = int(structures.has_stress(level).sum())
    entry["atomic_energy_fit"] = _describe_fit(structures[labelled], level)
    elements = labelled_elements(structures, level)
    alone = set(atoms.get(level.id, {})) - set(level.self_energies)
    entry["self_energies"] = {
        "declared": _names(elements - lacking_elements(level, elements)),
        "isolated_atoms": _names(elements & alone),
        "fitted": _names(lacking_elements(level, elements) - alone),
    }
    return entry


def _largest_forces(forces: Ragged) -> np.ndarray:
    """(n,) the largest force on an atom of every structure."""
    blocks = [np.linalg.norm(forces[rows], axis=-1) for rows in blocks_of(len(forces))]
    return np.concatenate([np.zeros(0), *(each.max(axis=1, initial=0) for each in blocks)])


def _names(numbers: Collection[int]) -> list[str]:
    return [chemical_symbols[number] for number in sorted(numbers)]


def _describe_fit(structures: Structures, level: Level) -> dict[str, Any] | None:
    """Rank and condition of the least-squares fit of atomic energies, and its residual."""
    if not len(structures):
        return None
    numbers = sorted(set(elements_of(structures.species)) - {0})
    counts = composition(structures.species, numbers)
    # Those without a self energy are fitted whole, with the same residual.
    zeros = dict.fromkeys(lacking_elements(level, numbers), 0.0)
    known = atomic_energy_sum(structures.species, with_self_energies(level, zeros))
    energies = structures.energies[level.id] - known
    solution, _, rank, singular_values = np.linalg.lstsq(counts.astype(float), energies, rcond=None)
    residual = np.sqrt(np.mean((counts @ solution - energies) ** 2)) * KCAL_PER_MOL_PER_HARTREE
    return {
        "n_elements": len(numbers),
        "rank": int(rank),
        "condition": float(singular_values[0] / singular_values[-1])
        if rank == len(numbers)
        else None,
        "residual_rmse_kcal_per_mol": float(residual),
    }


def _overlap(structures: Structures, levels: list[Level]) -> dict[str, int]:
    """Structures that carry the energies of both levels of a pair, as `a & b`."""
    return {
        f"{first.id} & {second.id}": int(
            (structures.has_energy(first) & structures.has_energy(second)).sum()
        )
        for first, second in itertools.combinations(levels, 2)
    }


def count_copies(structures: Structures) -> dict[str, int]:
    """Structures that repeat another, however turned, mirrored, ordered or rounded.

    And labels in which such copies contradict each other, for which training refuses the file.
    """
    joined = join_copies(structures)
    return {"duplicates": joined.n_copies, "contradicting_labels": len(joined.contradictions)}


def count_close_atoms(structures: Structures) -> int:
    """Structures in which two atoms, or images of them, are closer than `SHORTEST_DISTANCE`."""
    count = 0
    for _, members in structures.by_group():
        positions = members.positions[:]
        close = np.zeros(len(members), bool)
        for i, j in itertools.combinations(range(positions.shape[1]), 2):
            bond = positions[:, i] - positions[:, j]
            close |= np.einsum("nx,nx->n", bond, bond) < SHORTEST_DISTANCE**2
        periodic = np.flatnonzero(members.is_periodic)
        if len(periodic):
            close[periodic] = shortest_in_cells(members[periodic]) < SHORTEST_DISTANCE
        count += int(close.sum())
    return count


def _listed(holds: dict[str, int]) -> str:
    names = [f"{name} ({count})" for name, count in holds.items()]
    more = f" and {len(names) - N_HELD} more" if len(names) > N_HELD else ""
    return f"{', '.join(names[:N_HELD]) or 'positions only'}{more}"


def format_description(info: dict[str, Any]) -> str:
    """The description as text for people."""
    low, high = info["atoms_per_structure"]
    has_stress = any(entry["stress"] for entry in info["levels"].values())
    stress_title = f"{'stress':>10}" if has_stress else ""
    width = max([14, *(len(level_id) + 2 for level_id in info["levels"])])
    lines = [
        f"{info['file']}",
        f"  {info['format']}; holds {_listed(info['holds'])}",
        f"  {info['n_structures']} structures in {info['n_groups']} groups, {low} to {high} atoms "
        f"of {', '.join(info['elements'])}; {info['n_unlabelled']} without any label",
        *([f"  {info['n_periodic']} are periodic"] if info["n_periodic"] else []),
        f"  {info['n_common']} carry the energies of all of {', '.join(info['common_levels'])}",
        "",
        f"  {'level':<{width}}{'energies':>10}{'forces':>10}{stress_title}   atomic energy fit",
    ]
    for level_id, entry in info["levels"].items():
        fit = entry["atomic_energy_fit"]
        text = "no labels"
        if fit:
            condition = "singular" if fit["condition"] is None else f"{fit['condition']:.0f}"
            text = (
                f"rank {fit['rank']} of {fit['n_elements']}, condition {condition}, "
                f"residual {fit['residual_rmse_kcal_per_mol']:.1f} kcal/mol"
            )
        counts = f"{entry['energy']:>10}{entry['forces']:>10}"
        counts += f"{entry['stress']:>10}" if has_stress else ""
        lines.append(f"  {level_id:<{width}}{counts}   {text}")
    lines.append("")
    for pair, count in info["overlap"].items():
        lines.append(f"  {pair}: {count} in common")
    lines.append("")
    for level_id, entry in info["levels"].items():
        found = entry["self_energies"]
        if found["isolated_atoms"] or found["fitted"]:
            texts = [
                f"{', '.join(found[name])} {how}" for name, how in ORIGINS.items() if found[name]
            ]
            lines.append(f"  self energies of {level_id}: {'; '.join(texts)}")
    for level_id, entry in info["levels"].items():
        if "force_check" in entry:
            lines.append(
                f"  largest force of {level_id}: "
                f"{entry['largest_force_hartree_per_angstrom']:.3f} hartree/Å"
            )
    for problem, count in info["problems"].items():
        lines.append(f"  {problem.replace('_', ' ')}: {count}")
    lines += [
        "",
        CheckReport.model_validate(
            {"source": info["file"], "outcomes": tuple(info["checks"])}
        ).text(),
    ]
    return "\n".join(lines)
