"""Which structures of a pool to label next at an expensive level.

Criteria say how much a label would tell; which of them is better than chance depends on model and
pool, and is to be compared with `random`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from ase import Atoms
from tqdm import tqdm

from hippynn_mf.data.matching import Batch as Conformers
from hippynn_mf.data.matching import find_first
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Level
from hippynn_mf.potentials.batch import in_batches, neutral
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.uncertainty.features import features_of

BATCH_SIZE = 64
FIRST_CUT = 5  # of `spread-diverse`: so many times what is chosen come from the largest spread


@dataclass(frozen=True)
class Pool:
    """What a model says of the structures of a pool, and of those that are labelled already.

    Attributes:
        spread: (n,) standard deviation (n − 1) of the level's energy over the members, in eV, over
            the square root of the number of atoms (Smith et al., J. Chem. Phys. 148, 241733,
            2018); None of one member.
        difference: (n,) size of the difference of the level from the level below, in eV, without
            a sum of atomic contributions, over the square root of the number of atoms; None of the
            lowest level.
        features: (n, n_features) means over the atoms, each scaled to a spread of 1 in the pool.
        labelled: (m, n_features) of structures with labels.
    """

    spread: np.ndarray | None
    difference: np.ndarray | None
    features: np.ndarray
    labelled: np.ndarray


@dataclass(frozen=True)
class Selection:
    """The chosen structures of a pool, best first.

    Attributes:
        rows: (k,) their places in the pool.
        scores: (k,) what the criterion says of them; larger is better.
        n_pool: structures of the pool.
        n_labelled: of them are copies of labelled ones, and left out.
        n_copies: of them are copies of others of the pool, and left out.
    """

    rows: np.ndarray
    scores: np.ndarray
    n_pool: int
    n_labelled: int
    n_copies: int


def select(
    evaluator: Evaluator,
    pool: Sequence[Atoms],
    level: str | Level,
    n: int,
    *,
    by: str = "diverse",
    labelled: Sequence[Atoms] = (),
    seed: int = 0,
) -> Selection:
    """The `n` structures of a pool whose labels at a level would tell most, by a criterion.

    Structures that are the same as a labelled one or as an earlier one of the pool, however they
    are written, are left out and counted.

    Args:
        evaluator: of the model that is to be improved.
        pool: structures without labels.
        level: that is to be computed.
        n: how many.
        by: one of `CRITERIA`.
        labelled: structures that have labels already, or that tests are made of.
        seed: of chance, for `random` and for the first structure of `diverse`.

    Raises:
        UserError: for an unknown criterion or level, charged structures, a criterion that the model
            has not, and a pool with fewer new structures than are asked for.
    """
    if by not in CRITERIA:
        raise UserError(unknown_name_message("criterion", by, CRITERIA))
    chosen_level = evaluator.potential.level(level)
    if n < 1:
        raise UserError(f"At least one structure is chosen; found n={n}.")
    all_structures = [*neutral([*labelled, *pool])]
    first = find_first([_alone(atoms) for atoms in all_structures])[len(labelled) :]
    place = np.arange(len(labelled), len(all_structures))
    is_labelled, is_new = first < len(labelled), first == place
    rows = np.flatnonzero(is_new)
    counts = len(pool), int(is_labelled.sum()), int((~is_new & ~is_labelled).sum())
    if len(rows) < n:
        raise UserError(
            f"The pool has {len(pool)} structures, of which {counts[1]} are labelled already and "
            f"{counts[2]} are copies of others: {len(rows)} are left, and {n} are asked for. Ask "
            "for fewer, or make a larger pool."
        )
    if by == "random":  # for which no model is asked
        order = np.random.default_rng(seed).permutation(len(rows))[:n]
        return Selection(rows[order], np.zeros(n), *counts)
    described = describe(evaluator, [pool[row] for row in rows.tolist()], chosen_level, labelled)
    order, scores = CRITERIA[by](described, n, np.random.default_rng(seed))
    return Selection(rows[order], scores, *counts)


def describe(
    evaluator: Evaluator, pool: Sequence[Atoms], level: Level, labelled: Sequence[Atoms]
) -> Pool:
    """What the model says of a pool and of labelled structures."""
    levels = evaluator.potential.levels
    place = levels.index(level)
    lower = levels[place - 1] if place else None
    spreads, differences, features = [], [], []
    structures = [*pool, *labelled]
    with tqdm(total=len(structures), unit="structure", delay=1, disable=None) as progress:
        for batch in in_batches(structures, BATCH_SIZE):
            systems = Systems.of(batch, evaluator.cutoff, evaluator.species)
            evaluator.refuse_other_elements(systems, level)
            surfaces = evaluator(systems)
            energies = surfaces.energies[level.id]
            sizes = np.array(systems.sizes)
            if len(energies) > 1:
                spreads.append(energies.std(axis=0, ddof=1) / np.sqrt(sizes))
            if lower is not None:
                differences.append((energies - surfaces.energies[lower.id]).mean(axis=0))
            features.append(features_of(evaluator, systems) / sizes[:, None])
            progress.update(len(batch))
    n = len(pool)
    of_all = np.concatenate(features)
    scale = of_all[:n].std(axis=0)
    of_all = of_all / np.where(scale > 0, scale, 1.0)
    return Pool(
        spread=np.concatenate(spreads)[:n] if spreads else None,
        difference=_composed(np.concatenate(differences)[:n], pool) if differences else None,
        features=of_all[:n],
        labelled=of_all[n:],
    )


def _composed(differences: np.ndarray, pool: Sequence[Atoms]) -> np.ndarray:
    """Sizes of differences (n,) without a fitted sum of atomic contributions, over √n_atoms.

    NaN if any is: the level below may not know an element of the pool.
    """
    if not np.isfinite(differences).all():
        return np.full(len(differences), np.nan)
    elements = sorted({int(z) for atoms in pool for z in atoms.numbers})
    counts = np.array([[(atoms.numbers == z).sum() for z in elements] for atoms in pool], float)
    fit, *_ = np.linalg.lstsq(counts, differences, rcond=None)
    return np.asarray(np.abs(differences - counts @ fit) / np.sqrt(counts.sum(axis=1)))


def farthest(
    features: np.ndarray, n: int, labelled: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are far from each other and from what is labelled, and how far each was.

    The first row is the farthest from all that is labelled, or drawn where nothing is.
    """
    nearest = np.full(len(features), np.inf)
    for known in labelled:
        nearest = np.minimum(nearest, np.linalg.norm(features - known, axis=1))
    rows, scores = [], []
    for _ in range(n):
        is_first = not np.isfinite(nearest).any()
        row = int(generator.integers(len(features))) if is_first else int(nearest.argmax())
        rows.append(row)
        scores.append(0.0 if is_first else float(nearest[row]))
        apart = np.linalg.norm(features - features[row], axis=1)
        nearest = np.minimum(nearest, apart)
        nearest[rows] = -1.0  # also of a structure with the features of another
    return np.array(rows), np.array(scores)


def _largest(values: np.ndarray | None, n: int, missing: str) -> tuple[np.ndarray, np.ndarray]:
    if values is None or not np.isfinite(values).all():
        raise UserError(missing)
    rows = np.argsort(-values, kind="stable")[:n]
    return rows, values[rows]


NO_SPREAD = (
    "The model has one member, and no spread. Train several seeds and export them together, or "
    "choose by diverse or random."
)
NO_DIFFERENCE = (
    "The lowest level has no level below, and no difference from it; nor has one whose level below "
    "does not know an element of the pool. Choose by diverse or random."
)

Criterion = Callable[[Pool, int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def _by_spread(pool: Pool, n: int, _: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _largest(pool.spread, n, NO_SPREAD)


def _by_difference(pool: Pool, n: int, _: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return _largest(pool.difference, n, NO_DIFFERENCE)


def _by_diversity(
    pool: Pool, n: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    return farthest(pool.features, n, pool.labelled, generator)


def _by_both(pool: Pool, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    candidates, _ = _largest(pool.spread, FIRST_CUT * n, NO_SPREAD)
    rows, scores = farthest(pool.features[candidates], n, pool.labelled, generator)
    return candidates[rows], scores


def _by_chance(pool: Pool, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return generator.permutation(len(pool.features))[:n], np.zeros(n)


# What is largest of the chosen structures, or how they are chosen.
CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "diverse": _by_diversity,
        "spread": _by_spread,
        "spread-diverse": _by_both,
        "difference": _by_difference,
        "random": _by_chance,
    }
)


def _alone(atoms: Atoms) -> Conformers:
    """One structure as the search for copies takes it."""
    cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    return Conformers(
        atoms.numbers.astype(np.uint8),
        1,
        lambda _: atoms.positions[None],
        cell[None] if atoms.pbc.any() else None,
    )
