"""Kinds of input: a small valid one, how it is made wrong, and what the package does with it.

Using an input ends in one of two ways: it is accepted, and what was read is sound, or it is one
`UserError`. Everything else is a fault of the package.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for scripts/fuzz_counts.py

import made_xyz
import mutations
import planted
from format_kinds import FORMATS
from made_runs import heldout_errors, make_run, run_metrics
from potentials import random_potential

from hippynn_mf.data.convert import convert_data
from hippynn_mf.data.formats.comp6 import check_key_map, read_comp6, read_key_map
from hippynn_mf.data.info import describe_file
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.layouts import find_layout
from hippynn_mf.level_records import LevelRecord, read_levels
from hippynn_mf.levels import DZ
from hippynn_mf.potentials.model_file import checksum
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.structure_files import read_structures
from hippynn_mf.report.kept import read_runs, write_kept
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.run_file import read_run_file
from hippynn_mf.runs.summary import summarize

LONGEST_MESSAGE = 20_000  # characters; what a file holds is not poured over the terminal

Mutate = Callable[[bytes, Random, Path], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: of its file, below the folder that is used.
        make: writes the valid input into a folder.
        mutate: the content of the file, made wrong.
        use: reads the folder with the file; raises UserError, or AssertionError if what it
            accepted is not sound.
    """

    name: str
    make: Callable[[Path], object]
    mutate: Mutate
    use: Callable[[Path, Path], None]

    def outcome(self, folder: Path, random: Random) -> str:
        """`refused` or `accepted`: what became of one wrong input in an empty folder."""
        self.write(folder)
        path = folder / self.name
        path.write_bytes(self.mutate(path.read_bytes(), random, folder))
        try:
            self.use(folder, path)
        except UserError as error:
            message = str(error)
        else:
            return "accepted"
        assert 0 < len(message.strip()) < LONGEST_MESSAGE
        return "refused"

    def write(self, folder: Path) -> None:
        """Write the valid input."""
        for name, content in _made(self).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


@cache
def _made(kind: Kind) -> dict[str, bytes]:
    with TemporaryDirectory() as made:
        folder = Path(made)
        kind.make(folder)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _text(content: bytes, random: Random, folder: Path) -> bytes:
    return mutations.of_text(content, random)


def _json(content: bytes, random: Random, folder: Path) -> bytes:
    return mutations.of_json(content, random)


def _bytes(content: bytes, random: Random, folder: Path) -> bytes:
    return mutations.of_bytes(content, random)


def _lines(content: bytes, random: Random, folder: Path) -> bytes:
    """A line of JSON lines made wrong as JSON."""
    lines = content.splitlines(keepends=True)
    number = random.randrange(len(lines))
    lines[number] = mutations.of_json(lines[number], random) + b"\n"
    return b"".join(lines)


# data files


def _use_data(folder: Path, path: Path) -> None:
    described = describe_file(path)
    assert described["n_structures"] > 0
    target = folder / ("out.h5" if path.suffix == ".xyz" else "out.xyz")
    convert_data(path, target, drop_others=True)
    assert describe_file(target)["n_structures"] > 0


def _use_structures(folder: Path, path: Path) -> None:
    found = list(read_structures(path))
    starts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    n, place = 0, 0
    while place < len(starts) and starts[place].strip():
        place, n = place + int(starts[place]) + 2, n + 1
    assert len(found) == n


def _use_comp6(folder: Path, path: Path) -> None:
    assert find_layout(path) == "comp6"
    structures = read_comp6(path)
    assert np.isfinite(structures.positions).all()
    assert structures.atom_mask.any(axis=1).all()


def _make_xyz(folder: Path) -> None:
    made_xyz.save(folder / "in.xyz", made_xyz.label(made_xyz.molecules(2, names=["H2O", "N2"])))


# runs

NAME = "MF-DZ/EF-CC/E"
RUN = "results/runs/mf_dz_ef_cc_e/seed-0/"


def _make_run(folder: Path) -> None:
    metrics = run_metrics({"wb97x_dz": heldout_errors(1.0, 2.0)}, comp6={})
    run = make_run(folder / "results", NAME, 0, metrics, {"n_structures": {"train": 5}})
    run.append_epoch({"epoch": 0, "train": {}, "valid": {"x": 1.0}, "best": True, "wall_s": 1.0})
    run.file("log.txt").write_text("done\n")
    arrays = {"heldout.reference.wb97x_dz.energy": np.ones(3), "heldout.rows": np.arange(3)}
    content = run.read_metrics()
    np.savez(run.file("predictions.npz"), **arrays)
    run.file("metrics.json").write_text(json.dumps(content))


def _make_kept(folder: Path) -> None:
    _make_run(folder / "before")
    write_kept(folder / "results", read_runs(folder / "before" / "results"), [])


def _use_runs(folder: Path, path: Path) -> None:
    out = folder / "results"
    for run in read_runs(out):
        target = RunFolder.of(out, run.settings).path.resolve()
        assert target.parent.parent == (out / "runs").resolve()
        if run.folder is not None:
            run.folder.read_log(3)
            assert run.folder.n_epochs >= 0
            if run.folder.is_finished:
                run.folder.read_predictions()
                summarize(run.folder)


# what users write


def _make_levels(folder: Path) -> None:
    (folder / "levels.json").write_text(
        json.dumps([LevelRecord.of(level).model_dump(mode="json") for level in [DZ]])
    )


def _make_keys(folder: Path) -> None:
    keys = {"wb97x_dz": {"energy": "energies", "gradient": "forces"}, "CC": {"energy": "cc"}}
    (folder / "keys.json").write_text(json.dumps(keys))


def _use_keys(folder: Path, path: Path) -> None:
    assert check_key_map(read_key_map(path), path)


def _make_run_file(folder: Path) -> None:
    (folder / "data.xyz").touch()
    (folder / "run.toml").write_text(
        'data = "data.xyz"\nseeds = [0, 1]\nrows = "all"\npreset = "quick"\n\n[labels]\n'
        'DZ = "EF"\nCC = "E"\n\n[hyperparameters]\nn_features = 8\nlearning_rate = 0.001\n'
    )


# model files


def _make_model(folder: Path) -> None:
    random_potential({"DZ": "EF", "CC": "E"}, n_members=2).save(folder / "model.safetensors")


def _model(content: bytes, random: Random, folder: Path) -> bytes:
    """Bytes, or a card made wrong with the right checksum."""
    if random.randrange(3) == 0:
        return mutations.of_bytes(content, random)
    from safetensors.torch import load

    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    metadata = header["__metadata__"]
    text = mutations.of_json(metadata["hippynn_mf"].encode(), random).decode(errors="replace")
    metadata["hippynn_mf"] = text
    metadata["sha256"] = checksum(text, load(content))
    new = json.dumps(header).encode()
    return struct.pack("<Q", len(new)) + new + content[8 + size :]


def _use_model(folder: Path, path: Path) -> None:
    potential = Potential.load(path)
    assert len(potential.members) == len(potential.card.members)
    digest = hashlib.sha256(potential.card.model_dump_json().encode())
    assert digest.hexdigest()


KINDS: dict[str, Kind] = {
    "HDF5, ANI-1x layout": Kind(
        "in.h5",
        lambda f: planted.write_ani1x(f / "in.h5", {"H2O": 3, "N2": 2}),
        mutations.of_hdf5,
        _use_data,
    ),
    "HDF5, COMP6 layout": Kind(
        "in.h5", lambda f: planted.write_comp6(f / "in.h5", 2), mutations.of_hdf5, _use_comp6
    ),
    "extended XYZ, labels": Kind("in.xyz", _make_xyz, _text, _use_data),
    "extended XYZ, prediction": Kind("in.xyz", _make_xyz, _text, _use_structures),
    "run folders, experiment.json": Kind(RUN + "experiment.json", _make_run, _json, _use_runs),
    "run folders, metrics.json": Kind(RUN + "metrics.json", _make_run, _json, _use_runs),
    "run folders, epochs.jsonl": Kind(RUN + "epochs.jsonl", _make_run, _lines, _use_runs),
    "run folders, predictions.npz": Kind(RUN + "predictions.npz", _make_run, _bytes, _use_runs),
    "kept results": Kind("results/runs.jsonl", _make_kept, _lines, _use_runs),
    "levels (JSON)": Kind("levels.json", _make_levels, _json, lambda f, p: _ignore(read_levels(p))),
    "key maps (JSON)": Kind("keys.json", _make_keys, _json, _use_keys),
    "run files (TOML)": Kind(
        "run.toml", _make_run_file, _text, lambda f, p: _ignore(read_run_file(p))
    ),
    "model files": Kind("model.safetensors", _make_model, _model, _use_model),
    **{title: Kind(*entry) for title, entry in FORMATS.items()},
}


def _ignore(value: object) -> None:
    """What was read, which is sound as it is."""
