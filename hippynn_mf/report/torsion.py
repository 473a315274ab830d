"""Picture of a torsion: energies of every level, and how far lower ones are from the highest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hippynn_mf.files import replace_when_complete, write_json
from hippynn_mf.levels import Level, highest_level
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.torsion import TorsionScan
from hippynn_mf.report.level_colors import level_color
from hippynn_mf.schema import Strict

STEP_OF_TICKS = 60  # degrees


class TorsionCurve(Strict):
    """Mean over the members along the torsion, and their standard deviation (n − 1), kcal/mol.

    `minus` is the level that is subtracted, if any. One member has no standard deviation.
    """

    level: str
    minus: str | None
    mean: list[float]
    std: list[float] | None


class TorsionData(Strict):
    """The numbers of the figure; angles are in degrees."""

    format: int = 1
    molecule: str
    n_members: int
    angles: list[float]
    curves: list[TorsionCurve]


def draw_torsion(potential: Potential, scan: TorsionScan) -> tuple[Figure, TorsionData]:
    """Energies of every level above their mean, and, with several levels, their differences.

    Lines are means over the members, bands one standard deviation to both sides.
    """
    levels = potential.levels
    highest = highest_level(levels)
    curves = [_curve(level, None, scan.energies[level.id]) for level in levels]
    for level in levels:
        if level is not highest:
            difference = scan.difference(level.id, highest.id)
            curves.append(_curve(level, highest, difference))
    n_panels = 1 if len(levels) == 1 else 2
    figure = Figure(figsize=(3.6 * n_panels + 0.2, 3.3), layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    for curve in curves:
        axes = panels[0 if curve.minus is None else 1]
        level = potential.level(curve.level)
        name = level.label if curve.minus is None else f"{level.label} − {highest.label}"
        _draw(axes, scan.angles, curve, name, level_color(level, levels))
    panels[0].set_ylabel("energy above its mean (kcal/mol)")
    if n_panels > 1:
        panels[1].set_ylabel("difference of levels (kcal/mol)")
        panels[1].axhline(0, color="0.6", linewidth=0.8, zorder=0)
    for axes in panels:
        first, last = scan.angles.min(), scan.angles.max()
        start = np.ceil(first / STEP_OF_TICKS) * STEP_OF_TICKS
        axes.set_xticks(np.arange(start, last + 1e-6, STEP_OF_TICKS))
        axes.set_xlabel("dihedral (degrees)")
        axes.legend(frameon=False, fontsize=8)
    n_members = len(potential.members)
    molecule = scan.structures[0].get_chemical_formula(mode="hill")
    spread = f", mean ± std of {n_members} members" if n_members > 1 else ""
    figure.suptitle(f"{molecule}: rigid torsion{spread}", size=10)
    data = TorsionData(
        molecule=molecule, n_members=n_members, angles=scan.angles.tolist(), curves=curves
    )
    return figure, data


def write_torsion(potential: Potential, scan: TorsionScan, path: Path) -> list[Path]:
    """Write the figure, in the format of the suffix, and its numbers as JSON beside it."""
    figure, data = draw_torsion(potential, scan)
    numbers = path.with_suffix(".json")
    with replace_when_complete(path) as partial:
        figure.savefig(partial, format=path.suffix.removeprefix("."), dpi=150)
    write_json(numbers, data.model_dump())
    return [path, numbers]


def _curve(level: Level, minus: Level | None, energies: np.ndarray) -> TorsionCurve:
    several = len(energies) > 1
    return TorsionCurve(
        level=level.id,
        minus=None if minus is None else minus.id,
        mean=energies.mean(axis=0).tolist(),
        std=energies.std(axis=0, ddof=1).tolist() if several else None,
    )


def _draw(axes: Axes, angles: np.ndarray, curve: TorsionCurve, name: str, color: str) -> None:
    mean = np.array(curve.mean)
    axes.plot(angles, mean, color=color, label=name, linewidth=1.6)
    if curve.std is not None:
        std = np.array(curve.std)
        axes.fill_between(angles, mean - std, mean + std, color=color, alpha=0.18, linewidth=0)
