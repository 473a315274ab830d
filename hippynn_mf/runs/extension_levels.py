"""The levels of an extension: those of the finished model, known ones, and declared ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hippynn_mf.errors import UserError, errors_about, unknown_name_message
from hippynn_mf.files import parse_json, read_text
from hippynn_mf.level_records import levels_of_records
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels, highest_level
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.settings import RunSettings


def known_levels(
    request: Request, of_parent: Sequence[Level], before: RunSettings | None
) -> Levels:
    """The parent's levels as they are in it, those that its run knows, and what is declared now.

    A declared level that names no place, neither by a rank nor beside a level that is known, is
    above all of the parent's. Raises UserError for one that is another than the parent's of its
    name: other self energies would mean other energies.
    """
    known = {level.id: level for level in of_parent}
    for level in (*KNOWN_LEVELS, *([] if before is None else before.known)):
        known.setdefault(level.id, level)
    levels = Levels(known.values())
    if request.levels is None:
        return levels
    content, source = _declared(request)
    if not any(_has_place(each, levels) for each in content):
        content = [highest_level(of_parent).label, *content]
    with errors_about(source):
        for level in levels_of_records(content, source, levels=levels):
            earlier = known.get(level.id)
            if earlier is None:
                known[level.id] = level
                continue
            for number, energy in level.self_energies.items():
                if earlier.self_energies.get(number, energy) != energy:
                    raise UserError(
                        f"the self energy of element {number} at level {level.label} is "
                        f"{energy} hartree, and {earlier.self_energies[number]} in the model. "
                        "Leave it out, or declare a level of another name."
                    )
        return Levels(known.values())


def _declared(request: Request) -> tuple[list[Any], object]:
    """What is declared, as JSON, and where."""
    if isinstance(request.levels, Path):
        content = parse_json(read_text(request.levels, "a JSON file of levels"), request.levels)
        return (content if isinstance(content, list) else [content]), request.levels
    declared = request.levels or ()
    return [each.model_dump(mode="json", exclude_unset=True) for each in declared], "[[levels]]"


def _has_place(declared: Any, levels: Levels) -> bool:
    """Whether a declaration says where a level stands in the order of accuracy."""
    if isinstance(declared, str):
        return levels.find(declared) is not None
    if not isinstance(declared, dict):
        return True  # refused by whoever reads it
    alone = set(declared) == {"label"}
    return "rank" in declared or (alone and levels.find(str(declared["label"])) is not None)


def bases_of(
    new: Sequence[Level], of_parent: Sequence[Level], asked: Mapping[str, str], known: Levels
) -> dict[Level, Level]:
    """New level → the parent's level that it begins as: the nearest below it, else the lowest.

    Raises UserError for a base that is `asked` of no new level, or is none of the parent.
    """
    names = {name: level for level in of_parent for name in (level.id, level.label)}
    wanted: dict[str, Level] = {}
    for name, base in asked.items():
        level = known.get(name)
        if level not in new:
            raise UserError(
                f"--base {name}={base}: {level.label} is no new level of this extension. New: "
                f"{', '.join(each.label for each in new) or 'none'}."
            )
        if base not in names:
            raise UserError(
                f"--base {name}={base}: {unknown_name_message('level of the model', base, names)}"
            )
        wanted[level.id] = names[base]
    ordered = sorted(of_parent, key=lambda level: level.rank)
    found = {}
    for level in new:
        below = [each for each in ordered if each.rank < level.rank]
        found[level] = wanted.get(level.id, below[-1] if below else ordered[0])
    return found
