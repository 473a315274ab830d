"""An experiment: one row of the paper's Table 1, or a user's own."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hippynn_mf.errors import UserError, errors_about, unknown_name_message
from hippynn_mf.labels import Labels, parse_labels
from hippynn_mf.levels import NAME_PATTERN, PAPER_LEVELS, Level, get_level

# A part of a name: a level, and the labels that it is trained on.
PART = rf"-({NAME_PATTERN})/(EF?)"


@dataclass(frozen=True)
class Published:
    """What the paper reports: a table, and mean and 95 % half-width of its two RMSEs.

    `energy` is in kcal/mol; `other` is the force RMSE in kcal/mol/Å (tables 2 and 3) or the
    conformer energy RMSE in kcal/mol (table 4).
    """

    table: int
    energy: tuple[float, float]
    other: tuple[float, float]


@dataclass(frozen=True)
class Experiment:
    """Which labels are trained on, by level; everything else is a hyperparameter.

    Attributes:
        row: position in Table 1; 0 for experiments that are not there.
        labels: level → `"E"` or `"EF"`.
        published: the paper's result, where a table of its main text has one.
        common_levels: with `rows="common"`, structures must have the energies of all of these.
    """

    row: int
    labels: Mapping[str, str]
    published: Published | None = None
    common_levels: tuple[Level, ...] = PAPER_LEVELS

    @property
    def resolved_labels(self) -> Labels:
        """The labels with levels resolved, by rank; a UserError if one is unknown."""
        return parse_labels(self.labels)

    @property
    def name(self) -> str:
        """The paper's name, as `MF-DZ/EF-CC/E`."""
        parts = [f"{level.label}/{value}" for level, value in self.resolved_labels.items()]
        return "-".join(["SF" if len(parts) == 1 else "MF", *parts])

    @property
    def slug(self) -> str:
        """The name as a file name, as `mf_dz_ef_cc_e`."""
        return self.name.lower().replace("-", "_").replace("/", "_")

    @property
    def script(self) -> str:
        """The script of a row of Table 1, relative to the top of the repository."""
        return f"experiments/{self.slug}.py"

    @property
    def relative_cost(self) -> float:
        """Measured cost of a training step, relative to one level with forces."""
        n_forces = sum(properties.forces for properties in self.resolved_labels.values())
        return 0.5 + 0.47 * n_forces + 0.05 * len(self.labels)


def table1() -> list[Experiment]:
    """The 17 experiments of Table 1, in its order, from the scripts under `experiments/`."""
    package = importlib.import_module("hippynn_mf.experiments")
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    return sorted((module.EXPERIMENT for module in modules), key=lambda e: e.row)


def get_experiment(name: str) -> Experiment:
    """The experiment of Table 1 with this name or slug, or that of other levels that it spells.

    Raises UserError as `parse_experiment`.
    """
    experiments = table1()
    for experiment in experiments:
        if name in (experiment.name, experiment.slug):
            return experiment
    parsed = parse_experiment(name)
    # Levels may be named by their ids, and in any order.
    return next((e for e in experiments if e.name == parsed.name), parsed)


def parse_experiment(name: str) -> Experiment:
    """The experiment that a name spells, as `SF-TZ/EF` or `MF-GFN1/EF-GFN2/E`.

    Raises UserError for a name of another form, which lists those of Table 1, for an unknown level,
    which lists the known ones, and for a number of levels that is not that of SF or MF.
    """
    if not re.fullmatch(rf"[SM]F(?:{PART})+", name):
        raise UserError(
            unknown_name_message("experiment", name, [e.name for e in table1()])
            + " Those of other levels are spelt alike: SF-LEVEL/E or EF for one level, "
            "MF-LEVEL/EF-LEVEL/E for several."
        )
    parts = re.findall(PART, name)
    with errors_about(f"Experiment {name!r}"):
        levels = [get_level(level) for level, _ in parts]
        if len(set(levels)) < len(levels):
            raise UserError("a level is named twice. Name every level once.")
        if (len(levels) == 1) != name.startswith("SF"):
            raise UserError(
                f"it has {len(levels)} level{'s' if len(levels) > 1 else ''}. Experiments of one "
                "level begin with SF, those of several with MF."
            )
    return Experiment(row=0, labels=dict(parts))
