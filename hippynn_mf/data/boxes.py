"""Molecules in boxes: what sees none of its images is a molecule."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hippynn_mf.data.structures import Structures, with_cells

log = logging.getLogger(__name__)


def without_lonely_cells(
    parts: Mapping[str, Structures], cutoff: float, source: object
) -> dict[str, Structures]:
    """The parts, in which periodic structures without an image within the cut-off are molecules.

    Energies and forces of a network are the same either way; a stress of such a structure is not
    used. `cutoff` in Å; the log says of the `source` how many there are.
    """
    found = {}
    n_molecules = n_stress = 0
    for name, part in parts.items():
        if part.cells is None:
            found[name] = part
            continue
        is_lonely = part.is_periodic & ~_sees_images(part, cutoff)
        n_molecules += int(is_lonely.sum())
        stress = {}
        for level_id, values in part.stress.items():
            n_stress += int((is_lonely & np.isfinite(values).all(axis=(1, 2))).sum())
            stress[level_id] = np.where(is_lonely[:, None, None], np.nan, values)
        cells = np.where(is_lonely[:, None, None], 0.0, part.cells)
        found[name] = replace(part, cells=cells, stress=stress)
    if n_molecules:
        text = f"; {n_stress} labels of their stress are not used" if n_stress else ""
        log.warning(
            "%s: %d structures have a cell and no image within %g Å: they are molecules%s",
            source,
            n_molecules,
            cutoff,
            text,
        )
    return with_cells(found)


def _sees_images(part: Structures, cutoff: float) -> np.ndarray:
    """(n,) whether an atom has a neighbour in another cell."""
    # Not loaded where no structure is periodic, as by commands that only look at data.
    from hippynn_mf.neighbours import NeighbourLists

    lists = NeighbourLists.of(part.species, part.positions, cutoff, part.cells)
    assert lists.images is not None
    structure = np.repeat(np.arange(len(part)), lists.places.sizes)
    sees = np.zeros(len(part), bool)
    sees[structure[lists.images.any(axis=1)]] = True
    return sees


def as_molecules(structures: Structures) -> Structures:
    """The structures without cells, and without a stress."""
    return replace(structures, cells=None, stress={})
