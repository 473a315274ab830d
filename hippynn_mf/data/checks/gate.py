"""The one gate that the structures of every file pass, whatever its format is read for."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hippynn_mf.data.checks.balance import check_balance
from hippynn_mf.data.checks.crystals import check_stress
from hippynn_mf.data.checks.distances import check_distances
from hippynn_mf.data.checks.energies import check_energies
from hippynn_mf.data.checks.fits import count_elements, sums_over_atoms
from hippynn_mf.data.checks.forces import check_forces
from hippynn_mf.data.checks.levels import check_levels
from hippynn_mf.data.checks.owners import check_owners
from hippynn_mf.data.checks.periodicity import check_periodicity
from hippynn_mf.data.checks.repeats import check_repeats
from hippynn_mf.data.checks.report import NOTHING, Accepted, CheckReport, Outcome, Verdict
from hippynn_mf.data.checks.rounding import check_rounding
from hippynn_mf.data.checks.stretches import check_stretches
from hippynn_mf.data.checks.systems import check_systems
from hippynn_mf.data.checks.units import FileUnits
from hippynn_mf.data.checks.values import check_values
from hippynn_mf.data.embedded import FOLDER
from hippynn_mf.data.formats.hdf5 import open_hdf5
from hippynn_mf.data.formats.held_elements import isolated_atoms
from hippynn_mf.data.formats.sources import (
    DataPath,
    data_notes,
    data_remarks,
    energy_unit,
    is_comp6_folder,
    open_data,
    shown_path,
)
from hippynn_mf.data.self_energies import lacking_elements, with_self_energies
from hippynn_mf.data.structures import Structures
from hippynn_mf.levels import Level, Levels

log = logging.getLogger(__name__)


class _Names(Sequence[str]):
    """Names of structures, made when one is asked for."""

    def __init__(self, parts: Sequence[Structures]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        number = int(np.searchsorted(self.ends, index, side="right"))
        part = self.parts[number]
        place = index - (int(self.ends[number - 1]) if number else 0)
        return f"row {part.rows[place]} of {part.group_names[part.groups[place]]}"


class _Energies(Mapping[Level, np.ndarray]):
    """Energies (n,) of all structures by level, joined when they are asked for."""

    def __init__(self, parts: Sequence[Structures], levels: Sequence[Level]) -> None:
        self.parts = parts
        self.levels = [
            level for level in levels if any(level.id in part.energies for part in parts)
        ]

    def __len__(self) -> int:
        return len(self.levels)

    def __iter__(self) -> Iterator[Level]:
        return iter(self.levels)

    def __getitem__(self, level: Level) -> np.ndarray:
        found = np.concatenate(
            [
                part.energies[level.id] if level.id in part.energies else np.full(len(part), np.nan)
                for part in self.parts
            ]
        )
        found[found == 0] = np.nan  # what is no label does not judge the others
        return found


def check_structures(
    parts: Structures | Sequence[Structures],
    levels: Levels,
    source: DataPath,
    *,
    accepted: Accepted = NOTHING,
    used: Iterable[str] = (),
    samples: Sequence[Structures] = (),
    n_copies: int | None = None,
) -> CheckReport:
    """What all checks find in the structures of a file; nothing is raised, see `refuse`.

    Args:
        parts: the structures, whole or in disjoint parts of one file (its splits).
        levels: what names of levels stand for.
        source: the file, whose format says the units.
        accepted: what the user takes responsibility for.
        samples: structures among the parts, whose forces are there that the parts do not have.
        used: keys of the file that are read beside those of `levels`, as of a COMP6 key map.
        n_copies: structures that repeated others, and are no more there; None if nobody looked.
    """
    whole = [part for part in ([parts] if isinstance(parts, Structures) else parts) if len(part)]
    shown = str(shown_path(source, levels=levels))
    outcomes = [
        *_copies(source, levels, n_copies),
        *_systems(source, levels, set(used), accepted),
    ]
    if not whole:
        return CheckReport(source=shown, outcomes=tuple(outcomes))
    names = dict.fromkeys(name for part in whole for name in (*part.energies, *part.forces))
    ordered = sorted(map(levels.get, names), key=lambda level: level.rank)
    unit = energy_unit(source, levels=levels)

    found, length = check_distances(whole, accepted)
    outcomes += found
    elements, counts = count_elements(whole)
    labels = _Names(whole)
    outcomes += check_periodicity(whole, labels)
    energies = _Energies(whole, ordered)
    units_of: dict[Level, str | None] = {}
    groups = np.concatenate([_group_ids(part, whole) for part in whole])
    poor = [level for level in energies if lacking_elements(level, elements)]
    atoms = isolated_atoms(source, poor, levels) if poor else {}
    for level in ordered:
        zeros = check_values(whole, level)
        outcomes += zeros
        if level in energies:
            of_level = energies[level]
            outcomes += check_repeats(of_level, labels, groups, level, accepted)
            outcomes += check_rounding(of_level, level, FileUnits(unit), accepted)
            own = _self_energies(
                counts, elements, with_self_energies(level, atoms.get(level.id, {}))
            )
            found, units_of[level] = check_energies(
                of_level, labels, counts, own, level, FileUnits(unit), accepted
            )
            outcomes += found
            if not np.isfinite(own).any():  # else their size has told the unit
                outcomes += check_stretches(whole, level, FileUnits(unit), accepted)
            del of_level, own
    for level in ordered:
        # Those of a sample are the same structures with more labels.
        with_forces = [part for part in (*samples, *whole) if level.id in part.forces]
        if not with_forces:
            continue
        units = FileUnits(unit, units_of.get(level), length)
        has_energies = level in energies
        outcomes.append(
            check_forces(with_forces, level, units, has_energies=has_energies, accepted=accepted)
        )
        others = [other for other in energies if has_energies and other is not level]
        outcomes += check_owners(with_forces, level, others, accepted)
        outcomes += check_balance(with_forces, level, accepted)
        outcomes += check_stress(with_forces, level, units)
    if len({*map(str, units_of.values())}) <= 1:  # else their difference says nothing new
        outcomes += check_levels(energies, labels, counts, groups, accepted)
    return CheckReport(source=shown, outcomes=tuple(outcomes))


def pass_gate(
    parts: Structures | Sequence[Structures],
    levels: Levels,
    source: DataPath,
    *,
    accepted: Accepted = NOTHING,
    used: Iterable[str] = (),
    samples: Sequence[Structures] = (),
    n_copies: int | None = None,
) -> CheckReport:
    """The report of `check_structures`, logged; UserError for what is refused.

    What did not simply pass is a warning, which the terminal shows once; of data that ship with
    the package it is known.
    """
    report = check_structures(
        parts,
        levels,
        source,
        accepted=accepted,
        used=used,
        samples=samples,
        n_copies=n_copies,
    )
    report.refuse()
    is_shipped = Path(report.source).parent == FOLDER
    for outcome in report.outcomes:
        write = log.info if is_shipped or outcome.verdict == "passed" else log.warning
        write("%s: %s", report.source, outcome.text)
    return report


def _copies(source: DataPath, levels: Levels, n_copies: int | None) -> list[Outcome]:
    """What was merged: in reading extended XYZ, whose notes say it, and afterwards."""
    outcomes = [
        Outcome(check="reading", verdict="passed", text=f"{note}.")
        for note in data_notes(source, levels=levels)
    ]
    outcomes += [
        Outcome(check="reading", verdict="noted", text=f"{remark}.")
        for remark in data_remarks(source, levels=levels)
    ]
    if n_copies is not None:
        text = f"{n_copies} conformers repeat others; each counts once."
        verdict: Verdict = "noted" if n_copies else "passed"
        values: dict[str, float | int | None] = {"n_copies": n_copies}
        outcomes.append(Outcome(check="copies", verdict=verdict, text=text, values=values))
    return outcomes


def _systems(source: DataPath, levels: Levels, used: set[str], accepted: Accepted) -> list[Outcome]:
    if isinstance(source, Path) and is_comp6_folder(source):
        outcomes: list[Outcome] = []
        for path in sorted(source.glob("*.h5")):
            with open_hdf5(path) as file:
                outcomes += check_systems(file, used, levels, accepted)
        return _unique(outcomes)
    with open_data(source, levels=levels) as file:
        return check_systems(file, used, levels, accepted)


def _unique(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes without those that say the same of another file of a folder."""
    return list({outcome.text: outcome for outcome in outcomes}.values())


def _self_energies(counts: np.ndarray, elements: Sequence[int], level: Level) -> np.ndarray:
    """(n,) sums of self energies, hartree; NaN where an element has none."""
    table = np.array([level.self_energies.get(int(number), np.nan) for number in elements])
    sums = sums_over_atoms(counts, np.nan_to_num(table))
    sums[(counts[:, np.isnan(table)] > 0).any(axis=1)] = np.nan
    return sums


def _group_ids(part: Structures, parts: Sequence[Structures]) -> np.ndarray:
    """(n,) groups by name, the same in all parts."""
    names = {
        name: i for i, name in enumerate(dict.fromkeys(n for p in parts for n in p.group_names))
    }
    return np.array([names[name] for name in part.group_names], np.int32)[part.groups]
