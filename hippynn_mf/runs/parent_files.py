"""The finished model that runs extend: read from its file or its run folders, kept in theirs."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hippynn_mf.errors import UserError
from hippynn_mf.files import exists
from hippynn_mf.potentials.card import Card
from hippynn_mf.potentials.model_file import SHIPPED, checksum
from hippynn_mf.potentials.potential import Potential, split_constants
from hippynn_mf.runs.exporting import export_runs
from hippynn_mf.runs.folder import RunFolder, find_runs
from hippynn_mf.runs.parent import PARENT_FILE
from hippynn_mf.runs.settings import RunSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FoundParent:
    """A finished model that can be extended.

    Attributes:
        path: where it is, absolute: a model file, or run folders.
        card: what is known about it.
        members: seed → hash.
        run: settings of its first run; None of a model file.
    """

    path: tuple[Path, ...]
    card: Card
    members: dict[int, str]
    run: RunSettings | None


def find_parent(names: Sequence[str | Path], out: Path) -> FoundParent:
    """The model of a file, of the name of a shipped one, or of run folders that differ in seeds.

    What is not there any more is looked for among the runs in `out` that began with it. Raises
    UserError if there is none, and as `Potential.load` and `export_runs` do.
    """
    if not names:
        raise UserError("Name the model to extend: a model file, or run folders OUT/runs/NAME/*.")
    path = tuple(Path(SHIPPED.get(str(name), Path(name))).absolute() for name in names)
    if not all(map(exists, path)) and (begun := _begun(path, out)) is not None:
        log.warning(
            "%s is not there any more; the runs in %s go on with the copy that they began with",
            " ".join(map(str, path)),
            out,
        )
        return begun
    potential = _read(path)
    run = None
    if path[0].is_dir():
        folder = RunFolder(path[0])
        run = folder.read_settings()
    return FoundParent(path, potential.card, _hashes(potential), run)


def _read(path: tuple[Path, ...]) -> Potential:
    if len(path) > 1 or path[0].is_dir():
        return export_runs(path)
    return Potential.load(path[0])


def _begun(path: tuple[Path, ...], out: Path) -> FoundParent | None:
    """What an unfinished or finished run in a folder knows of the model at a path."""
    for folder in find_runs(out) if exists(out / "runs") else []:
        if not exists(folder.file(PARENT_FILE)):
            continue
        settings = folder.read_settings()
        parent = settings.parent
        if parent is not None and parent.path == path:
            card = Potential.load(folder.file(PARENT_FILE)).card
            return FoundParent(path, card, dict(parent.members), settings.parent_run)
    return None


def hash_of(potential: Potential) -> str:
    """SHA-256 of the parameters of a single member, of its architecture and of its levels.

    Not of its metrics: an evaluation on more structures makes it no other model.
    """
    (member,) = potential.members
    tensors, _ = split_constants(member.parameters.state_dict())
    card = potential.card
    about = [card.architecture.model_dump_json(include=set(FIXED)), *(
        level.model_dump_json() for level in card.levels
    )]  # fmt: skip
    return checksum(hashlib.sha256("\n".join(about).encode()).hexdigest(), tensors)


# What a model keeps when it is extended, beside its species.
FIXED = (
    "tensor_order",
    "n_interaction_layers",
    "n_atom_layers",
    "n_features",
    "n_sensitivities",
    "dist_soft_min",
    "dist_soft_max",
    "dist_hard_max",
)


def _hashes(potential: Potential) -> dict[int, str]:
    seeds = [member.seed for member in potential.card.members]
    return {seed: hash_of(potential.member(seed)) for seed in seeds}


def keep_parent(folder: RunFolder, settings: RunSettings) -> None:
    """Copy the member that a run extends into its folder, unless it is there.

    Raises UserError if it is gone, or not what it was when the settings were made.
    """
    parent, path = settings.parent, folder.file(PARENT_FILE)
    if parent is None or exists(path):
        return
    member = _read(parent.path).member(parent.member(settings.seed))
    _refuse_other(settings, member, parent.shown)
    member.save(path)


def parent_of_run(folder: RunFolder, settings: RunSettings) -> Potential:
    """The member that a run extends, from its folder; a UserError if it is another or damaged."""
    path = folder.file(PARENT_FILE)
    potential = Potential.load(path)
    _refuse_other(settings, potential, path)
    return potential


def _refuse_other(settings: RunSettings, member: Potential, source: object) -> None:
    parent = settings.parent
    assert parent is not None
    if hash_of(member) != parent.members[parent.member(settings.seed)]:
        raise UserError(
            f"{source} has changed since it was named: it is not the model that this run extends. "
            "Restore it, or choose another --out."
        )
