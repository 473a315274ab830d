"""Files of others: nothing is written into them, and what says its level is read as no other."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import made_formats
import numpy as np
import pytest
from ase.db import connect

from hippynn_mf.data.formats.sources import read_frames
from hippynn_mf.errors import UserError
from hippynn_mf.potentials.structure_files import read_structures


def write_other_database(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE prices (value INTEGER)")
        connection.commit()


FOREIGN = {
    "a database of another program": ("a.db", write_other_database),
    "an empty database": ("a.db", Path.touch),
    "no database": ("a.db", lambda path: path.write_bytes(b"SQLite format 3\0" + 2000 * b"x")),
    "an empty lmdb": ("a.aselmdb", Path.touch),
    "no lmdb": ("a.aselmdb", lambda path: path.write_bytes(5000 * b"x")),
}


@pytest.mark.parametrize(("name", "write"), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("read", [read_frames, read_structures], ids=["data", "predict"])
def test_reading_writes_nothing_into_a_foreign_database(tmp_path, name, write, read, capfd):
    if name.endswith("lmdb"):
        pytest.importorskip("ase_db_backends")
    path = tmp_path / name
    write(path)
    before = path.read_bytes()
    with pytest.raises(UserError):
        list(read({"DZ": path}) if read is read_frames else read(path))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a.db", "a.aselmdb"])
def test_a_database_is_not_written_to_and_predicted_in_parts(tmp_path, name):
    if name.endswith("lmdb"):
        pytest.importorskip("ase_db_backends")
    path = tmp_path / name
    with connect(path) as database:
        for atoms in made_formats.structures():
            database.write(atoms, data={"parts": [[1], [1, 2]], "dipoles": atoms.positions})
    for beside in set(tmp_path.iterdir()) - {path}:
        beside.unlink()
    path.chmod(0o400)
    assert len(read_frames({"DZ": path}).frames) == 24
    found = list(read_structures(path))
    assert [set(atoms.arrays) for atoms in found] == 24 * [{"numbers", "positions", "dipoles"}]
    for part, expected in {"3:5": 2, "-1": 1, "::-1": 24, "C=1": 12}.items():
        assert len(list(read_structures(Path(f"{path}@{part}")))) == expected
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_bug_of_this_package_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    """Neither where ASE reads, nor where h5py does; ASE's own errors still are the file's."""
    xyz = made_formats.write_xyz(tmp_path / "a.xyz")
    trajectory = made_formats.write_trajectory(tmp_path / "a.traj")
    spice = made_formats.write_spice(tmp_path / "a.h5")
    monkeypatch.setattr("hippynn_mf.data.formats.xyz_frames._read_plain", our_mistake)
    with pytest.raises(KeyError, match="a mistake of ours"):
        read_frames({"DZ": xyz})
    monkeypatch.setattr("hippynn_mf.data.formats.ase_files._images", our_mistake)
    with pytest.raises(KeyError, match="a mistake of ours"):
        read_frames({"DZ": trajectory})
    monkeypatch.setattr("hippynn_mf.data.formats.grouped_hdf5._numbers", our_mistake)
    with pytest.raises(KeyError, match="a mistake of ours"):
        read_frames({"DZ": spice})
    monkeypatch.setattr("hippynn_mf.potentials.structure_files._images", our_mistake)
    with pytest.raises(KeyError, match="a mistake of ours"):
        list(read_structures(xyz))


def our_mistake(*_, **__):
    raise KeyError("a mistake of ours")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            made_formats.write_comp6,
            "energies is 'wb97x/6-31g[*]' by the file's lot, so of level DZ",
        ),
        (
            lambda path: made_formats.write_sgdml(path, theory=np.array("wb97x_dz")),
            "theory says that its labels are of level DZ, and it is read as CC",
        ),
    ],
)
def test_a_file_that_names_its_level_is_read_as_no_other(tmp_path, write, message):
    path = write(tmp_path / ("a.h5" if write is made_formats.write_comp6 else "a.npz"))
    with pytest.raises(UserError, match=message):
        read_frames({"CC": path})
    assert read_frames({"DZ": path}).frames
