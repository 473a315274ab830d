"""From a file to the train, valid and test structures of an experiment."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from hippynn_mf.data.ani1x import Rows, labels_in_file, read_ani1x
from hippynn_mf.data.signs import require_force_sign
from hippynn_mf.data.splits import split_structures
from hippynn_mf.data.structures import Structures
from hippynn_mf.errors import UserError
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level, get_level

log = logging.getLogger(__name__)


def load_splits(
    path: Path,
    labels: Labels,
    *,
    common_levels: Collection[Level],
    rows: Rows,
    split_seed: int,
) -> Mapping[str, Structures]:
    """Read a file in the ANI-1x layout and split it.

    The test structures keep the labels of every level in the file, as references; the others keep
    those of the experiment.

    Raises UserError for wrong input, an empty split, a level without any label in training or
    validation, or forces whose sign is proved wrong.
    """
    structures, is_common = read_ani1x(
        path, labels, references=labels_in_file(path), common_levels=common_levels, rows=rows
    )
    if not len(structures):
        names = ", ".join(level.id for level in common_levels)
        remedy = f"Of {len(is_common)} conformers, {int(is_common.sum())} carry all of {names}."
        raise UserError(f"{path}: no conformer has the labels of the experiment. {remedy}")
    parts = split_structures(structures, is_common, split_seed)
    for split in ("train", "valid"):
        refuse_missing_level(parts[split], labels, split, path)
    for name in structures.forces:  # trained on or only evaluated against
        outcome = require_force_sign(parts["train"], get_level(name), str(path))
        if outcome.verdict == "undecided":
            log.warning("%s: energies do not prove the sign of %s forces", path, name)
    return {name: part if name == "test" else part.only(labels) for name, part in parts.items()}


def refuse_missing_level(part: Structures, labels: Labels, split: str, path: Path) -> None:
    """Raise UserError if a level has no label at all among the structures of a split."""
    for level, properties in labels.items():
        counts = {"energy": int(part.has_energy(level).sum())}
        if properties.forces:
            counts["forces"] = int(part.has_forces(level).sum())
        for name, count in counts.items():
            if count == 0:
                raise UserError(
                    f"{path}: level {level.id} ({level.label}) has no {name} label in the {split} "
                    f"split of {len(part)} structures. See 'hippynn-mf data info {path}'; leave "
                    "the level out, or supply data that carries it."
                )


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of those of a folder's `*.h5` files in alphabetical order."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"No file {path}. Check the path; relative paths start at {Path.cwd()}.")
    if path.is_dir():
        hashes = [file_hash(file_path) for file_path in sorted(path.glob("*.h5"))]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
