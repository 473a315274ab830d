"""Labels of a pool of structures by any calculator: `label`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from hippynn_mf.cells import is_crystal
from hippynn_mf.data.loading import file_hash
from hippynn_mf.engine import Engine
from hippynn_mf.errors import UserError
from hippynn_mf.files import refuse_output
from hippynn_mf.labelling.families import PYSCF
from hippynn_mf.labelling.labelled_files import refuse_labelled, write_failed, write_labelled
from hippynn_mf.labelling.pools import bare, content_key, named, read_pool, refuse_charged_pool
from hippynn_mf.labelling.progress import Shown
from hippynn_mf.labelling.provenance import provenance_text
from hippynn_mf.labelling.records import ERROR, Record, opened, remove
from hippynn_mf.labelling.registry import Named, refuse_without
from hippynn_mf.labelling.requests import LabelRequest
from hippynn_mf.labelling.running import Work
from hippynn_mf.labelling.single_points import SinglePoints, make
from hippynn_mf.labels import Properties
from hippynn_mf.level_records import levels_of_records
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels

COMMAND = "hippynn-mf label"
# Of charges and open shells, by whether the calculator is told of them.
REMEDIES = {
    True: "--accept-charged hands their charge and spin to the calculator.",
    False: "With --accept-charged the calculator sees them as they are, and must know what to do.",
}


@dataclass(frozen=True)
class Labelled:
    """What has become of a pool.

    Attributes:
        n: structures with labels, in `out`; `n_before` of them were there from an interrupted
            command.
        failures: what went wrong, with number and formula of the structure; they are in `failed`.
    """

    out: Path
    n: int
    n_before: int
    properties: Properties
    failures: tuple[str, ...]
    failed: Path


def label(
    pool: str | Path,
    *,
    level: str,
    calculator: str,
    out: str | Path,
    levels: Levels = KNOWN_LEVELS,
    engine: Engine | None = None,
    progress: bool = True,
    **more: Any,
) -> Labelled:
    """Label the structures of a file and write them as extended XYZ in eV and Å.

    `energy_<level>`, `forces_<level>` and, of crystals, `stress_<level>` are added to what the file
    says already; `more` are further fields of `LabelRequest`. An `engine` of
    `hippynn_mf.campaign.engines` spreads the work, else it is done here. What is finished is kept
    beside `out` until all is, so that the same call continues. Structures that fail are written to
    `failed` with the reason.

    Raises UserError for wrong input, for structures that are charged or no singlets, for a
    calculator that is unknown, not installed, or lacks what is asked for, and if every structure
    fails.
    """
    values = {"pool": pool, "level": level, "calculator": calculator, "out": out, **more}
    request: LabelRequest = LabelRequest.of(values)
    of_level = level_of(request.level, levels)
    refuse_output(request.out, request.force, request.pool)
    # What an interrupted command has written, of which its folder tells, is written again.
    refuse_output(request.failed, request.force or request.work.is_dir(), request.pool)
    structures = read_pool(request.pool)
    refuse_labelled(structures, of_level, request.pool)
    asked = _settings(request, of_level, structures)
    if not request.accept_charged:
        refuse_charged_pool(structures, request.pool, REMEDIES[asked.named.knows_charges])
    identity = {**asked.named.identity(), "properties": str(asked.properties)}
    keys = [content_key(atoms) for atoms in structures]
    with opened(request.work, identity, COMMAND) as records:
        items = {key: bare(atoms) for key, atoms in zip(keys, structures, strict=True)}
        n_before = len(items.keys() & records.found.keys())
        shown = Shown(len(items), n_before, "structure", disable=not progress)
        try:
            settings = asked.model_dump_json()
            Work(items, make, settings, records, engine, request.block, shown).run()
        finally:
            shown.close()
        found = [records.found[key] for key in keys]
        n, failures = _write(request, structures, found, of_level, identity)
    remove(request.work)
    return Labelled(request.out, n, n_before, asked.properties, failures, request.failed)


def level_of(name: str, levels: Levels) -> Level:
    """The level of this name; one that is not known is declared by it, its label."""
    known = levels.find(name)
    if known is not None:
        return known
    for level in levels:
        for other in (level.id, level.label):
            if other.lower() == name.lower():
                raise UserError(
                    f"Level {name!r} is nearly {other}, and levels are told by every letter. Name "
                    f"{other}, or a label that is not so near."
                )
    (level,) = levels_of_records([name], f"--level {name}", levels=levels)
    return level


def _settings(request: LabelRequest, level: Level, structures: list[Atoms]) -> SinglePoints:
    """What workers are told, after it was tried here."""
    asked = Named.of(request.calculator, request.arguments)
    refuse_other_level(asked, level)
    calculator = asked.tried()
    properties = request.properties or asked.usual()
    refuse_without(calculator, asked, properties)
    if properties.stress and not any(
        a.pbc.all() and is_crystal(a.cell.array[None])[0] for a in structures
    ):
        raise UserError(
            f"{request.pool}: no structure is periodic along all axes, so none has a stress. Ask "
            "for --properties EF."
        )
    return SinglePoints(named=asked, properties=properties)


def refuse_other_level(asked: Named, level: Level) -> None:
    """Raise UserError where the package's own quantum chemistry is of another level."""
    label_of = {of: name for name, (of, _) in PYSCF.items()}
    if asked.name.startswith("pyscf:") and asked.rest in PYSCF:
        if PYSCF[asked.rest][0] != level.id:
            raise UserError(
                f"{asked.name} computes {asked.rest}; found --level {level.label}. Name "
                f"--level {asked.rest}."
            )
    elif level.id in label_of and asked.name.startswith("tblite:"):
        raise UserError(
            f"Level {level.label} is {level.method}/{level.basis}, and {asked.name} is not. Name "
            f"another --level; pyscf:{label_of[level.id]} computes this one."
        )


def _write(
    request: LabelRequest,
    structures: list[Atoms],
    records: list[Record],
    level: Level,
    identity: Mapping[str, Any],
) -> tuple[int, tuple[str, ...]]:
    """Write both files; the number of labels, and the failures."""
    good = [k for k, record in enumerate(records) if ERROR not in record]
    bad = [k for k, record in enumerate(records) if ERROR in record]
    failures = tuple(f"{named(structures, [k])}: {records[k][ERROR]}" for k in bad)
    if bad:
        failed = [structures[k] for k in bad]
        write_failed(request.failed, failed, [records[k] for k in bad], level)
    if not good:
        remove(request.work)  # so that the same command tries again
        raise UserError(
            f"{request.pool}: all {len(bad)} structures failed; they are in {request.failed}. The "
            f"first: {failures[0]}."
        )
    if not bad:
        request.failed.unlink(missing_ok=True)  # of a command that this one replaces
    pool = {"pool": request.pool.name, "pool_sha256": file_hash(request.pool)}
    text = provenance_text(identity, **pool)
    labelled = [structures[k] for k in good]
    write_labelled(request.out, labelled, [records[k] for k in good], level, text)
    return len(good), failures
