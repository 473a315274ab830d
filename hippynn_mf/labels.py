"""Which labels of which levels an experiment trains on."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from hippynn_mf import keys
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels


class Properties(StrEnum):
    """The labels of one level: energies (`E`), with forces (`EF`), with forces and stress (`EFS`).

    Stress is that of structures that are periodic along all axes; others have none.
    """

    E = "E"
    EF = "EF"
    EFS = "EFS"

    @property
    def forces(self) -> bool:
        """Whether forces belong to the labels."""
        return self is not Properties.E

    @property
    def stress(self) -> bool:
        """Whether the stress belongs to the labels."""
        return self is Properties.EFS

    @property
    def kinds(self) -> list[str]:
        """The labels by name: `energy`, `forces`, `stress`."""
        kinds = {"E": keys.ENERGY, "F": keys.FORCES, "S": keys.STRESS}
        return [kinds[letter] for letter in self.value]


Labels = Mapping[Level, Properties]


def parse_labels(labels: Mapping[str, str] | Labels, *, levels: Levels = KNOWN_LEVELS) -> Labels:
    """Resolve `{"DZ": "EF", "CC": "E"}`, ordered by the rank of the levels.

    Names are looked up among `levels`; a `Level` is taken as it is. Raises UserError for an
    unknown level or property, a level named twice, or no level at all.
    """
    if not labels:
        raise UserError('No labels: name at least one level, as in {"DZ": "EF", "CC": "E"}.')
    resolved: dict[Level, Properties] = {}
    for name, properties in labels.items():
        level = levels.get(name)
        if level in resolved:
            raise UserError(f"Level {level.id} ({level.label}) is named twice in {dict(labels)}.")
        if properties not in list(Properties):
            message = unknown_name_message("property of a level", properties, list(Properties))
            raise UserError(message)
        resolved[level] = Properties(properties)
    names = [name for level in resolved for name in {level.id, level.label}]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"Two levels have the same name: {', '.join(repeated)}. Rename one.")
    return MappingProxyType(dict(sorted(resolved.items(), key=lambda item: item[0].rank)))


def labels_by_id(labels: Labels) -> dict[str, str]:
    """Labels as files spell them: level id → `"E"`, `"EF"` or `"EFS"`."""
    return {level.id: str(properties) for level, properties in labels.items()}


def with_all_forces(labels: Labels, *, stress: bool = False) -> Labels:
    """The same levels with forces, and with stress: a head predicts what it was not trained on."""
    return dict.fromkeys(labels, Properties.EFS if stress else Properties.EF)


def without_stress(labels: Labels) -> Labels:
    """The same labels without any stress: parameters do not depend on it."""
    return {
        level: Properties.EF if properties.stress else properties
        for level, properties in labels.items()
    }


def has_stress(labels: Labels) -> bool:
    """Whether the stress of any level belongs to the labels."""
    return any(properties.stress for properties in labels.values())


def plain_labels(labels: Labels) -> dict[str, list[str]]:
    """Labels as JSON: level id → `["energy"]`, with `"forces"`, with `"forces"` and `"stress"`."""
    return {level.id: properties.kinds for level, properties in labels.items()}


def join_labels(*several: Labels) -> Labels:
    """Every label of any of `several`."""
    joined: dict[Level, Properties] = {}
    for labels in several:
        for level, properties in labels.items():
            joined[level] = max(properties, joined.get(level, properties), key=len)
    return MappingProxyType(dict(sorted(joined.items(), key=lambda item: item[0].rank)))
