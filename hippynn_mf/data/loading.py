"""From a file to the train, valid and test structures of an experiment."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import h5py
import numpy as np

from hippynn_mf.data.boxes import as_molecules
from hippynn_mf.data.checks.gate import pass_gate
from hippynn_mf.data.checks.pairs import draw_conformers
from hippynn_mf.data.checks.report import NOTHING, Accepted, CheckReport
from hippynn_mf.data.copies import join_agreeing
from hippynn_mf.data.drawing import draw_splits
from hippynn_mf.data.formats.ani1x import (
    FileIndex,
    Rows,
    index_ani1x,
    labels_in_file,
    read_ani1x,
)
from hippynn_mf.data.formats.atoms import read_parts
from hippynn_mf.data.formats.declared import Told
from hippynn_mf.data.formats.deepmd import files_of, is_deepmd
from hippynn_mf.data.formats.extxyz_keys import energy_key, forces_key, stress_key
from hippynn_mf.data.formats.label_names import list_held, propose_keys
from hippynn_mf.data.formats.reading_bar import ReadingBar
from hippynn_mf.data.formats.sources import (
    DataPath,
    as_data_path,
    has_frames,
    held_names,
    open_data,
    refuse_absent_keys,
    refuse_untold,
    shown_path,
)
from hippynn_mf.data.fractions import keep_labels
from hippynn_mf.data.matching import find_shared
from hippynn_mf.data.splits import SplitBy, split_rows
from hippynn_mf.data.structures import Structures, with_cells
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.files import reading, require_file
from hippynn_mf.keys import ENERGY, FORCES, STRESS
from hippynn_mf.labels import Labels, Properties, join_labels
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.stores import give_back, is_too_large


def load_splits(
    source: DataPath,
    labels: Labels,
    *,
    common_levels: Collection[Level],
    rows: Rows,
    split_seed: int,
    label_fractions: Mapping[Level, float] | None = None,
    split_by: SplitBy = "conformer",
    valid_source: DataPath | None = None,
    levels: Levels = KNOWN_LEVELS,
    accepted: Accepted = NOTHING,
    reports: list[CheckReport] | None = None,
) -> Mapping[str, Structures]:
    """Read a file in the ANI-1x layout, or extended XYZ, and split it.

    With `valid_source` the structures of that file validate, and what would validate trains. The
    same conformer counts once, with the labels of all its copies. The test structures keep the
    labels of every level in the file, as references; the others keep those of the experiment, or of
    a level in `label_fractions` this fraction, see `keep_labels`. What is looked for in the file
    are `levels`. The outcomes of the checks, see `check_structures`, are appended to `reports`.

    Raises UserError for wrong input, an empty split, a level without any label in training or
    validation, labels of copies that contradict each other, conformers of the data among those of
    `valid_source`, or what the checks refuse and `accepted` does not cover.
    """
    path = shown_path(source, levels=levels)
    refuse_untold(source)
    references = labels_in_file(source, levels=levels)
    refuse_absent_keys(source, levels=levels)
    if has_frames(source):
        _refuse_absent_labels(labels, references, source, levels)
    else:
        _refuse_absent_forces(labels, references, source, levels)
    if rows == "common":
        _refuse_absent_levels(labels, references, common_levels, path)
    everything = join_labels(labels, references)
    # Of forces that are only evaluated against, a sample proves sign and unit.
    samples: dict[str, Labels] = {
        f"sample of {level.id}": {level: properties}
        for level, properties in everything.items()
        if properties.forces and not labels.get(level, Properties.E).forces
    }
    with (
        open_data(source, levels=levels) as file,
        ReadingBar(path, 3, hidden=has_frames(source)) as bar,
    ):
        index = index_ani1x(
            file,
            path,
            labels,
            references=references,
            common_levels=common_levels,
            rows=rows,
            bar=bar,
        )
        if not len(index.rows):
            names = ", ".join(level.id for level in common_levels)
            n_common = int(index.is_common.sum())
            remedy = f"Of {len(index.is_common)} conformers, {n_common} carry all of {names}."
            raise UserError(f"{path}: no conformer has the labels of the experiment. {remedy}")
        mapped = is_too_large(index.bytes_of_atoms(rows, labels), path)
        drawn = draw_splits(
            index,
            path,
            references,
            rows=rows,
            split_by=split_by,
            seed=split_seed,
            bar=bar,
            ignore_cell=accepted.ignore_cell,
            mapped=mapped,
        )
        members = split_rows(index.rows, drawn.splits, validates_elsewhere=valid_source is not None)
        wanted = {
            name: index.part(of_split, everything, forces=everything if name == "test" else labels)
            for name, of_split in members.items()
        }
        for name, labels_of_sample in samples.items():
            (level,) = labels_of_sample
            rows_of_sample = _sample_for_sign(index, members["train"], level)
            wanted[name] = index.part(rows_of_sample, labels_of_sample)
        groups, coordinates, first_of_row = index.groups, drawn.coordinates, drawn.first
        splits = list(members)
        del drawn, index, members  # before the forces, which take as much as all that was read
        give_back()
        parts = read_parts(path, groups, wanted, bar=bar, coordinates=coordinates, mapped=mapped)
        del wanted, coordinates
    if accepted.ignore_cell:
        parts = {name: as_molecules(part) for name, part in parts.items()}
    give_back()
    n_copies = 0
    for name in splits:
        parts[name], n = join_agreeing(parts[name], path, first_of_row[parts[name].rows])
        n_copies += n
    del first_of_row
    give_back()
    n_of_valid = 0
    if valid_source is not None:
        parts, n_of_valid = _with_valid(
            parts, path, valid_source, labels, levels, ignore_cell=accepted.ignore_cell
        )
    for split in ("train", "valid"):
        refuse_missing_level(parts[split], labels, split, path)
    sampled = [parts.pop(name) for name in samples]
    found = []
    if valid_source is not None:
        found.append(
            pass_gate(parts["valid"], levels, valid_source, accepted=accepted, n_copies=n_of_valid)
        )
    of_source = [parts[name] for name in splits if name != "valid" or valid_source is None]
    of_data = pass_gate(
        of_source, levels, source, accepted=accepted, samples=sampled, n_copies=n_copies
    )
    found.insert(0, of_data)
    if reports is not None:
        reports += found
    fractions = {
        level: value for level, value in (label_fractions or {}).items() if level in labels
    }
    for split in ("train", "valid"):
        parts[split] = keep_labels(parts[split].only(labels), labels, fractions, split_seed)
    return with_cells(parts)


def _with_valid(
    parts: dict[str, Structures],
    path: Path,
    source: DataPath,
    labels: Labels,
    levels: Levels,
    *,
    ignore_cell: bool,
) -> tuple[dict[str, Structures], int]:
    """The parts with the validation structures of another file, which share none with them.

    Also how many of that file repeat others.
    """
    shown = shown_path(source, levels=levels)
    found = labels_in_file(source, levels=levels)
    for level, properties in labels.items():
        if level not in found or set(properties) - set(found[level]):
            raise UserError(
                f"{shown}: the validation file has no labels {level.label}/{properties}, which the "
                f"experiment trains on. {_list_labels(found)}"
            )
    structures, _ = read_ani1x(source, labels, levels=levels)
    if ignore_cell:
        structures = as_molecules(structures)
    valid, n_copies = join_agreeing(structures, shown)
    for name in ("train", "test"):
        if n_shared := int(find_shared(valid, parts[name]).sum()):
            raise UserError(
                f"{shown}: {n_shared} of its {len(valid)} conformers are also in the {name} split "
                f"of {path}. What validates neither trains nor tests; remove them from one of the "
                "files."
            )
    ordered = {"train": parts.pop("train"), "valid": valid, "test": parts.pop("test")}
    return ordered | parts, n_copies


def _sample_for_sign(index: FileIndex, train: np.ndarray, level: Level) -> np.ndarray:
    """The training conformers whose forces are read to prove their sign and unit."""
    labelled = np.isfinite(index.energies[level.id][train])
    groups = draw_conformers(index.group_of_row[train], labelled)
    return np.concatenate([train[:0], *(train[members] for members in groups)])


def refuse_missing_level(part: Structures, labels: Labels, split: str, path: Path) -> None:
    """Raise UserError if a level has no label at all among the structures of a split."""
    for level, properties in labels.items():
        counts = {"energy": int(part.has_energy(level).sum())}
        if properties.forces:
            counts["forces"] = int(part.has_forces(level).sum())
        if properties.stress:
            counts["stress"] = int(part.has_stress(level).sum())
        for name, count in counts.items():
            if count == 0:
                raise UserError(
                    f"{path}: level {level.id} ({level.label}) has no {name} label in the {split} "
                    f"split of {len(part)} structures. See 'hippynn-mf data info {path}'; leave "
                    "the level out, or supply data that carries it."
                )


def _refuse_absent_labels(labels: Labels, found: Labels, source: DataPath, levels: Levels) -> None:
    """Raise UserError for labels that data read structure by structure do not have at all."""
    path = shown_path(source, levels=levels)
    for level, properties in labels.items():
        kinds = [] if level in found else [ENERGY]
        if properties.forces and not (level in found and found[level].forces):
            kinds.append(FORCES)
        if properties.stress and not (level in found and found[level].stress):
            kinds.append(STRESS)
        if not kinds:
            continue
        held = {name: each for of in held_names(source, levels=levels).values()
                for name, each in of.items()}  # fmt: skip
        keys = {ENERGY: energy_key, FORCES: forces_key, STRESS: stress_key}
        key = keys[kinds[0]](level)
        told = Told(None, levels)
        raise UserError(
            f"{path}: the experiment needs {key} (level {level.label}), and there is none. "
            f"{_list_labels(found)} {list_held(held)}"
            f"{propose_keys(held, told, [(level, kind) for kind in kinds])} Files of one level are "
            f"named as {level.label}=FILE with --train."
        )


def _refuse_absent_forces(labels: Labels, found: Labels, source: DataPath, levels: Levels) -> None:
    """Raise UserError for a level of which a file in the ANI-1x layout has energies alone."""
    for level, properties in labels.items():
        if level not in found:
            continue
        key: str | None = None
        if properties.forces and not found[level].forces:
            key, what = level.force_key, "forces"
        elif properties.stress and not found[level].stress:
            key, what = level.stress_name, "stress"
        if key is not None:
            with open_data(source, levels=levels) as file:
                groups = [item for item in file.values() if isinstance(item, h5py.Group)]
                keys = {key for group in groups for key in group}
            path = shown_path(source, levels=levels)
            raise UserError(
                f"{path}: the experiment needs {what} of level {level.label}, and "
                f"there are none. {_list_labels(found)} "
                f"{unknown_name_message('key', key, sorted(keys))}"
            )


def _refuse_absent_levels(
    labels: Labels, found: Labels, common_levels: Collection[Level], path: Path
) -> None:
    """Raise UserError for levels that only `--rows common` asks for."""
    absent = [level.label for level in common_levels if level not in found]
    if absent and all(level in found for level in labels):
        raise UserError(
            f"{path}: --rows common keeps the structures that have the energies of all of "
            f"{', '.join(level.label for level in common_levels)}, and there are none of "
            f"{', '.join(absent)}. {_list_labels(found)} With --rows all every structure with a "
            "label of the experiment is kept."
        )


def _list_labels(found: Labels) -> str:
    texts = [f"{level.label}/{properties}" for level, properties in found.items()]
    return f"Found: {', '.join(texts) or 'no known level'}."


def file_hash(source: DataPath, *, levels: Levels = KNOWN_LEVELS) -> str:
    """SHA-256 of a file, or of those of a folder's `*.h5` files in alphabetical order.

    That of a folder of DeePMD-kit is of the hashes and names of all files that are read.

    That of one file for each level is of their hashes and levels.
    """
    source = as_data_path(source, levels=levels)
    if not isinstance(source, Path):
        text = " ".join(f"{level}={file_hash(path)}" for level, path in source.items())
        return hashlib.sha256(text.encode()).hexdigest()
    if not source.exists():
        raise UserError(f"No file {source}. Check the path; relative paths start at {Path.cwd()}.")
    if is_deepmd(source):
        hashed = [f"{file.relative_to(source)} {file_hash(file)}" for file in files_of(source)]
        return hashlib.sha256("\n".join(hashed).encode()).hexdigest()
    if source.is_dir():
        hashes = [file_hash(file_path) for file_path in sorted(source.glob("*.h5"))]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    require_file(source, "a data file")
    with reading(source), source.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
