"""Structures of several files as one, each conformer in the split that it had first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hippynn_mf.data.matching import find_shared
from hippynn_mf.data.splits import SPLITS
from hippynn_mf.data.structures import Structures
from hippynn_mf.ragged import Places, Ragged

Parts = Mapping[str, Structures]


def join_structures(several: Sequence[Structures]) -> Structures:
    """The structures one after another, with NaN for labels that some of them do not have.

    Names of groups that two have are told apart by a number; `rows` stay as they are. Without any
    structure that has a cell, there are none.
    """
    sizes = np.concatenate([each.n_atoms for each in several])
    places = Places.of_sizes(sizes)

    def of_atoms(arrays: Sequence[Ragged | None], width: int) -> Ragged:
        flat = []
        for each, array in zip(several, arrays, strict=True):
            n = each.species.places.n_atoms
            if array is None:
                flat.append(np.full((n, width), np.nan, np.float32))
            else:
                flat.append(array.compact().values.reshape(n, width))
        values = np.concatenate(flat)
        return Ragged(values[:, 0] if width == 1 else values, places)

    def of_structures(arrays: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
        return np.concatenate(
            [
                np.full((len(each), *shape), np.nan) if array is None else array
                for each, array in zip(several, arrays, strict=True)
            ]
        )

    names = [name for each in several for name in each.group_names]
    shifts = np.cumsum([0, *(len(each.group_names) for each in several)])
    cells = None
    if any(each.cells is not None for each in several):
        cells = np.concatenate(
            [np.zeros((len(e), 3, 3)) if e.cells is None else e.cells for e in several]
        )
    keys = {kind: dict.fromkeys(name for each in several for name in getattr(each, kind))
            for kind in ("energies", "forces", "stress")}  # fmt: skip
    return Structures(
        species=of_atoms([each.species for each in several], 1),
        positions=of_atoms([each.positions for each in several], 3),
        energies={
            k: of_structures([each.energies.get(k) for each in several], ())
            for k in keys["energies"]
        },
        forces={k: of_atoms([each.forces.get(k) for each in several], 3) for k in keys["forces"]},
        stress={
            k: of_structures([each.stress.get(k) for each in several], (3, 3))
            for k in keys["stress"]
        },
        cells=cells,
        groups=np.concatenate(
            [each.groups + shift for each, shift in zip(several, shifts, strict=False)]
        ),
        rows=np.concatenate([each.rows for each in several]),
        group_names=tuple(
            name if names.index(name) == place else f"{name} ({place})"
            for place, name in enumerate(names)
        ),
    )


def sorted_into(parts: Parts, before: Parts) -> tuple[dict[str, Structures], dict[str, int]]:
    """New structures in the splits that they have already, and how many changed theirs.

    What is the same conformer (see `matching`) as one of a split of `before` goes to that split;
    the others stay where they are. The second result counts, for each split, the structures that
    are in it for this reason.
    """
    moved: dict[str, list[Structures]] = {name: [] for name in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    for name, part in parts.items():
        free = np.ones(len(part), bool)
        for split in SPLITS:
            shared = free & find_shared(part, before[split])
            if shared.any():
                counts[split] += int(shared.sum())
                moved[split].append(part[shared])
                free &= ~shared
        moved[name].insert(0, part[free])
    return {name: join_structures(each) for name, each in moved.items()}, counts
