"""The paper's Table 1, and the strategies beside it: one script under `experiments/` for each."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.runs.experiment import Experiment, parse_experiment

N_ROWS = 17  # of Table 1
# What the strategies are seen beside: the low level alone, the high one alone, and both together.
BASELINES = ("SF-DZ/EF", "SF-CC/E", "MF-DZ/E-CC/E", "MF-DZ/EF-CC/E")


@dataclass(frozen=True)
class Published:
    """What the paper reports: a table, and mean and 95 % half-width of its two RMSEs.

    `energy` is in kcal/mol; `other` is the force RMSE in kcal/mol/Å (tables 2 and 3) or the
    conformer energy RMSE in kcal/mol (table 4).
    """

    table: int
    energy: tuple[float, float]
    other: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class PaperExperiment(Experiment):
    """An experiment with a script under `experiments/`.

    Attributes:
        row: position in Table 1; the strategies beyond it are counted on.
        published: the paper's result, where a table of its main text has one.
    """

    row: int
    published: Published | None = None

    @property
    def script(self) -> str:
        """Its script, relative to the top of the repository."""
        folder = "experiments" if self.row <= N_ROWS else "experiments/strategies"
        return f"{folder}/{self.slug}.py"


def table1() -> list[PaperExperiment]:
    """The 17 experiments of Table 1, in its order, from the scripts under `experiments/`."""
    return _experiments_in("hippynn_mf.experiments")


def beyond_table1() -> list[PaperExperiment]:
    """The strategies that Table 1 does not have, from the scripts `experiments/strategies/`."""
    return _experiments_in("hippynn_mf.experiments.strategies")


def strategies() -> list[PaperExperiment]:
    """Every strategy to learn CC energies with DZ labels, those of Table 1 first."""
    rows = {experiment.name: experiment for experiment in table1()}
    return [*(rows[name] for name in BASELINES), *beyond_table1()]


# Names that stand for several experiments.
GROUPS: Mapping[str, Callable[[], list[PaperExperiment]]] = {
    "table1": table1,
    "strategies": strategies,
}


def get_experiment(name: str, *, levels: Levels = KNOWN_LEVELS) -> Experiment:
    """The experiment of the package with this name or slug, or that of other levels it spells.

    Raises UserError as `parse_experiment`; for a name of another form, it lists the package's.
    """
    experiments = [*table1(), *beyond_table1()]
    for experiment in experiments:
        if name == experiment.slug:
            return experiment
    parsed = parse_experiment(name, levels=levels, known=(e.name for e in experiments))
    # Levels may be named by their ids, and in any order.
    wanted = (parsed.strategy, parsed.resolved_labels)
    return next((e for e in experiments if (e.strategy, e.resolved_labels) == wanted), parsed)


def published_result(experiment: Experiment) -> Published | None:
    """The paper's result of an experiment; None where it has none, as for those of users."""
    return experiment.published if isinstance(experiment, PaperExperiment) else None


def _experiments_in(name: str) -> list[PaperExperiment]:
    package = importlib.import_module(name)
    modules = [
        importlib.import_module(f"{name}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
        if not module.ispkg
    ]
    return sorted((module.EXPERIMENT for module in modules), key=lambda e: e.row)
