"""Whatever a file is, and wherever one cannot be written: one line, exit code 2, nothing left."""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import made_xyz
import numpy as np
import planted
import pytest
from made_runs import (
    TINY_OPTIONS,
    exit_code,
    files_below,
    heldout_errors,
    make_run,
    make_settings,
    run_metrics,
)
from potentials import random_potential, trained_run

from hippynn_mf.data.formats import hdf5_links, xyz_scan
from hippynn_mf.data.formats.comp6 import read_comp6
from hippynn_mf.data.formats.hdf5 import open_hdf5
from hippynn_mf.errors import UserError, printable
from hippynn_mf.files import (
    FileError,
    map_npy,
    parse_json,
    read_json,
    read_npz,
    read_text,
    replace_when_complete,
    require_file,
    write_text,
    writing,
)
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.report.kept import read_runs, write_kept
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.log import _LogHandler
from hippynn_mf.runs.settings import RunSettings


def said(capsys, *arguments) -> str:
    """The one line of a command that is refused."""
    assert exit_code(*arguments) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "% trained" not in line]
    *announced, line = lines  # which preset a training has
    assert not announced or (len(announced) == 1 and announced[0].startswith("Preset "))
    assert line.startswith("hippynn-mf: ")
    return line


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a good input of every kind."""
    monkeypatch.chdir(tmp_path)
    random_potential({"DZ": "EF", "CC": "E"}, n_members=2).save(tmp_path / "model.safetensors")
    made_xyz.save(tmp_path / "in.xyz", made_xyz.label(made_xyz.molecules(2)))
    planted.write_ani1x(tmp_path / "data.h5", 3)
    trained_run(tmp_path / "models", "SF-CC/E")
    make_run(tmp_path / "results", "SF-CC/E", 0, run_metrics({"ccsd(t)_cbs": heldout_errors(1.0)}))
    return tmp_path


# writing

OWN_DATA = ["--data", "data.h5", *TINY_OPTIONS]
WRITERS = {
    "predict": (["predict", "model.safetensors", "in.xyz", "--level", "CC", "--out"], "o.extxyz"),
    "extract": (["extract", "model.safetensors", "--level", "CC", "--out"], "o.safetensors"),
    "export": (["export", "models/runs/sf_cc_e/seed-0", "--out"], "o.safetensors"),
    "graph": (["graph", "SF-CC/E", "--out"], "o.png"),
    "convert": (["data", "convert", "data.h5"], "o.xyz"),
    "convert back": (["data", "convert", "in.xyz"], "o.h5"),
    "report": (["report", "results", "--out"], "o.html"),
    "new": (["new"], "o.toml"),
    "train": (["train", "SF-CC/E", *OWN_DATA, "--out"], "o"),
    "campaign": (["campaign", "--experiments", "SF-CC/E", *OWN_DATA, "--out"], "o"),
}
WRITING = list(WRITERS)
needs_sys = pytest.mark.skipif(not Path("/sys").is_dir(), reason="Linux has a folder for no one")


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("place", ["file/", pytest.param("/sys/", marks=needs_sys), "file/in/"])
def test_a_place_that_cannot_be_written_is_one_line(here, capsys, name, place):
    command, target = WRITERS[name]
    (here / "file").write_text("no folder")
    before = files_below(here)
    more = ["in.xyz"] if name == "new" else []
    text = said(capsys, *command, place + target, *more)
    assert any(word in text for word in (place.strip("/"), target))
    assert files_below(here) == before


@pytest.mark.parametrize("name", [n for n in WRITING if n not in ("train", "campaign")])
def test_a_folder_in_place_of_a_file_is_one_line(here, capsys, name):
    command, target = WRITERS[name]
    (here / target).mkdir()
    more = ["in.xyz"] if name == "new" else []
    assert target in said(capsys, *command, target, *more)
    assert list((here / target).iterdir()) == []


def _write_half(path, code):
    with replace_when_complete(path) as partial:
        partial.write_text("half")
        raise OSError(code, os.strerror(code), str(partial))


CODES = [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EPERM]


@pytest.mark.parametrize("code", CODES)
def test_what_the_system_says_of_writing_names_file_and_remedy(tmp_path, code):
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(FileError) as caught:
        _write_half(path, code)
    assert caught.value.errno == code
    text = str(caught.value)
    assert str(tmp_path) in text
    assert any(word in text for word in ("Make room", "Check", "Choose", "Try again"))
    assert files_below(tmp_path) == {"out.json": b"old"}


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match=r"There is no folder .*nowhere\. Make it first"):
        write_text(tmp_path / "nowhere" / "a.txt", "text")


def test_an_error_of_the_system_that_nobody_expected_is_one_line(capsys, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.EIO, "Input/output error", "/data/x.h5")

    monkeypatch.setattr("hippynn_mf.potentials.potential.Potential.load", fail)
    assert "/data/x.h5: Input/output error" in said(capsys, "card", "mini-ani1x")


def test_what_files_say_neither_fails_nor_steers_a_terminal():
    assert printable("a\x1b[2Jb\ud800c\nd") == "a\\x1b[2Jb\\ud800c\nd"
    assert printable("Å, é, −1") == "Å, é, −1"


# reading

READERS = {
    "model": ["card", "{}"],
    "structures": ["predict", "model.safetensors", "{}", "--level", "CC", "--out", "o.extxyz"],
    "data": ["data", "info", "{}"],
    "training data": ["train", "SF-CC/E", "--data", "{}", "--out", "o", *TINY_OPTIONS],
    "levels": ["data", "info", "data.h5", "--levels", "{}"],
    "run file": ["train", "{}"],
    "key map": [
        *("train", "SF-CC/E", "--data", "data.h5", "--comp6", "data.h5", "--comp6-keys", "{}"),
        *("--out", "o", *TINY_OPTIONS),
    ],
}
SUFFIX = {"structures": ".xyz", "run file": ".toml", "model": ".safetensors"}


def _deep(path):
    path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def _binary(path):
    path.write_bytes(bytes(range(256)) * 4)


def _sparse(path):
    """Larger than any file of its kind, though it takes no room."""
    with path.open("wb") as stream:
        stream.truncate(2**31)


BAD = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "binary": _binary,
    "deep": _deep,
    "empty": Path.touch,
    "circle": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse": _sparse,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_is_none_is_one_line(here, capsys, reader, bad):
    for suffix in (SUFFIX.get(reader, ".json" if reader in ("levels", "key map") else ".h5"),):
        path = here / f"bad{suffix}"
        BAD[bad](path)
        assert "bad" in said(capsys, *[each.format(path) for each in READERS[reader]])
        assert not list(here.glob("*o.extxyz*"))


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["experiment.json", "metrics.json", "predictions.npz"])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_run_is_one_line(here, capsys, name, bad):
    run = here / "results" / "runs" / "sf_cc_e" / "seed-0"
    (run / name).unlink(missing_ok=True)
    BAD[bad](run / name)
    commands = [["tables", "results", "--partial"], ["export", run, "--out", "o.safetensors"]]
    if name == "predictions.npz":
        commands = [["figures", "results", "--only", "parity", "--partial"]]
    for command in commands:
        said(capsys, *command)


def test_names_of_a_received_run_never_lead_outside(tmp_path):
    settings = make_settings("SF-CC/E")
    for slug in ("../..", "a/b", "/etc", "..", ".", "a\\b", "", "x\n"):
        content = settings.model_dump(mode="json") | {"slug": slug}
        run = RunFolder(tmp_path / "runs" / "sf_cc_e" / "seed-0")
        run.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": 2, "settings": content})
        run.file("experiment.json").write_text(text)
        with pytest.raises(UserError, match="slug"):
            run.read_settings()
        with pytest.raises(ValueError, match="slug"):
            RunSettings.model_validate_json(json.dumps(content))


def test_names_of_received_results_never_lead_outside(tmp_path):
    make_run(tmp_path / "runs", "SF-CC/E", 0, run_metrics({"ccsd(t)_cbs": heldout_errors(1.0)}))
    write_kept(tmp_path / "kept", read_runs(tmp_path / "runs"), [])
    lines = tmp_path / "kept" / "runs.jsonl"
    lines.write_text(lines.read_text().replace('"sf_cc_e"', '"../../x"'))
    with pytest.raises(UserError, match=r"runs\.jsonl, line 1.*slug"):
        read_runs(tmp_path / "kept")


# JSON and arrays


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1, "a": 2}', "'a' is there twice"),
        ('{"b": [{"c": 1, "c": 1}]}', "'c' is there twice"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ("[" * 100_000, "nested too deeply|not valid JSON"),
        ("9" * 5000, "not valid JSON"),
        ("{", "not valid JSON"),
    ],
)
def test_json_that_can_be_read_in_two_ways_or_none_is_refused(tmp_path, text, expected):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=expected):
        read_json(path)
    with pytest.raises(UserError, match=r"here.*" + expected):
        parse_json(text, "here")


def test_a_large_text_is_refused_before_it_is_read(tmp_path):
    _sparse(tmp_path / "a.json")
    with pytest.raises(FileError, match=r"2,147,483,648 bytes.*at most 67,108,864"):
        read_text(tmp_path / "a.json")
    with pytest.raises(FileError, match="zero byte"):
        require_file(Path("a\0b"))


def test_damaged_arrays_are_one_message(tmp_path):
    path = tmp_path / "predictions.npz"
    np.savez(path, a=np.arange(1000.0), b=np.ones(3))
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:500],
        b"no zip" + whole[6:],
        whole[:200] + b"\xff" * 50 + whole[250:],
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"predictions\.npz is damaged.*Restore"):
            read_npz(path)
    np.savez(path, a=np.array([{}]))  # pickled
    with pytest.raises(FileError, match="damaged"):
        read_npz(path)
    np.savez_compressed(path, a=np.zeros(10**7))
    with pytest.raises(FileError, match="says that it holds 80,000,"):
        read_npz(path)


# HDF5


@pytest.mark.parametrize("header", ["{'descr': (", "{'descr': '<f8'", "}", "[" * 200, "0x", "é"])
def test_a_damaged_header_of_an_array_is_one_error(tmp_path, header):
    content = header.encode()
    array = b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content
    (tmp_path / "a.npy").write_bytes(array)
    with pytest.raises(FileError, match=r"a\.npy is damaged.*Copy it again"):
        map_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as members:
        members.writestr("x.npy", array)
    with pytest.raises(FileError, match=r"a\.npz is damaged.*Restore"):
        read_npz(tmp_path / "a.npz")


def _external_link(file, outside):
    file["H2O/x"] = h5py.ExternalLink(str(outside), "/secret")


def _external_group(file, outside):
    file["other"] = h5py.ExternalLink(str(outside), "/")


def _dangling(file, outside):
    file["H2O/x"] = h5py.SoftLink("/nowhere")


def _circle(file, outside):
    file["H2O/x"] = h5py.SoftLink("/H2O/x")


def _storage(file, outside):
    del file["H2O/coordinates"]
    shape = (3, 3, 3)
    file.create_dataset("H2O/coordinates", shape, "f4", external=[(str(outside), 0, 108)])


def _virtual(file, outside):
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(outside), "secret", shape=(3,))
    file.create_virtual_dataset("H2O/x", layout)


def _unstored(file, outside):
    file.create_dataset("H2O/x", (10**9, 3, 3), "f8", chunks=True)


def _no_text(file, outside):
    file[b"H2O/caf\xe9"] = 1.0


def _below_a_second_name(file, outside):
    file["N2/deep"] = file["H2O"]  # a hard link, to what has a link outside
    file["H2O/x"] = h5py.ExternalLink(str(outside), "/secret")


LINKS = {
    _external_link: "/H2O/x is an external link, to '/secret' in '.*outside.h5'",
    _external_group: "/other is an external link",
    _dangling: "/H2O/x is a soft link to '/nowhere', which is not there",
    _circle: "/H2O/x is a soft link to '/H2O/x', which is not there",
    _storage: "/H2O/coordinates has external storage, in '.*outside.h5'",
    _virtual: "/H2O/x is a virtual data set",
    _unstored: "/H2O/x says that it has 72,000,000,000 bytes, of which 0 are stored",
    _below_a_second_name: "is an external link",
    _no_text: "the name of /H2O/caf\ufffd is no text",
}


@pytest.mark.parametrize("make", LINKS)
@pytest.mark.parametrize("command", ["info", "convert", "test set", "training", "comp6"])
def test_nothing_in_an_hdf5_file_leads_outside(tmp_path, capsys, make, command):
    outside, path = tmp_path / "outside.h5", planted.write_ani1x(tmp_path / "data.h5", 3)
    with h5py.File(outside, "w") as file:
        file["secret"] = np.arange(3.0)
    if command == "comp6":
        with h5py.File(path, "a") as file:
            make(file, outside)
        with pytest.raises(UserError, match=LINKS[make]):
            read_comp6(path)
        return
    with h5py.File(path, "a") as file:
        make(file, outside)
    train = ["train", "SF-CC/E", *TINY_OPTIONS, "--out", tmp_path / "out"]
    commands = {
        "info": ["data", "info", path],
        "convert": ["data", "convert", path, tmp_path / "out.xyz", "--drop-others"],
        "training": [*train, "--data", path],
        "test set": [*train, "--test", f"mine={path}"],
    }
    before = files_below(tmp_path)
    text = said(capsys, *commands[command])
    assert re.search(LINKS[make], text)
    assert files_below(tmp_path) == before


def test_soft_links_and_second_names_inside_are_followed(tmp_path):
    path = planted.write_ani1x(tmp_path / "data.h5", 3)
    with h5py.File(path, "a") as file:
        file["H2O/again"] = h5py.SoftLink("/H2O/coordinates")
        file["H2O/self"] = file["H2O"]  # a circle of hard links ends
    with open_hdf5(path) as file:
        assert file["H2O/again"].shape == (3, 3, 3)


def test_a_changed_file_is_looked_through_again(tmp_path):
    path = planted.write_ani1x(tmp_path / "data.h5", 3)
    with open_hdf5(path):
        pass
    with h5py.File(path, "a") as file:
        file["x"] = h5py.ExternalLink("other.h5", "/")
    with pytest.raises(UserError, match="external link"), open_hdf5(path):
        pass


def test_groups_without_end_are_refused(tmp_path):
    path = tmp_path / "deep.h5"
    with h5py.File(path, "w") as file:
        file.create_group("/".join("a" * (hdf5_links.DEEPEST + 2)))
    with pytest.raises(UserError, match="groups more than 32 deep"), open_hdf5(path):
        pass


# extended XYZ

WATER = "3\nProperties=species:S:1:pos:R:3\nO 0 0 0\nH 0.97 0 0\nH -0.24 0.94 0\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WATER + "\n" + WATER, "line 6 is blank, and more follows"),
        (WATER + "1" + "0" * 20 + "\n", "line 6: a structure of 100000000000000000000 atoms"),
        (WATER.replace("pos:R:3", "pos:R:99999999999"), "line 2: a property of 99999999999"),
        (WATER.replace("pos:R:3", "pos:R: 9_999_999"), "line 2: a property of 9_999_999"),
        (WATER.replace("pos:R:3", ":a:R:999" * 11), "line 2: 10990 columns"),
        (WATER + "3\n" + "x" * 2**21, "more than 1,048,576 characters"),
        (WATER + "9" * 5000 + "\n", "a structure of 9999999999"),
        (WATER + "5\nx\nO 0 0 0\n", "is truncated: structure 2"),
    ],
)
def test_xyz_files_are_looked_through_before_they_are_read(here, capsys, text, expected):
    path = here / "bad.xyz"
    path.write_text(text)
    with pytest.raises(UserError, match=expected):
        xyz_scan.count_structures(path)
    for command in (
        ["data", "info", path],
        ["predict", "model.safetensors", path, "--level", "CC", "--out", "o.extxyz"],
    ):
        assert str(path) in said(capsys, *command)
    assert not (here / "o.extxyz").exists()


@pytest.mark.parametrize("command", [["data", "info"], ["new", "my.toml"], ["data", "convert"]])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("packed.xyz", "It is compressed: unpack it first, with gunzip"),
        ("table.csv", "neither its name nor its content tells the format"),
        ("table.csv", "extended XYZ (.xyz or .extxyz)"),
    ],
)
def test_a_file_of_another_format_is_told_what_is_read(here, capsys, command, name, expected):
    content = (here / "in.xyz").read_bytes()
    (here / name).write_bytes(gzip.compress(content) if "packed" in name else content)
    before = files_below(here)
    more = [] if command[1] != "convert" else ["o.h5"]
    assert expected in said(capsys, *command, name, *more).replace("\n", " ")
    assert files_below(here) == before


def test_what_is_no_run_is_told_what_a_run_is(here, capsys):
    for name in ("results", "nowhere"):
        assert "Runs are folders OUT/runs/EXPERIMENT/seed-K" in said(capsys, "evaluate", name)


# hyperparameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_features", 10**9),
        ("n_sensitivities", 10**6),
        ("n_atom_layers", 10**6),
        ("n_interaction_layers", 10**6),
        ("max_epochs", 10**12),
        ("dist_hard_max", 1e9),
        ("batch_size", 10**12),
        ("eval_batch_size", 10**12),
        ("patience", 10**12),
        ("meta_steps", 10**12),
        ("force_weight", 1e30),
        ("species", [0, 10**6]),
    ],
)
def test_absurd_sizes_are_refused(name, value):
    with pytest.raises(UserError, match=rf"{name}.*less than or equal to"):
        get_hyperparameters("quick", {name: value})


def test_a_reader_that_has_seen_enough_is_no_fault():
    """As `hippynn-mf settings --json | head -1`."""
    command = [sys.executable, "-m", "hippynn_mf.cli.main"]
    code = "from hippynn_mf.cli.main import main; main(['settings', '--json'])"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err


def test_writing_passes_on_what_is_no_error_of_files(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "a"):
        raise ZeroDivisionError


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_prints_no_traceback(capsys):
    with suppress(OSError), Path("/dev/full").open("w", encoding="utf-8") as stream:
        handler = _LogHandler(stream)
        handler.handle(logging.makeLogRecord({"msg": "epoch 3"}))
        assert capsys.readouterr().err == ""
        handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
        assert "Logging error" in capsys.readouterr().err
