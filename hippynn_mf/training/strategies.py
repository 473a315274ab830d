"""How several levels are learned: together, one after another, as a difference, or as tasks.

A strategy is named by the first part of an experiment's name, and is a sequence of phases: each
trains a network with heads on some of the labels, from fresh weights or from those of the phase
before. The parameters of all phases make one model with a head for every level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.hyperparameters import SUM, Hyperparameters
from hippynn_mf.labels import Labels, Properties
from hippynn_mf.levels import Difference, Level
from hippynn_mf.model.parameters import Parts, State

N_TEACHERS = 4  # a choice: a fifth of the training is the student's


@dataclass(frozen=True)
class Phase:
    """One training of a run.

    Attributes:
        name: its sub-folder in the run's folder; the last phase is in that folder itself.
        labels: what it trains on, a head for each level.
        difference: the labels are energies of a level minus those of a lower one.
        starts_from: level of the phase before whose head, with the trunk, gives the weights to
            start from; None for fresh ones. Atomic energies are always fitted anew.
        frozen_interactions: the interaction layers keep their weights.
        as_tasks: levels are tasks of Reptile, see `reptile.py`.
        taught: level whose forces are the mean of what the models of all phases before say of the
            structures with its energies; None for labels alone.
        extends: it goes on with a finished model, whose atomic energies stay, see `extension.py`;
            the model may have more heads than it trains.
    """

    name: str
    labels: Labels
    difference: Difference | None = None
    starts_from: Level | None = None
    frozen_interactions: bool = False
    as_tasks: bool = False
    taught: Level | None = None
    extends: bool = False

    def hyperparameters(self, hyperparameters_of_run: Hyperparameters) -> Hyperparameters:
        """Those of the run, with the learning rate and the stopping metric of this phase.

        A stopping metric of one level chooses the best epoch where that level is trained, and the
        sum over the heads elsewhere.
        """
        changes: dict[str, Any] = {}
        if self.starts_from is not None or self.extends:
            changes["learning_rate"] = (
                hyperparameters_of_run.learning_rate * hyperparameters_of_run.fine_tuning_factor
            )
        trained = {name for level in self.labels for name in (level.id, level.label)}
        if hyperparameters_of_run.stopping_metric not in trained:
            changes["stopping_metric"] = SUM
        return hyperparameters_of_run.model_copy(update=changes)


@dataclass(frozen=True)
class Strategy:
    """A way to learn several levels.

    Attributes:
        prefix: the first part of the names of its experiments.
        title: what it is, for people.
        phases: the phases for the labels of an experiment, from the lowest level to the highest.
        overrides: hyperparameters that it stands for.
        n_levels: the least and the largest number of levels, None for any.
        has_second_network: the highest level is the next lower one plus the energy of a network of
            its own.
    """

    prefix: str
    title: str
    phases: Callable[[Labels], Sequence[Phase]]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    n_levels: tuple[int, int | None] = (2, None)
    has_second_network: bool = False

    def require_levels(self, labels: Labels) -> None:
        """Raise UserError unless the strategy learns so many levels."""
        least, most = self.n_levels
        if len(labels) < least or (most is not None and len(labels) > most):
            wanted = f"{least}" if least == most else f"at least {least}"
            raise UserError(
                f"{self.prefix} ({self.title}) learns {wanted} level{'s' * (wanted != '1')}; found "
                f"{len(labels)}: {', '.join(level.label for level in labels)}."
            )

    def assemble(self, labels: Labels, states: Sequence[State]) -> State:
        """Parameters of the model of all levels from those of every phase, as of `Model`.

        Trunk and heads are those of the last phase; heads that it does not train are those of the
        phase before.
        """
        *_, lower, highest = (None, *labels)
        if self.has_second_network and lower is not None:
            base, correction = (Parts.of(state) for state in states)
            (head,) = correction.heads.values()
            heads = {**base.heads, highest.id: head}
            return Parts(base.network, heads, {highest.id: correction.network}).state()
        merged: State = {}
        for state in states:
            merged |= state
        return merged


def _together(labels: Labels) -> Sequence[Phase]:
    return (Phase("training", labels),)


def _extension(labels: Labels) -> Sequence[Phase]:
    return (Phase("training", labels, extends=True),)


def _transfer(labels: Labels, *, frozen: bool = False) -> Sequence[Phase]:
    *lower, highest = labels
    pretraining = Phase("pretraining", {level: labels[level] for level in lower})
    return pretraining, Phase(
        "fine-tuning",
        {highest: labels[highest]},
        starts_from=lower[-1],
        frozen_interactions=frozen,
    )


def _transfer_frozen(labels: Labels) -> Sequence[Phase]:
    return _transfer(labels, frozen=True)


def _difference(labels: Labels) -> Sequence[Phase]:
    lower, higher = labels
    if labels[higher].forces:
        raise UserError(
            f"Δ-learning trains on energies of the higher level; found {higher.label}/EF. Ask for "
            f"{higher.label}/E."
        )
    difference = Difference(higher, lower)
    return (
        Phase("low-level", {lower: labels[lower]}),
        Phase("difference", {difference.level: Properties.E}, difference=difference),
    )


def _meta(labels: Labels) -> Sequence[Phase]:
    *_, highest = labels
    return (
        Phase("meta-learning", labels, as_tasks=True),
        Phase("fine-tuning", {highest: labels[highest]}, starts_from=highest),
    )


def _taught(labels: Labels) -> Sequence[Phase]:
    *_, highest = labels
    if labels[highest].forces:
        raise UserError(
            f"Of {highest.label} the forces are taught by an ensemble that learned its energies; "
            f"found {highest.label}/EF. Ask for {highest.label}/E, or for MF."
        )
    student = {**labels, highest: Properties.EF}
    teachers = [Phase(f"teacher-{number}", labels) for number in range(1, N_TEACHERS + 1)]
    return (*teachers, Phase("student", student, taught=highest))


# Phases that train one head at a time have no lower head to add to.
INDEPENDENT = MappingProxyType({"coupling": "independent"})

STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        strategy.prefix: strategy
        for strategy in (
            Strategy("SF", "single-fidelity", _together, n_levels=(1, 1)),
            Strategy("MF", "multi-fidelity", _together),
            Strategy(
                "MFC",
                "multi-fidelity, coupled heads",
                _together,
                overrides=MappingProxyType({"coupling": "delta"}),
            ),
            Strategy("TL", "transfer, all layers fine-tuned", _transfer, overrides=INDEPENDENT),
            Strategy(
                "TLF",
                "transfer, interaction layers frozen",
                _transfer_frozen,
                overrides=INDEPENDENT,
            ),
            Strategy("DELTA", "Δ-learning", _difference, n_levels=(2, 2), has_second_network=True),
            Strategy("EKD", "forces taught by an ensemble", _taught, n_levels=(1, None)),
            Strategy("META", "meta-learning (Reptile), fine-tuned", _meta, overrides=INDEPENDENT),
        )
    }
)

# Needs a finished model, so no name of an experiment asks for it.
EXTENSION = Strategy("EXT", "extension of a finished model", _extension, n_levels=(1, None))


def get_strategy(prefix: str) -> Strategy:
    """The strategy with this prefix; a UserError listing them otherwise."""
    if prefix == EXTENSION.prefix:
        return EXTENSION
    if prefix not in STRATEGIES:
        raise UserError(unknown_name_message("strategy", prefix, STRATEGIES))
    return STRATEGIES[prefix]
