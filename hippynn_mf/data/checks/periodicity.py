"""One structure there twice: periodic with the labels of one level, open with those of another."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from hippynn_mf.data.checks.report import Outcome
from hippynn_mf.data.matching import Batch, batches_of, find_first
from hippynn_mf.data.structures import Structures

REMEDY = (
    "All levels of a structure have one cell: write it alike for all of them, or train on "
    "everything as molecules with --ignore-cell."
)


def check_periodicity(parts: Sequence[Structures], names: Sequence[str]) -> list[Outcome]:
    """An outcome if structures have the atoms of others, other periodicity, and other levels.

    Labels of one level for both are no mistake: a crystal and a molecule of it at the same places
    are two structures. Atoms are compared where they are written, so one that is wrapped into its
    cell is not recognised.

    Args:
        parts: the structures.
        names: of all of them, for messages.
    """
    pbc = np.concatenate([part.pbc for part in parts])
    if (pbc == pbc[:1]).all():
        return []
    rows, batches = _of_several_kinds(parts, pbc)
    if not batches:
        return []
    has_label = _labelled(parts)
    copies: defaultdict[int, list[int]] = defaultdict(list)
    for row, first in zip(rows, rows[find_first(batches)], strict=True):
        copies[int(first)].append(int(row))
    found = [
        (one, two)
        for same in copies.values()
        for one, two in itertools.pairwise(same)
        if (pbc[one] != pbc[two]).any() and not (has_label[:, one] & has_label[:, two]).any()
    ]
    if not found:
        return []
    one, two = found[0]
    text = (
        f"{len(found)} structures are there twice, with labels of different levels and different "
        f"periodicity, as {names[one]} ({_axes(pbc[one])}) and {names[two]} ({_axes(pbc[two])}). "
        f"{REMEDY}"
    )
    return [Outcome(check="periodicity", verdict="refused", text=text)]


def _labelled(parts: Sequence[Structures]) -> np.ndarray:
    """(n_levels, n) which structures of all parts have the energy of each level."""
    levels = dict.fromkeys(name for part in parts for name in part.energies)
    known = [
        [
            np.isfinite(part.energies[name]) if name in part.energies else np.zeros(len(part), bool)
            for part in parts
        ]
        for name in levels
    ]
    return np.array([np.concatenate(of_level) for of_level in known])


def _of_several_kinds(
    parts: Sequence[Structures], pbc: np.ndarray
) -> tuple[np.ndarray, list[Batch]]:
    """The structures, as molecules, whose elements occur with several kinds of periodicity.

    Their numbers through all parts, in the order of the batches.
    """
    by_elements: defaultdict[bytes, list[tuple[np.ndarray, Batch]]] = defaultdict(list)
    start = 0
    for part in parts:
        for rows, batch in batches_of(part):
            by_elements[np.sort(batch.numbers).tobytes()].append((start + rows, batch))
        start += len(part)
    chosen = [
        each
        for several in by_elements.values()
        if len(np.unique(pbc[np.concatenate([rows for rows, _ in several])], axis=0)) > 1
        for each in several
    ]
    if not chosen:
        return np.empty(0, np.int64), []
    rows = np.concatenate([rows for rows, _ in chosen])
    return rows, [batch.only(np.arange(batch.size)) for _, batch in chosen]


def _axes(pbc: np.ndarray) -> str:
    """Along which axes a structure is periodic, in words."""
    return f"periodic along {', '.join(np.array(list('abc'))[pbc])}" if pbc.any() else "open"
