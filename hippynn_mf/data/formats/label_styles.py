"""Which names of extended XYZ, and of what ASE reads, are labels, structure by structure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hippynn_mf.data.formats.declared import Label, Told
from hippynn_mf.data.formats.extxyz_keys import (
    VIRIAL,
    energy_dataset,
    forces_dataset,
    stress_dataset,
)
from hippynn_mf.data.formats.label_names import Held, no_labels_message
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.levels import Level, Levels

HEAD = "head"  # which level a structure of several in one file is labelled by, as in MACE
# Of the same styles, by the prefix of their energy: names of a stress, and of a virial.
TENSORS = (STRESS, VIRIAL, f"{VIRIAL}s")
UNNAMED = (("REF_energy", "REF_forces"), ("energy", "forces"))  # MACE's names, ASE's


@dataclass(frozen=True)
class Names:
    """Names of labels in a file.

    Attributes:
        labels: names of labels that name their level, or are declared.
        styles: names of energy and forces of labels that name none, of which a structure uses the
            first pair that it has any of.
        level: of these labels, None where `head` says it.
    """

    labels: Mapping[str, Label] = field(default_factory=dict)
    styles: tuple[tuple[str, str], ...] = ()
    level: Level | None = None

    def of(self, values: Mapping[str, Any], head: Level | None) -> Mapping[str, Label]:
        """Names of the labels of one structure with these values."""
        level = self.level or head
        if level is None:
            return self.labels
        done = {label.kind for label in self.labels.values() if label.level == level}
        for pair in self.styles:
            styled = {n: k for n, k in zip(pair, (ENERGY, FORCES), strict=True) if k not in done}
            if any(name in values for name in styled):
                labels = {name: Label(level, kind) for name, kind in styled.items()}
                if STRESS not in done:
                    labels |= {name: _tensor(name, level) for name in tensors(pair[0], level)}
                return {**self.labels, **labels}
        return self.labels


def tensors(energy: str, level: Level | None) -> list[str]:
    """Names of stress and virial beside an energy of this name."""
    names = [] if level is None else [level.id, level.label]
    ending = next((f"_{name}" for name in names if energy == f"energy_{name}"), "")
    prefix = "" if ending else energy.removesuffix("energy")
    return [f"{prefix}{tensor}{ending}" for tensor in TENSORS]


def _tensor(name: str, level: Level | None, part: str | None = None) -> Label:
    """The stress that a name says, or the virial."""
    is_virial = VIRIAL in name
    return Label(level, STRESS, -1.0 if is_virial else 1.0, part, is_virial)


def find_names(path: Path, what: str, held: Mapping[str, Held], told: Told) -> Names:
    """Which names are labels; none at all is a UserError."""
    declared = {name: label for name, label in told.labels().items() if name in held}
    done = {label.dataset for label in declared.values()}
    level = told.level
    if level is None:
        spelt = {
            name: label
            for name in held
            if (label := _named(name, told.levels)) is not None and label.dataset not in done
        }
        styles = _present(UNNAMED, held) if HEAD in held else ()
        names = Names({**spelt, **declared}, styles)
    else:
        own = [(f"energy_{name}", f"forces_{name}") for name in (level.id, level.label)]
        names = Names(declared, _present(UNNAMED, held) or _present(own, held), level)
    if not names.labels and not names.styles:
        looked_for = [name for pair in UNNAMED for name in pair]
        if level is not None:
            looked_for += [f"{kind}_{level.label}" for kind in (ENERGY, FORCES)]
        raise UserError(
            no_labels_message(path, what, held, told, looked_for if level is not None else ())
        )
    return names


def _named(name: str, levels: Levels) -> Label | None:
    """The label that a name says, of a level that is known or of another; None if it says none."""
    for kind, dataset in (
        (ENERGY, energy_dataset(name, levels)),
        (FORCES, forces_dataset(name, levels)),
    ):
        if dataset is not None:
            level = levels.find(name.removeprefix(f"{kind}_"))
            return Label(level, kind, part=dataset)
    if (dataset := stress_dataset(name, levels)) is not None:
        level = levels.find(name.partition("_")[2])
        return _tensor(name, level, dataset)
    return None


def _present(
    styles: Sequence[tuple[str, str]], found: Collection[str]
) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in styles if pair[0] in found or pair[1] in found)


def refuse_two_meanings(path: Path, read: Sequence[Mapping[str, Any]], names: Names) -> None:
    """Raise UserError if names of a style are labels in one structure and something else in others.

    Beside `REF_energy`, `energy` may be a prediction; alone it would be read as a label.
    """
    if len(names.styles) < 2:
        return
    (energy, force), (other, other_force) = names.styles[:2]
    has = [({energy, force} & set(values), {other, other_force} & set(values)) for values in read]
    n_both = sum(bool(one and two) for one, two in has)
    n_other = sum(bool(two and not one) for one, two in has)
    if n_both and n_other:
        raise UserError(
            f"{path}: {n_both} structures have both {energy} (or {force}) and {other} (or "
            f"{other_force}), and {n_other} the latter alone, so it is not clear whether these are "
            "labels. Remove the predictions, or rename the labels."
        )


def find_head(path: Path, number: int, values: Mapping[str, Any], told: Told) -> Level | None:
    """The level that a structure's `head` names."""
    level, levels = told.level, told.levels
    if HEAD not in values:
        return None
    text = str(values[HEAD])
    found = levels.find(text)
    place = f"{path}, structure {number}: head={text}"
    if found is None:
        known = [name for each in levels for name in (each.label, each.id)]
        raise UserError(
            f"{place} names no level. {unknown_name_message('level of theory', text, known)} "
            "Rename it, declare the level with --levels FILE, or remove the key."
        )
    if level is not None and found != level:
        raise UserError(
            f"{place} names level {found.id}, but the file is that of level {level.id}. Leave the "
            "structure out, or name the file with --data, where every head is its level."
        )
    return found
