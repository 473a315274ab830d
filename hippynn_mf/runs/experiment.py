"""An experiment: one row of the paper's Table 1, or a user's own."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hippynn_mf.errors import UserError, errors_about, unknown_name_message
from hippynn_mf.labels import Labels, parse_labels
from hippynn_mf.levels import NAME_PATTERN, PAPER_LEVELS, Level, get_level
from hippynn_mf.training.strategies import STRATEGIES, Phase, Strategy, get_strategy

# What the strategies are seen beside: the low level alone, the high one alone, and both together.
BASELINES = ("SF-DZ/EF", "SF-CC/E", "MF-DZ/E-CC/E", "MF-DZ/EF-CC/E")
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
        prefix: how the levels are learned, see `strategies.py`; by default `SF` for one level and
            `MF` for several.
        published: the paper's result, where a table of its main text has one.
        common_levels: with `rows="common"`, structures must have the energies of all of these.
    """

    row: int
    labels: Mapping[str, str]
    published: Published | None = None
    common_levels: tuple[Level, ...] = PAPER_LEVELS
    prefix: str | None = None

    @property
    def resolved_labels(self) -> Labels:
        """The labels with levels resolved, by rank; a UserError if one is unknown."""
        return parse_labels(self.labels)

    @property
    def strategy(self) -> Strategy:
        """How the levels are learned; a UserError if it does not learn so many."""
        labels = self.resolved_labels
        strategy = get_strategy(self.prefix or ("SF" if len(labels) == 1 else "MF"))
        strategy.require_levels(labels)
        return strategy

    @property
    def phases(self) -> Sequence[Phase]:
        """The trainings of a run, one after another."""
        return self.strategy.phases(self.resolved_labels)

    @property
    def maintained_levels(self) -> frozenset[Level]:
        """The levels whose heads are what they were trained to be.

        Fine-tuning moves the trunk below the heads that it does not train.
        """
        last = self.resolved_labels if self.strategy.has_second_network else self.phases[-1].labels
        return frozenset(last)

    @property
    def name(self) -> str:
        """The paper's name, as `MF-DZ/EF-CC/E`."""
        parts = [f"{level.label}/{value}" for level, value in self.resolved_labels.items()]
        return "-".join([self.strategy.prefix, *parts])

    @property
    def slug(self) -> str:
        """The name as a file name, as `mf_dz_ef_cc_e`."""
        return self.name.lower().replace("-", "_").replace("/", "_")

    @property
    def script(self) -> str:
        """The script of an experiment of this package, relative to the top of the repository."""
        folder = "experiments" if self.strategy.prefix in ("SF", "MF") else "experiments/strategies"
        return f"{folder}/{self.slug}.py"

    @property
    def relative_cost(self) -> float:
        """Measured cost of training on a structure, relative to one level with forces."""
        return sum(
            0.5 + 0.47 * sum(p.forces for p in phase.labels.values()) + 0.05 * len(phase.labels)
            for phase in self.phases
        )


def table1() -> list[Experiment]:
    """The 17 experiments of Table 1, in its order, from the scripts under `experiments/`."""
    return _experiments_in("hippynn_mf.experiments")


def beyond_table1() -> list[Experiment]:
    """The strategies that Table 1 does not have, from the scripts `experiments/strategies/`."""
    return _experiments_in("hippynn_mf.experiments.strategies")


def strategies() -> list[Experiment]:
    """Every strategy to learn CC energies with DZ labels, those of Table 1 first."""
    return [*(get_experiment(name) for name in BASELINES), *beyond_table1()]


# Names that stand for several experiments.
GROUPS: Mapping[str, Callable[[], list[Experiment]]] = {
    "table1": table1,
    "strategies": strategies,
}


def _experiments_in(name: str) -> list[Experiment]:
    package = importlib.import_module(name)
    modules = [
        importlib.import_module(f"{name}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg
    ]
    return sorted((module.EXPERIMENT for module in modules), key=lambda e: e.row)


def get_experiment(name: str) -> Experiment:
    """The experiment of the package with this name or slug, or that of other levels it spells.

    Raises UserError as `parse_experiment`.
    """
    experiments = [*table1(), *beyond_table1()]
    for experiment in experiments:
        if name in (experiment.name, experiment.slug):
            return experiment
    parsed = parse_experiment(name)
    # Levels may be named by their ids, and in any order.
    return next((e for e in experiments if e.name == parsed.name), parsed)


def parse_experiment(name: str) -> Experiment:
    """The experiment that a name spells, as `SF-TZ/EF` or `TL-GFN1/EF-GFN2/E`.

    Raises UserError for a name of another form, which lists those of the package, for an unknown
    level, which lists the known ones, and for a number of levels that the strategy cannot learn.
    """
    spelt = re.fullmatch(rf"({'|'.join(STRATEGIES)})((?:{PART})+)", name)
    if spelt is None:
        known = [experiment.name for experiment in (*table1(), *beyond_table1())]
        raise UserError(
            unknown_name_message("experiment", name, known)
            + " Those of other levels are spelt alike: SF-LEVEL/E or EF for one level, "
            f"MF-LEVEL/EF-LEVEL/E for several; strategies are {', '.join(STRATEGIES)}."
        )
    parts = re.findall(PART, spelt[2])
    with errors_about(f"Experiment {name!r}"):
        levels = [get_level(level) for level, _ in parts]
        if len(set(levels)) < len(levels):
            raise UserError("a level is named twice. Name every level once.")
        experiment = Experiment(row=0, labels=dict(parts), prefix=spelt[1])
        _ = experiment.phases  # refuses what the strategy cannot learn
    return experiment
