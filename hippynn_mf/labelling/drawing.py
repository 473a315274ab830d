"""Conformers of one molecule by normal modes, torsions and short dynamics, and what is refused.

Each conformer has a generator of random numbers of its own, of the seed, the number of the molecule
and its own number: those of a smaller request are those of a larger one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import networkx
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from pydantic import Field

from hippynn_mf.labelling.harmonic import (
    MOST_DRAWS,
    Minimum,
    draw_harmonic,
    minimum_near,
    round_as_stored,
)
from hippynn_mf.labelling.registry import Named
from hippynn_mf.labelling.torsions import Rotor, bonds_of, relative_distances, rotors_of, turn
from hippynn_mf.schema import StrictKeys
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

LARGEST_FORCE = 1e-3  # eV/Å at a minimum; calculators in single precision reach no less
N_ESCAPES = 3  # from saddle points
# Longest and shortest distance of bound atoms, and shortest of others, over the sum of radii.
BROKEN, SQUEEZED, CLASH = 1.5, 0.6, 1.15
WIDTHS = 4.0  # of the distribution of the harmonic energy, beyond its mean
BARRIER_KCAL_PER_MOL = 10.0  # which a turned bond may add
N_STEPS, TIME_STEP_FS, FRICTION_PER_FS = 100, 0.5, 0.02

CLASHES, TORN, HIGH, NOT_COMPUTED = "clash", "broken", "high", "not_computed"


class Drawing(StrictKeys):
    """What workers are told."""

    named: Named
    seed: int
    temperatures: tuple[float, float]
    energy_cut_kcal_per_mol: float | None = Field(None)


@dataclass(frozen=True)
class Draw:
    """One conformer to draw: of a molecule, by a method, with its number."""

    atoms: Atoms
    molecule: int
    number: int
    method: str


@dataclass(frozen=True)
class Start:
    """A molecule in its minimum: what conformers are drawn from. Energy in eV."""

    minimum: Minimum
    rotors: tuple[Rotor, ...]
    bonds: networkx.Graph
    energy: float


def make(settings: str) -> Callable[[Draw], Mapping[str, Any]]:
    """What computes the record of a conformer, of settings as JSON."""
    asked = Drawing.model_validate_json(settings)
    factory = asked.named.factory()
    kept = factory() if asked.named.is_kept else None

    def calculator() -> Calculator:
        return factory() if kept is None else kept

    @lru_cache(maxsize=8)
    def start_of(molecule: int, numbers: bytes, positions: bytes) -> Start | Exception:
        atoms = Atoms(np.frombuffer(numbers, int), np.frombuffer(positions).reshape(-1, 3))
        try:
            return find_start(atoms, calculator())
        except Exception as error:  # that of each of its conformers, and searched for once
            return error

    def compute(draw: Draw) -> Mapping[str, Any]:
        atoms = draw.atoms
        numbers = np.ascontiguousarray(atoms.numbers, int).tobytes()
        start = start_of(draw.molecule, numbers, np.ascontiguousarray(atoms.positions).tobytes())
        if isinstance(start, Exception):
            raise start
        rng = np.random.default_rng((asked.seed, draw.molecule, draw.number))
        return draw_one(start, draw.method, rng, calculator, asked)

    return compute


def find_start(atoms: Atoms, calculator: Calculator) -> Start:
    """The minimum near a molecule; RuntimeError where there is none, or it is another molecule."""
    bonds = bonds_of(atoms.numbers, atoms.positions)
    if len(atoms) == 1:
        raise RuntimeError("it is a single atom, which has no conformers")
    formula = str(atoms.symbols)
    minimum = minimum_near(
        atoms, formula, calculator=calculator, largest_force=LARGEST_FORCE, n_escapes=N_ESCAPES
    )
    found = bonds_of(minimum.numbers, minimum.positions)
    if set(map(frozenset, found.edges)) != set(map(frozenset, bonds.edges)):
        raise RuntimeError("its bonds change where the calculator finds its minimum")
    return Start(minimum, rotors_of(atoms), found, float(atoms.get_potential_energy()))


def draw_one(
    start: Start,
    method: str,
    rng: np.random.Generator,
    calculator: Callable[[], Calculator],
    asked: Drawing,
) -> dict[str, Any]:
    """Positions (n_atoms, 3) in Å, rounded to float32, their temperature, and what was refused.

    A conformer that is refused is drawn again; RuntimeError after `MOST_DRAWS`.
    """
    refused: Counter[str] = Counter()
    for _ in range(MOST_DRAWS):
        temperature = float(np.exp(rng.uniform(*np.log(asked.temperatures))))
        positions = draw_harmonic(start.minimum, rng, temperatures=(temperature, temperature))
        if method == "torsions":
            positions = _turned(positions, start.rotors, rng)
        reason = wrong_geometry(start, positions)
        if reason is None and method == "dynamics":
            positions = _moved(start, positions, temperature, rng, calculator())
            reason = wrong_geometry(start, positions)
        if reason is None:
            cut = asked.energy_cut_kcal_per_mol or energy_cut(start.minimum, temperature)
            reason = _wrong_energy(start, positions, cut, calculator())
        if reason is None:
            return {
                "positions": positions.tolist(),
                "temperature": temperature,
                "refused": dict(refused),
            }
        refused[reason] += 1
    counts = ", ".join(f"{n} {reason}" for reason, n in refused.items())
    raise RuntimeError(f"{MOST_DRAWS} draws were refused: {counts}")


def energy_cut(minimum: Minimum, temperature: float) -> float:
    """How far above its minimum a conformer of this temperature (K) may be, kcal/mol.

    The harmonic potential energy of n modes has the mean n kT/2 and the width √(n/2) kT.
    """
    n = len(minimum.curvatures)
    thermal = units.kB * temperature / EV_PER_KCAL_PER_MOL
    return thermal * (n / 2 + WIDTHS * np.sqrt(n / 2)) + BARRIER_KCAL_PER_MOL


def wrong_geometry(start: Start, positions: np.ndarray) -> str | None:
    """Why positions are not those of the molecule: atoms clash, or bonds are broken."""
    numbers = start.minimum.numbers
    if not np.isfinite(positions).all():
        return TORN
    distances = relative_distances(numbers, positions)
    is_bond = networkx.to_numpy_array(start.bonds, nodelist=range(len(numbers))) > 0
    others = ~is_bond & ~np.eye(len(numbers), dtype=bool)
    if distances.max(where=is_bond, initial=0) > BROKEN:
        return TORN
    if distances.min(where=is_bond, initial=np.inf) < SQUEEZED:
        return CLASHES
    if distances.min(where=others, initial=np.inf) < CLASH:
        return CLASHES
    return None


def _turned(
    positions: np.ndarray, rotors: tuple[Rotor, ...], rng: np.random.Generator
) -> np.ndarray:
    """Positions with at least one rotor turned by any angle, if there is any."""
    if rotors:
        is_turned = rng.random(len(rotors)) < 0.5
        is_turned[rng.integers(len(rotors))] = True
        for rotor, turns in zip(rotors, is_turned, strict=True):
            if turns:
                positions = turn(positions, rotor, rng.uniform(-np.pi, np.pi))
    return round_as_stored(positions)


def _moved(
    start: Start,
    positions: np.ndarray,
    temperature: float,
    rng: np.random.Generator,
    calculator: Calculator,
) -> np.ndarray:
    """Positions after short Langevin dynamics at a temperature; NaN where it breaks down."""
    atoms = Atoms(start.minimum.numbers, positions, calculator=calculator)
    widths = np.sqrt(start.minimum.masses * units.kB * temperature)
    atoms.set_momenta(widths[:, None] * rng.normal(size=positions.shape))
    atoms.set_constraint(FixCom())
    dynamics = Langevin(
        atoms,
        TIME_STEP_FS * units.fs,
        temperature_K=temperature,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,  # which ASE's own constraint does better
        rng=rng,
    )
    try:
        dynamics.run(N_STEPS)
    except Exception:  # calculators raise what they like where a molecule flies apart
        return np.full_like(positions, np.nan)
    return round_as_stored(atoms.positions)


def _wrong_energy(
    start: Start, positions: np.ndarray, cut: float, calculator: Calculator
) -> str | None:
    atoms = Atoms(start.minimum.numbers, positions, calculator=calculator)
    try:
        energy = float(atoms.get_potential_energy())
    except Exception:  # calculators raise what they like
        return NOT_COMPUTED
    is_low = (energy - start.energy) / EV_PER_KCAL_PER_MOL <= cut  # which NaN is not
    return None if is_low else HIGH
