"""The data of the run that is extended beside new ones: no structure changes its split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from hippynn_mf.data.copies import join_agreeing
from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.data.joining import join_structures, sorted_into
from hippynn_mf.data.splits import SPLITS
from hippynn_mf.data.structures import Structures, with_cells
from hippynn_mf.labels import Labels, Properties
from hippynn_mf.levels import Level
from hippynn_mf.runs.settings import RunSettings

log = logging.getLogger(__name__)

Parts = Mapping[str, Structures]


def labels_of_new_data(settings: RunSettings, labels: Labels) -> Labels:
    """Those of the labels of an extension that its own files are to have.

    The others, of levels that are replayed, are in the data of its parent.
    """
    run = settings.parent_run
    if settings.parent is None or not settings.parent.replay or run is None:
        return labels
    held = labels_in_file(settings.data.data, levels=settings.known)
    replayed = run.experiment.resolved_labels
    found: dict[Level, Properties] = {}
    for level, wanted in labels.items():
        if level.id not in {each.id for each in replayed}:
            found[level] = wanted
        elif level in held:
            found[level] = min(wanted, held[level], key=len)
    return found


def needs_parent_data(settings: RunSettings, labels: Labels) -> bool:
    """Whether the data of the parent's run are more than those of the run itself."""
    run = settings.parent_run
    if run is None:
        return False
    is_same_draw = (
        settings.data.sha256 == run.data.sha256
        and settings.split_seed == run.split_seed
        and settings.split == run.split
        and (settings.valid and settings.valid.sha256) == (run.valid and run.valid.sha256)
        and run.parent is None
    )
    is_whole = settings.rows == run.rows == "common" or {level.id for level in labels} >= set(
        run.labels
    )
    return not (is_same_draw and is_whole)


def with_parent_data(
    parts: Parts, settings: RunSettings, labels: Labels, load: Callable[[RunSettings], Parts]
) -> Parts:
    """The structures of an extension with those of its parent, whose split they have.

    A new structure that is one of the parent's goes where that is: what tested or validated there
    is not trained on. The parent's own test again; with replay they train and validate, too.
    `load` reads the parts of a run. Raises UserError where labels of one structure contradict each
    other.
    """
    parent, run = settings.parent, settings.parent_run
    assert parent is not None
    assert run is not None
    before = load(run)
    new, counts = sorted_into(parts, before)
    if sum(counts.values()):
        n = sum(map(len, parts.values()))
        log.warning(
            "%s: %d of its %d structures are in the data of the parent, %s, and stay in their "
            "split there: %d train, %d validate and %d test. None of the last two is trained on",
            settings.data.shown,
            sum(counts.values()),
            n,
            run.data.shown,
            *(counts[split] for split in SPLITS),
        )
    shift = 1 + max((int(part.rows.max(initial=-1)) for part in parts.values()), default=0)
    found = {}
    for split in SPLITS:
        own = new[split] if split == "test" else new[split].only(labels)
        if split != "test" and not parent.replay:
            found[split] = own
            continue
        other = before[split] if split == "test" else before[split].only(labels)
        moved = replace(other, rows=other.rows + shift)
        joined, _ = join_agreeing(
            join_structures([own, moved]), f"{settings.data.shown} and {run.data.shown}"
        )
        found[split] = joined
    return with_cells(found)
