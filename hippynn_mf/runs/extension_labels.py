"""Which labels an extension trains on, and whether it trains the trunk, with lines that say why."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.errors import UserError
from hippynn_mf.labels import Labels, join_labels, parse_labels
from hippynn_mf.levels import Level, Levels
from hippynn_mf.runs.parent import Trunk
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.sources import DataSource


def chosen_labels(
    asked: Request, request: Request, known: Levels, before: RunSettings | None, *, replay: bool
) -> tuple[Labels, str]:
    """What is trained on, and a line that says so."""
    source = DataSource.of(asked.data, levels=known, keys=asked.keys, units=asked.units)  # type: ignore[arg-type]
    held = labels_in_file(source.data, levels=known)
    replayed = before.experiment.resolved_labels if replay and before is not None else {}
    replayed = {known.get(level.id): value for level, value in replayed.items()}
    if request.labels:
        labels = parse_labels(request.labels, levels=known)
        for level, wanted in labels.items():
            if level in replayed and set(wanted) <= set(replayed[level]):
                continue
            if level not in held or set(wanted) - set(held[level]):
                names = ", ".join(f"{each.label}/{value}" for each, value in held.items())
                raise UserError(
                    f"{source.shown} has no labels {level.label}/{wanted}. It has: "
                    f"{names or 'none of a known level'}. Leave the level out, or supply its file."
                )
        said = "as asked for"
    elif held:
        labels = held
        said = "all that the data have; --label LEVEL=E|EF chooses"
    else:
        raise UserError(
            f"{source.shown} has no label of a known level: {', '.join(e.label for e in known)}. "
            "Files of one level are named as --train LEVEL=FILE, new levels with --levels."
        )
    joined = join_labels(labels, replayed)
    text = ", ".join(f"{level.label}/{value}" for level, value in joined.items())
    if replayed:
        said += f"; with those of the parent's training data ({len(replayed)} levels)"
    return joined, f"Labels {text}: {said}."


def chosen_trunk(
    trunk: Trunk | None, of_parent: Sequence[Level], labels: Labels
) -> tuple[Trunk, str]:
    """Whether the trunk is trained, and a line that says why."""
    kept = [level.label for level in of_parent if level not in labels]
    if trunk is not None:
        line = f"Trunk {trunk}: as asked for."
        if trunk == "trained" and kept:
            line += (
                f" The heads of {', '.join(kept)} are not trained, and will not fit it any more."
            )
        return trunk, line
    if kept:
        names = f"{', '.join(kept)} {'has' if len(kept) == 1 else 'have'}"
        line = f"Trunk frozen: {names} no labels here, so what they predict stays as it is."
        return "frozen", f"{line} With --replay, or with files of all levels, it is trained."
    return "trained", "Trunk trained: every level of the parent is trained, too."
