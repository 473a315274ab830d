"""The kinds of labels: a further one is a row of each table here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from hippynn_mf import keys
from hippynn_mf.data.formats.extxyz_keys import VIRIAL, level_datasets
from hippynn_mf.levels import Level

Shape = Literal["number", "vectors", "tensor", "other"]


@dataclass(frozen=True)
class Kind:
    """A kind of label.

    Attributes:
        name: as users write it.
        shape: of its values for one structure: a number, three numbers for every atom, or the six
            or nine of a symmetric tensor.
        words: parts of names that hold it in files of others, the likeliest first; for proposals.
        names: whole names that hold it, in lower case; for proposals.
        dataset: the dataset of the ANI-1x layout that labels of a level are read into.
    """

    name: str
    shape: Shape
    words: tuple[str, ...]
    names: tuple[str, ...]
    dataset: Callable[[Level], str]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind(
                keys.ENERGY,
                "number",
                ("energy", "energie", "etot"),
                ("e", "u0", "toten"),
                lambda level: level_datasets(level)[0],
            ),
            Kind(
                keys.FORCES,
                "vectors",
                ("force", "grad"),
                ("f", "g"),
                lambda level: level_datasets(level)[1],
            ),
            Kind(
                keys.STRESS,
                "tensor",
                ("stress", "virial"),
                (),
                lambda level: level.stress_name,
            ),
        )
    }
)


@dataclass(frozen=True)
class Property:
    """What users may declare: a kind, with which sign, and whether it is a virial (−V stress)."""

    kind: str
    sign: float = 1.0
    virial: bool = False


PROPERTIES: Mapping[str, Property] = MappingProxyType(
    {
        keys.ENERGY: Property(keys.ENERGY),
        keys.FORCES: Property(keys.FORCES),
        "gradient": Property(keys.FORCES, -1.0),
        keys.STRESS: Property(keys.STRESS),
        VIRIAL: Property(keys.STRESS, -1.0, virial=True),
    }
)
