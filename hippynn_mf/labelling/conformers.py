"""Conformers of the user's molecules: `sample`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hippynn_mf.data.loading import file_hash
from hippynn_mf.engine import Engine
from hippynn_mf.errors import UserError
from hippynn_mf.files import refuse_output
from hippynn_mf.labelling.drawing import Draw, Drawing, make
from hippynn_mf.labelling.labelled_files import write_structures_to
from hippynn_mf.labelling.pools import content_key, named, read_pool, refuse_charged_pool
from hippynn_mf.labelling.progress import Shown
from hippynn_mf.labelling.provenance import provenance_key, provenance_text
from hippynn_mf.labelling.records import ERROR, Record, opened, remove
from hippynn_mf.labelling.registry import Named, refuse_without
from hippynn_mf.labelling.requests import SampleRequest
from hippynn_mf.labelling.running import Work
from hippynn_mf.labels import Properties

COMMAND = "hippynn-mf sample"


@dataclass(frozen=True)
class Sampled:
    """What was drawn.

    Attributes:
        n: conformers in `out`, `by_method` in all.
        refused: how many draws clashed, were broken, too high, or not computed; each was drawn
            again.
        failures: molecules, by number and formula, with fewer conformers than asked for, and why.
    """

    out: Path
    n: int
    by_method: Mapping[str, int]
    refused: Mapping[str, int]
    failures: tuple[str, ...]


def sample(
    molecules: str | Path,
    *,
    out: str | Path,
    engine: Engine | None = None,
    progress: bool = True,
    **more: Any,
) -> Sampled:
    """Draw conformers of every molecule of a file, and write them as extended XYZ in Å.

    `more` are further fields of `SampleRequest`; the `calculator` is GFN2-xTB where nothing else is
    said. A conformer depends on the seed, on its molecule's number and content, and on its own
    number alone. What is finished is kept beside `out` until all is, so that the same call
    continues.

    Raises UserError for wrong input, for periodic structures, charges and open shells, for a
    calculator that is unknown or not installed, and if nothing can be drawn.
    """
    request: SampleRequest = SampleRequest.of({"molecules": molecules, "out": out, **more})
    refuse_output(request.out, request.force, request.molecules)
    structures = read_pool(request.molecules)
    _refuse_periodic(structures, request.molecules)
    asked = Named.of(request.calculator, request.arguments)
    refuse_charged_pool(structures, request.molecules, "Conformers of others are not drawn.")
    refuse_without(asked.tried(), asked, Properties.EF)
    drawing = Drawing(
        named=asked,
        seed=request.seed,
        temperatures=request.temperatures,
        energy_cut_kcal_per_mol=request.energy_cut_kcal_per_mol,
    )
    identity = {**asked.identity(), **drawing.model_dump(mode="json", exclude={"named"})}
    draws = _draws(structures, request)
    with opened(request.work, identity, COMMAND) as records:
        n_before = len(draws.keys() & records.found.keys())
        shown = Shown(len(draws), n_before, "conformer", disable=not progress)
        try:
            settings = drawing.model_dump_json()
            Work(draws, make, settings, records, engine, request.block, shown).run()
        finally:
            shown.close()
        drawn = [(draw, records.found[key]) for key, draw in draws.items()]
        result = _write(request, structures, drawn, identity)
    remove(request.work)
    return result


def _refuse_periodic(structures: Sequence[Atoms], path: Path) -> None:
    periodic = [k for k, atoms in enumerate(structures) if atoms.pbc.any()]
    if periodic:
        raise UserError(
            f"{path}: {named(structures, periodic)} are periodic, and conformers are drawn of "
            'molecules. Remove them, or set pbc="F F F" if they are molecules in a box.'
        )


def _draws(structures: Sequence[Atoms], request: SampleRequest) -> dict[str, Draw]:
    """What is to be drawn, by keys of the molecule's content and number."""
    draws = {}
    for molecule, atoms in enumerate(structures):
        bare = Atoms(atoms.numbers, atoms.positions)
        for number in range(request.per):
            method = request.methods[number % len(request.methods)]
            key = content_key(bare, str(molecule), str(number), method)
            draws[key] = Draw(bare, molecule, number, method)
    return draws


def _write(
    request: SampleRequest,
    structures: Sequence[Atoms],
    drawn: Sequence[tuple[Draw, Record]],
    identity: Mapping[str, Any],
) -> Sampled:
    conformers, refused, by_method = [], Counter[str](), Counter[str]()
    errors: dict[int, list[str]] = {}
    text = provenance_text(
        {name: identity[name] for name in identity if name not in ("temperatures",)},
        molecules=request.molecules.name,
        molecules_sha256=file_hash(request.molecules),
    )
    for draw, record in drawn:
        if ERROR in record:
            errors.setdefault(draw.molecule, []).append(record[ERROR])
            continue
        atoms = Atoms(draw.atoms.numbers, np.array(record["positions"]))
        about = f"molecule {draw.molecule + 1}, conformer {draw.number + 1}"
        how = f"{draw.method} at {record['temperature']:.1f} K"
        atoms.info[provenance_key("positions")] = f"{about}, {how}; {text}"
        conformers.append(atoms)
        by_method[draw.method] += 1
        refused.update(record["refused"])
    failures = tuple(
        f"{named(structures, [molecule])}: {len(texts)} of {request.per} conformers: {texts[0]}"
        for molecule, texts in errors.items()
    )
    if not conformers:
        raise UserError(f"{request.molecules}: nothing can be drawn. {failures[0]}.")
    write_structures_to(request.out, conformers)
    return Sampled(request.out, len(conformers), by_method, refused, failures)
