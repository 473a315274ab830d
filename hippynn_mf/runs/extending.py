"""From a finished model and a request to the settings of the runs that extend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hippynn_mf.data.elements import symbols
from hippynn_mf.data.formats.held_elements import elements_in
from hippynn_mf.errors import UserError
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import Level
from hippynn_mf.model.growing import refuse_as_many
from hippynn_mf.runs.build import build_settings
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.extension_labels import chosen_labels, chosen_trunk
from hippynn_mf.runs.extension_levels import bases_of, known_levels
from hippynn_mf.runs.parent import Parent, Trunk
from hippynn_mf.runs.parent_files import FIXED, FoundParent, find_parent
from hippynn_mf.runs.request import OWN_DATA_PRESET, Request
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.training.strategies import EXTENSION

# What says how the data of a run are read and split, which an extension on the same data keeps.
OF_THE_DATA = ("rows", "split_seed", "split", "valid", "label_fractions", "ignore_cell",
               "accept_outliers", "accept_charged")  # fmt: skip


@dataclass(frozen=True)
class Extension:
    """The runs that extend a model, and lines for people that say what they do."""

    settings: list[RunSettings]
    lines: list[str]


def build_extension(
    request: Request,
    parents: Sequence[str | Path],
    *,
    trunk: Trunk | None = None,
    replay: bool = False,
    bases: Mapping[str, str] | None = None,
) -> Extension:
    """Settings of the runs that extend a finished model, one for each seed.

    Args:
        request: as of a training. Without data those of the parent's run; without labels all that
            the data have; without seeds those of the parent's members.
        parents: a model file, the name of a shipped one, or run folders that differ in seeds.
        trunk: whether the network below the heads is trained; None: if all heads are.
        replay: train on the training data of the parent's run, too.
        bases: new level → the parent's level that it begins as; by default the one below it.

    Raises UserError for what cannot be extended in this way, before anything is written.
    """
    found = find_parent(parents, request.out)
    _refuse_what_is_given(request, found)
    before = found.run
    if request.data is None and before is None:
        raise UserError(
            f"{found.path[0]} is a model file, which has no data. Name those to train on, as "
            "--train CC=more.xyz."
        )
    if replay and before is None:
        raise UserError(
            f"--replay trains on the data of a run again, and {found.path[0]} is a model file, "
            "which has none. Name its run folders instead, or the old data as --train DZ=old.xyz."
        )
    of_parent = [
        LevelRecord.model_validate(_plain_record(each)).level for each in found.card.levels
    ]
    known = known_levels(request, of_parent, before)
    asked = _with_data_of_parent(request, before)
    labels, labels_line = chosen_labels(asked, request, known, before, replay=replay)
    new = [level for level in labels if level not in of_parent]
    chosen = bases_of(new, of_parent, bases or {}, known)
    trunk, trunk_line = chosen_trunk(trunk, of_parent, labels)
    members = found.members
    values: dict[str, Any] = {
        "preset": request.preset or OWN_DATA_PRESET,
        "hyperparameters": {**_fixed(found), **request.hyperparameters},
        "seeds": request.seeds if "seeds" in request.model_fields_set else tuple(members),
        "experiments": (),
        "labels": {},
    }
    common = () if before is None else tuple(map(known.get, before.common_levels))
    experiment = Experiment(labels=labels, prefix=EXTENSION.prefix, common_levels=common)
    runs = build_settings(asked.model_copy(update=values), [experiment], levels=known)
    species = _species(found, runs[0])
    parent = Parent(
        path=found.path,
        members=members,
        levels=tuple(level.id for level in of_parent),
        elements={k.id: tuple(found.card.species_of(k.id)) for k in found.card.levels},
        species=tuple(found.card.species),
        trunk=trunk,
        bases={level.id: base.id for level, base in chosen.items()},
        replay=replay,
        run=None if before is None else before.model_dump(mode="json"),
    )
    same_data = request.data is None and before is not None
    tests = () if before is None else before.tests
    settings = [
        run.model_copy(
            update={
                "parent": parent,
                "hyperparameters": run.hyperparameters.model_copy(update={"species": species}),
                "data": before.data if same_data and before is not None else run.data,
                "tests": tests,
                "common_levels": tuple(level.id for level in common) or run.common_levels,
            }
        ).with_tests(run.tests)
        for run in runs
    ]
    lines = [labels_line, trunk_line, *_new_lines(chosen, found, species, settings)]
    return Extension(settings, lines)


def _plain_record(card: LevelRecord) -> dict[str, Any]:
    return {name: getattr(card, name) for name in LevelRecord.model_fields}


def _fixed(found: FoundParent) -> dict[str, Any]:
    """The hyperparameters that the parent has, and no extension changes."""
    architecture = found.card.architecture
    return {name: getattr(architecture, name) for name in (*FIXED, "coupling")}


def _refuse_what_is_given(request: Request, found: FoundParent) -> None:
    """Raise UserError for experiments, a strategy, and another network than the parent's."""
    if request.experiments or request.strategy:
        raise UserError("An extension is asked for by its labels, as --label CC=E, not by a name.")
    for name, value in {
        **_fixed(found),
        "species": list(found.card.hyperparameters.species),
    }.items():
        asked = request.hyperparameters.get(name, value)
        if asked != value:
            raise UserError(
                f"An extension has the network of its parent: {name} is {value}; found --set "
                f"{name}={asked}. Leave it out. Elements come from the data; another network is "
                "trained anew."
            )


def _with_data_of_parent(request: Request, before: RunSettings | None) -> Request:
    """The request on the data of the parent's run where it names none, read as there."""
    if request.data is not None or before is None:
        return request
    said = request.model_fields_set
    values: dict[str, Any] = {
        "data": before.data.path,
        "keys": before.data.keys or {},
        "units": before.data.units,
    }
    for name in OF_THE_DATA:
        if name in ("label_fractions", "valid") or (name == "split_seed" and request.split_seeds):
            continue
        if name not in said:
            values[name] = getattr(before, name)
    if "valid" not in said and before.valid is not None:
        values["valid"] = before.valid.path
    values["label_fractions"] = {**before.label_fractions, **request.label_fractions}
    return request.model_copy(update=values)


def _species(found: FoundParent, run: RunSettings) -> tuple[int, ...]:
    """The parent's elements with those of the training data, sorted if there are new ones."""
    old = found.card.hyperparameters.species
    sources = [run.data, *([] if run.valid is None else [run.valid])]
    held = frozenset().union(*(elements_in(each.data, levels=run.known) for each in sources))
    new = held - set(old)
    if not new:
        return old
    species = sorted({*old, *held} - {0})
    refuse_as_many(found.card.architecture.n_features, found.card.species, species)
    return (0, *species)


def _new_lines(
    chosen: Mapping[Level, Level],
    found: FoundParent,
    species: Sequence[int],
    settings: Sequence[RunSettings],
) -> list[str]:
    """What is new: levels, elements, and members that several runs start from."""
    lines = []
    for level, base in chosen.items():
        how = f"{base.label} plus a correction" if base.rank < level.rank else (
            f"a copy of {base.label}, there being no lower one"
        )  # fmt: skip
        lines.append(f"New level {level.label}: {how}.")
    if new := set(species) - {0, *found.card.species}:
        lines.append(f"New elements: {symbols(new)}.")
    for run in settings:
        if run.seed not in found.members and run.parent is not None:
            lines.append(f"Seed {run.seed} starts from member {run.parent.member(run.seed)}.")
    return lines
