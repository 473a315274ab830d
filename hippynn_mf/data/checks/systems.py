"""What a file says of its structures beside labels: charges, spins, weights, and what is not used.

Read from the file itself, for no array of structures has it. In HDF5 these are datasets of a group,
one value for the group or one for each conformer; extended XYZ becomes such a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import h5py
import numpy as np

from hippynn_mf.data.checks.report import Accepted, Outcome, Verdict, list_some
from hippynn_mf.data.formats.system_keys import CHARGES, PERIODIC, SPINS, WEIGHTS
from hippynn_mf.keys import CELL
from hippynn_mf.levels import Levels

STRUCTURE = ("atomic_numbers", "coordinates", "species", "lot", CELL, *PERIODIC)
JUDGED = {*CHARGES, *SPINS, *WEIGHTS}
N_KEYS = 12  # unused keys that a text names


def check_systems(
    file: h5py.File, used: set[str], levels: Levels, accepted: Accepted
) -> list[Outcome]:
    """Outcomes for charges, spins, weights and unused keys of an open file, in either layout."""
    wrong: dict[str, list[str]] = {"system": [], "weights": []}
    found: Counter[str] = Counter()
    meanings: dict[str, set[float]] = {}
    for group in groups_of(file):
        keys = list(group)
        found.update(keys)
        for key in JUDGED.intersection(keys):
            name = group.name.lstrip("/")
            values = np.asarray(group[key][()])
            if values.dtype.kind not in "iufb":
                continue
            values = values.astype(np.float64)
            values = values[np.isfinite(values)]
            if key in CHARGES:
                kind, right = "system", values == 0
            elif key in SPINS:
                is_even = "atomic_numbers" not in group or _is_even(group["atomic_numbers"][()])
                singlet = (values == 1) if SPINS[key] else (values == 0) | (values == 1)
                kind, right = "system", singlet & is_even
                meanings.setdefault(key, set()).update(values[right].tolist())
            else:
                kind, right = "weights", values == 1
            if not right.all():
                shown = ", ".join(f"{v:g}" for v in np.unique(values)[:5])
                wrong[kind].append(f"{key} of group {name} is {shown}")
    # A spin of 1 may be S, that of a triplet, or a multiplicity; beside 0 it is S.
    wrong["system"] += [f"{key} is 0 and 1" for key, spins in meanings.items() if len(spins) > 1]
    outcomes = []
    if wrong["system"]:
        text = (
            "structures are charged, or no singlets, or both are mixed: "
            f"{list_some(wrong['system'])}. A model knows elements and positions only, so "
            "structures of other charges or spins are the same to it."
        )
        if not accepted.charged:
            text += (
                " Remove them; if all have the same charge and spin, train with --accept-charged."
            )
        verdict: Verdict = "accepted" if accepted.charged else "refused"
        outcomes.append(Outcome(check="charge, spin", verdict=verdict, text=text))
    if wrong["weights"]:
        text = (
            f"weights of structures are not honoured: {list_some(wrong['weights'])}. Remove the "
            "key, or set it to 1; levels are weighted with --label-fraction and hyperparameters."
        )
        outcomes.append(Outcome(check="weights", verdict="refused", text=text))
    known = {key for level in levels for key in (*level.energy_keys, level.energy_name)}
    known |= {level.force_key for level in levels if level.force_key}
    known |= {level.stress_name for level in levels}
    others = sorted(set(found) - used - known - {*STRUCTURE} - JUDGED)
    if others:
        shown = ", ".join(others[:N_KEYS]) + (", …" if len(others) > N_KEYS else "")
        text = f"not used: {len(others)} keys, {shown}."
        outcomes.append(Outcome(check="unused", verdict="noted", text=text))
    return outcomes


def _is_even(numbers: np.ndarray) -> bool:
    """Whether atoms have an even number of electrons in all."""
    return int(np.ravel(numbers).astype(np.int64).sum()) % 2 == 0


def groups_of(file: h5py.File) -> Iterator[h5py.Group]:
    """The groups with structures, of the ANI-1x layout or one level deeper of COMP6."""
    for top in file.values():
        if not isinstance(top, h5py.Group):
            continue
        if "coordinates" in top:
            yield top
        else:
            yield from (item for item in top.values() if isinstance(item, h5py.Group))
