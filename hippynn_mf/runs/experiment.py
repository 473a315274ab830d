"""An experiment: which labels of which levels are learned, and how."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hippynn_mf.errors import UserError, errors_about, unknown_name_message
from hippynn_mf.labels import Labels, Properties, parse_labels
from hippynn_mf.levels import KNOWN_LEVELS, NAME_PATTERN, PAPER_LEVELS, Level, Levels
from hippynn_mf.training.strategies import STRATEGIES, Phase, Strategy, get_strategy

# A part of a name: a level, and the labels that it is trained on.
PART = rf"-({NAME_PATTERN})/(E|EFS?)"
PLAIN_LABEL = r"[A-Z0-9]+"  # of levels whose experiments have slugs that tell them apart
N_HEX = 6  # of the hash that tells other experiments apart


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Which labels are trained on, by level; everything else is a hyperparameter.

    Attributes:
        labels: level → `"E"` or `"EF"`; names are those of the paper's levels, other levels are
            given as `Level`, as `parse_labels` resolves them.
        prefix: how the levels are learned, see `strategies.py`; by default `SF` for one level and
            `MF` for several.
        common_levels: with `rows="common"`, structures must have the energies of all of these.
    """

    labels: Mapping[str, str] | Labels
    prefix: str | None = None
    common_levels: tuple[Level, ...] = PAPER_LEVELS

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
        """The name as a file name, as `mf_dz_ef_cc_e`; no two experiments have the same.

        Where a level's label has more than upper-case letters and digits, what the slug leaves out
        is told by the first digits of the name's SHA-256: `SF-My-level/E` is
        `sf_my_level_e-e48efd`.
        """
        slug = re.sub(r"[-/ ]", "_", self.name.lower())
        if all(re.fullmatch(PLAIN_LABEL, level.label) for level in self.resolved_labels):
            return slug
        return f"{slug}-{hashlib.sha256(self.name.encode()).hexdigest()[:N_HEX]}"

    @property
    def relative_cost(self) -> float:
        """Measured cost of training on a structure, relative to one level with forces."""
        return sum(
            0.5 + 0.47 * sum(p.forces for p in phase.labels.values()) + 0.05 * len(phase.labels)
            for phase in self.phases
        )


def parse_experiment(
    name: str, *, levels: Levels = KNOWN_LEVELS, known: Iterable[str] = ()
) -> Experiment:
    """The experiment that a name spells, as `SF-TZ/EF` or `TL-GFN1/EF-GFN2/E`.

    Args:
        name: strategy, levels and their labels; a level is spelt by its label or its id.
        levels: what a level may be.
        known: names of experiments, for the message about a name of another form.

    Raises:
        UserError: for a name of another form, an unknown level, which lists the known ones, a level
            named twice, and labels that the strategy cannot learn.
    """
    prefix, dash, rest = name.partition("-")
    readings = list(_readings(dash + rest, levels)) if prefix in STRATEGIES and dash else []
    if len(readings) > 1:
        texts = (" and ".join(f"{n}/{v}" for n, v in reading) for reading in readings)
        raise UserError(
            f"Experiment {name!r} can be read in several ways: {'; or '.join(texts)}. Name levels "
            "by their ids, or rename one."
        )
    spelt = re.fullmatch(rf"({'|'.join(STRATEGIES)})((?:{PART})+)", name)
    if spelt is None and not readings:
        raise UserError(
            unknown_name_message("experiment", name, known)
            + " Those of other levels are spelt alike: SF-LEVEL/E or EF for one level, "
            f"MF-LEVEL/EF-LEVEL/E for several; strategies are {', '.join(STRATEGIES)}."
        )
    # Without a reading a level is unknown, of which the message is below.
    parts: list[tuple[str, str]] = readings[0] if readings else re.findall(PART, dash + rest)
    with errors_about(f"Experiment {name!r}"):
        resolved = [levels.get(level) for level, _ in parts]
        if len(set(resolved)) < len(resolved):
            raise UserError("a level is named twice. Name every level once.")
        values = [Properties(value) for _, value in parts]
        labels = parse_labels(dict(zip(resolved, values, strict=True)))
        experiment = Experiment(labels=labels, prefix=prefix)
        _ = experiment.phases  # refuses what the strategy cannot learn
    return experiment


def _readings(text: str, levels: Levels) -> Iterator[list[tuple[str, str]]]:
    """Every way to read `-LEVEL/EF-LEVEL/E`: labels of known levels may have `/` and `-`."""
    if not text:
        yield []
    for name in dict.fromkeys(name for level in levels for name in (level.id, level.label)):
        for value in Properties:
            part = f"-{name}/{value}"
            if text.startswith(part) and text[len(part) :][:1] in ("", "-"):
                for others in _readings(text.removeprefix(part), levels):
                    yield [(name, str(value)), *others]
