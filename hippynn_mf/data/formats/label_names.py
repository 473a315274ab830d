"""Which names of a file are labels: declared ones, usual ones, and what to say if none is."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hippynn_mf.data.formats.declared import Label, Told
from hippynn_mf.data.formats.extxyz_keys import FORCES, STRESS, VIRIAL
from hippynn_mf.data.formats.kinds import KINDS, PROPERTIES, Kind, Shape
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.levels import Level, Levels

# Names of a format with the property of `PROPERTIES` that each holds.
Usual = Sequence[tuple[str, str]]

N_SHOWN = 30  # names that a message lists
SHAPES = {
    "number": "a number",
    "vectors": "3 numbers of every atom",
    "tensor": "6 or 9 numbers",
    "other": "something else",
}


@dataclass(frozen=True)
class Held:
    """What a file holds under a name: in which shape, for how many structures."""

    shape: Shape
    count: int


def find_labels(
    path: Path,
    what: str,
    held: Mapping[str, Held],
    told: Told,
    usual: Usual,
) -> dict[str, Label]:
    """Name → label of a file whose names are the same for all of its structures.

    Args:
        path: the file.
        what: its format, for messages.
        held: what it holds beside atoms and positions.
        told: its level, and declared names, which come first.
        usual: names of the format for labels that name no level, with what they mean; they are
            those of the level of the file.

    Raises:
        UserError: where no label is found, or two names are there for one.
    """
    labels = {name: label for name, label in told.labels().items() if name in held}
    done = {label.dataset for label in labels.values()}
    candidates: dict[str, list[tuple[str, Label]]] = {}
    for name in held:
        if name not in labels and (found := label_by_name(name, told)) is not None:
            candidates.setdefault(found.dataset, []).append((name, found))
    if told.level is not None:
        for name, spelt in usual:
            if name in held and name not in labels:
                meant = PROPERTIES[spelt]
                label = Label(told.level, meant.kind, meant.sign, virial=meant.virial)
                candidates.setdefault(label.dataset, []).append((name, label))
    for dataset, entries in candidates.items():
        if dataset in done:
            continue
        refuse_ambiguous(path, [name for name, _ in entries], entries[0][1])
        labels[entries[0][0]] = entries[0][1]
    if not labels:
        looked_for = [name for name, _ in usual] if told.level is not None else []
        raise UserError(no_labels_message(path, what, held, told, looked_for))
    return labels


def label_by_name(name: str, told: Told) -> Label | None:
    """The label of a known level that a name says, as `energy_DZ` or `wb97x_dz.energy`."""
    return _said(name, told.levels if told.level is None else Levels([told.level]))


def _said(name: str, levels: Levels) -> Label | None:
    for kind in KINDS.values():
        for text in (name.removeprefix(f"{kind.name}_"), name.removesuffix(f".{kind.name}")):
            level = levels.find(text) if text != name else None
            if level is not None:
                return Label(level, kind.name)
    return None


def refuse_ambiguous(path: Path, names: Sequence[str], label: Label) -> None:
    """Raise UserError if several names hold one label."""
    if len(names) > 1:
        raise UserError(
            f"{path}: {' and '.join(names)} may both hold {label.shown}. Say which of them is the "
            f"label, as {key_option(label.shown, names[0])}, or remove the others."
        )


def key_option(shown: str, name: str) -> str:
    """The option that declares a name, `shown` as `DFT.energy`, as a shell takes it."""
    return f"--key {shlex.quote(f'{shown}={name}')}"


def no_labels_message(
    path: Path, what: str, held: Mapping[str, Held], told: Told, usual: Iterable[str] = ()
) -> str:
    """What to say of a file in which no label was found: what it holds, and what would help.

    `usual` are the names that were looked for.
    """
    if told.level is None:
        missing = "has no label that names its level"
        example = next(iter(told.levels)).label if len(told.levels) else "LEVEL"
        remedy = (
            f" If all labels are of one level, name it, as {example}={path}; in training with "
            "--train."
        )
    else:
        missing = f"has no labels of level {told.level.id} ({told.level.label})"
        remedy = ""
    looked_for = f" Looked for {', '.join(usual)}." if usual else ""
    absent = [name for name in told.labels() if name not in held]
    declared = "".join(f" {unknown_name_message('key', name, list(held))}" for name in absent)
    return (
        f"{path} is {what} and {missing}. {list_held(held)}{looked_for}{declared}"
        f"{propose_keys(held, told)}{remedy}"
    )


def list_held(held: Mapping[str, Held]) -> str:
    """What a file holds beside atoms and positions, in a sentence."""
    if not held:
        return "It holds positions only."
    texts = [f"{name} ({SHAPES[each.shape]}; {each.count})" for name, each in sorted(held.items())]
    more = f" and {len(texts) - N_SHOWN} more" if len(texts) > N_SHOWN else ""
    return f"It holds {', '.join(texts[:N_SHOWN])}{more}."


def propose_keys(
    held: Mapping[str, Held], told: Told, wanted: Iterable[tuple[Level, str]] | None = None
) -> str:
    """The options that would declare what looks like a label, the nearest fit of each kind.

    For the labels that are `wanted`, if they are known.
    """
    texts: list[str] = []
    if wanted is None:
        levels = [told.level] if told.level is not None else []
        wanted = [(level, kind) for level in levels for kind in KINDS]
        if not levels:
            texts = [
                key_option(f"{_level_of(name, told)}.{_spelt(name, kind)}", name)
                for kind in KINDS.values()
                for name in _likely(held, kind, told, None)[:1]
            ]
    for level, kind_name in wanted:
        kind = KINDS[kind_name]
        names = _likely(held, kind, told, level)
        named = [name for name in names if level.label.lower() in name.lower()]
        texts += [
            key_option(f"{level.label}.{_spelt(name, kind)}", name) for name in (named or names)[:1]
        ]
    if not texts:
        return " Declare labels by their names with --key LEVEL.energy=NAME."
    return f" The nearest fit: {' '.join(texts)}."


def _likely(held: Mapping[str, Held], kind: Kind, told: Told, level: Level | None) -> list[str]:
    """Names that may hold a kind of label, the likeliest first; not those of other levels."""

    def rank(name: str) -> int | None:
        low = name.lower()
        for place, word in enumerate(kind.words):
            if word in low:
                return place
        return len(kind.words) if low in kind.names else None

    ranked = [
        (place, len(name), name)
        for name, each in held.items()
        if each.shape == kind.shape
        and ((said := _said(name, told.levels)) is None or said.level == level)
        and (place := rank(name)) is not None
    ]
    return [name for _, _, name in sorted(ranked)]


def _level_of(name: str, told: Told) -> str:
    """The label of the level whose name is a part of a key; LEVEL if there is none."""
    low = name.lower()
    for level in told.levels:
        if level.label.lower() in low or level.id.lower() in low:
            return level.label
    return "LEVEL"


def _spelt(name: str, kind: Kind) -> str:
    low = name.lower()
    if kind.name == FORCES and "grad" in low:
        return "gradient"
    return VIRIAL if kind.name == STRESS and VIRIAL in low else kind.name


def other_names(
    held: Mapping[str, Held], labels: Iterable[str], known: Iterable[str]
) -> dict[str, int]:
    """Names that are neither labels nor known otherwise, with the number of structures."""
    used = {*labels, *known}
    return {name: each.count for name, each in held.items() if name not in used}
