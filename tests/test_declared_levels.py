"""Levels in JSON: declared by users with --levels, and brought along by the runs that used them."""

from __future__ import annotations

import json

import h5py
import numpy as np
import planted
import pytest
from made_runs import (
    NO_COMPILER,
    TINY_OPTIONS,
    build_settings,
    exit_code,
    files_below,
    heldout_errors,
    make_run,
    run_metrics,
)

from hippynn_mf.campaign.status import read_status
from hippynn_mf.cli.texts import parse_levels
from hippynn_mf.errors import UserError
from hippynn_mf.level_records import (
    LevelRecord,
    levels_of_records,
    read_levels,
)
from hippynn_mf.levels import (
    DZ,
    KNOWN_LEVELS,
    PAPER_LEVELS,
    Level,
    Levels,
)
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.report.results import read_results
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.run_file import read_run_file

LOW = {
    "id": "low",
    "label": "LO",
    "method": "cheap",
    "basis": "none",
    "rank": -2,
    "energy_keys": ["hf_dz.energy"],
    "force_key": "wb97x_dz.forces",
    "self_energies_hartree": {"1": -0.4, "8": -75.0},
}
HIGH = LOW | {"id": "high", "label": "HI", "rank": -1.5, "energy_keys": ["hf_tz.energy"]}
NAME = "MF-LO/EF-HI/E"


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def levels_file(tmp_path):
    return write(tmp_path / "levels.json", [LOW, HIGH])


# Declared in a file.


def test_declared_levels_are_known_with_all_that_the_file_says(levels_file):
    known = read_levels(levels_file)
    low, high = known.get("LO"), known.get("HI")
    assert list(known) == [low, high, *KNOWN_LEVELS]
    assert known.get("low") is low
    assert low == Level(
        "low",
        "LO",
        "cheap",
        "none",
        -2.0,
        ("hf_dz.energy",),
        force_key="wb97x_dz.forces",
        self_energies={1: -0.4, 8: -75.0},
    )
    assert dict(low.self_energies) == {1: -0.4, 8: -75.0}
    assert high.energy_keys == ("hf_tz.energy",)
    assert KNOWN_LEVELS.find("LO") is None


def test_the_same_declaration_again_changes_nothing(levels_file):
    known = read_levels(levels_file)
    assert read_levels(levels_file, known) == known


def test_a_label_is_enough_and_the_order_is_that_of_the_declarations(tmp_path):
    order = ["PBE", "DZ", {"label": "X"}, "CC", "BEST"]
    known = read_levels(write(tmp_path / "levels.json", order))
    expected = ["PBE", "DZ", "X", "TZ", "MP2", "CC", "BEST"]
    assert [level.label for level in known if level.label in expected] == expected
    level = known.get("PBE")
    assert level == Level("PBE", "PBE", "PBE", "", 1.0, ("PBE.energy",), "PBE.forces", {})
    assert [known.get(name) for name in ("DZ", "TZ", "MP2", "CC")] == list(PAPER_LEVELS)


def test_three_lines_declare_a_level_and_own_keys_have_forces_where_they_name_them():
    text = [{"label": "X", "method": "GFN2-xTB", "rank": 5}, {"label": "Y", "energy_keys": ["e"]}]
    x, y = levels_of_records(text, "here")
    assert x == Level("X", "X", "GFN2-xTB", "", 5.0, ("X.energy",), "X.forces", {})
    assert y == Level("Y", "Y", "Y", "", 6.0, ("e",), None, {})


def test_labels_are_declared_by_option_file_and_run_file_alike(tmp_path):
    path = write(tmp_path / "levels.json", ["PBE", "BEST"])
    of_file = Request.of({"levels": parse_levels(str(path))}).known
    assert of_file == Request.of({"levels": parse_levels("PBE,BEST")}).known
    text = 'experiments = ["SF-PBE/E"]\nlevels = ["PBE", "BEST"]\n'
    run_file = tmp_path / "run.toml"
    run_file.write_text(text)
    assert read_run_file(run_file).known == of_file


def records_of(levels):
    return [LevelRecord.of(level).model_dump(mode="json") for level in levels]


def test_records_declare_the_levels_that_they_are_of(tmp_path):
    path = write(tmp_path / "paper.json", records_of(PAPER_LEVELS))
    assert read_levels(path) == KNOWN_LEVELS
    assert read_levels(path, Levels()) == Levels(PAPER_LEVELS)
    assert levels_of_records(records_of(PAPER_LEVELS), path) == PAPER_LEVELS


def without(record, name):
    return {key: value for key, value in record.items() if key != name}


WRONG = {
    "not JSON": ("{", r"levels\.json is not valid JSON"),
    "not text": ("\udcff", r"levels\.json is not a text file"),
    "no list": (LOW, "is not a list of levels: Input should be a valid array"),
    "no records": ([3], "is not a list of levels: 0: "),
    "none": ([], "declares no level"),
    "unknown field": (
        [LOW | {"forces": "f"}],
        r"0\.forces: Extra inputs .*may have id, label, .* needs a label",
    ),
    "no label": ([without(LOW, "label")], r"0\.label: Field required"),
    "against the order": (["CC", "LO", "DZ"], "DZ has rank 10, and stands after .* rank 41"),
    "the order of known ones": (["CC", "DZ", "LO"], "DZ has rank 10, and stands after .* rank 40"),
    "rank in words": ([LOW | {"rank": "low"}], r"0\.rank: .*valid number, found 'low'"),
    "rank of nothing": ([LOW | {"rank": float("nan")}], r"0\.rank: .*finite number"),
    "no energy": ([LOW | {"energy_keys": []}], r"0\.energy_keys: .*at least 1 item"),
    "one key": ([LOW | {"energy_keys": "e"}], r"0\.energy_keys: .*found 'e'"),
    "element": ([LOW | {"self_energies_hartree": {"H": -0.5}}], "H.*valid integer"),
    "dot in id": ([LOW | {"id": "l.o"}], r"0\.id: .*found 'l\.o'"),
    "twice": ([LOW, LOW], r"levels\.json: level low is there 2 times"),
    "id of another": (
        [LOW | {"id": "wb97x_dz"}],
        "Another level is known as wb97x_dz: label is 'LO'",
    ),
    "label of another": (
        [LOW | {"label": "DZ"}],
        r"json: Two levels of theory are named 'DZ', wb97x_dz and low;",
    ),
    "id that is a label": (
        [LOW | {"id": "CC"}],
        r"json: Two levels of theory are named 'CC', ccsd\(t\)_cbs and CC",
    ),
    "label of the first": ([LOW, HIGH | {"label": "LO"}], "named 'LO', low and high"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_declaration_is_refused(tmp_path, content, message):
    path = tmp_path / "levels.json"
    if isinstance(content, str):
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    else:
        write(path, content)
    with pytest.raises(UserError, match=message):
        read_levels(path)


def test_common_structures_have_every_known_level_of_the_data(levels_file, ani1x_file):
    (run,) = build_settings([get_experiment("SF-DZ/E")], [0], data=ani1x_file)
    assert run.common_levels == tuple(level.id for level in PAPER_LEVELS)
    with h5py.File(ani1x_file) as file:
        keys = set(file["CH4"])
    low, high = (read_levels(levels_file).get(name) for name in ("LO", "HI"))
    assert high.energy_keys[0] in keys
    assert low.energy_keys[0] not in keys
    (run,) = build_settings([get_experiment("SF-DZ/E")], [0], data=ani1x_file, levels=levels_file)
    in_data = [level.id for level in KNOWN_LEVELS if keys.issuperset(level.energy_keys)]
    assert run.common_levels == (high.id, *in_data)
    assert {level.id for level in PAPER_LEVELS} <= set(in_data)
    assert run.known.get("LO") == low


def test_a_file_that_is_not_there_is_refused_by_every_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (
        ["campaign"],
        ["train", "SF-LO/E"],
        ["graph", "SF-LO/E", "--out", "g.png"],
        ["data", "info", "data.h5"],
        ["data", "convert", "data.h5", "data.xyz"],
    ):
        assert exit_code(*command, "--levels", "none.json") == 2
        assert "No file none.json" in capsys.readouterr().err
    assert not files_below(tmp_path)


def test_without_a_declaration_the_level_is_unknown(ani1x_file, tmp_path, capsys):
    assert exit_code("train", NAME, "--data", ani1x_file, "--out", tmp_path / "out") == 2
    assert "Experiment 'MF-LO/EF-HI/E': Unknown level of theory 'LO'" in capsys.readouterr().err


# Brought along by runs.


@pytest.fixture
def file_of_own_levels(tmp_path):
    """A planted file that has the two levels only, the higher one not everywhere."""
    path = planted.write_ani1x(
        tmp_path / "own.h5", missing={"CH4": {"wb97x_tz.energy": slice(5, 25)}}
    )
    with h5py.File(path, "a") as file:
        for group in file.values():
            for key in set(group) - {"atomic_numbers", "coordinates"}:
                if key not in ("wb97x_dz.energy", "wb97x_dz.forces", "wb97x_tz.energy"):
                    del group[key]
            group.move("wb97x_dz.energy", "low.energy")
            group.move("wb97x_dz.forces", "low.forces")
            group.move("wb97x_tz.energy", "high.energy")
    return path


@pytest.fixture
def own_levels_file(tmp_path):
    energies = {str(number): energy for number, energy in DZ.self_energies.items()}
    changes = {"self_energies_hartree": energies}
    low = LOW | changes | {"energy_keys": ["low.energy"], "force_key": "low.forces"}
    high = HIGH | changes | {"energy_keys": ["high.energy"], "force_key": None}
    return write(tmp_path / "own.json", [low, high])


def test_runs_are_read_without_the_file_that_declared_their_levels(
    file_of_own_levels, own_levels_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("HIPPYNN_USE_CUSTOM_KERNELS", NO_COMPILER["HIPPYNN_USE_CUSTOM_KERNELS"])
    out = tmp_path / "out"
    data = ["--data", file_of_own_levels, "--levels", own_levels_file]
    assert exit_code("data", "info", *data[1:]) == 0
    assert "180 carry the energies of all of low, high" in capsys.readouterr().out
    common = [*data, "--rows", "common"]
    assert exit_code("train", "SF-HI/E", NAME, *common, "--out", out, *TINY_OPTIONS) == 0

    folders = [RunFolder(out / "runs" / slug / "seed-0") for slug in ("sf_hi_e", "mf_lo_ef_hi_e")]
    splits = [dict(np.load(folder.file("split.npz"))) for folder in folders]
    assert {name: len(rows) for name, rows in splits[0].items()} == {
        "train": 144,
        "valid": 18,
        "test": 18,
    }
    for name, rows in splits[0].items():
        np.testing.assert_array_equal(rows, splits[1][name])

    for command in (
        ("status", out),
        ("tables", out),
        ("figures", out, "--only", "learning"),
        ("graph", folders[0].path, "--out", tmp_path / "graph.png"),
        ("export", folders[1].path, "--out", tmp_path / "model.safetensors"),
    ):
        assert exit_code(*command) == 0, (command, capsys.readouterr().err)
    low, high = Potential.load(tmp_path / "model.safetensors").levels
    assert (low.label, high.label) == ("LO", "HI")
    assert dict(low.self_energies) == dict(DZ.self_energies)
    assert (out / "tables" / "experiments.md").exists()

    before = folders[0].read_metrics()
    assert exit_code("evaluate", folders[0].path) == 0
    again = folders[0].read_metrics()
    assert again["sets"]["heldout"]["high"].keys() == {
        "low",
        "high",
    }  # also levels that it did not train on
    for level in ("low", "high"):
        assert again["sets"]["heldout"]["high"][level] == pytest.approx(
            before["sets"]["heldout"]["high"][level]
        )


def recorded(out, level, seed=0):
    """A finished run that records a level of its own."""
    changes = {
        "levels": (LevelRecord.of(level),),
        "labels": {level.id: "E"},
        "common_levels": (level.id,),
    }
    return make_run(out, "SF-DZ/E", seed, run_metrics({"low": heldout_errors(1.0, 2.0)}), **changes)


def own_level(**changes):
    values = {"id": "low", "label": "LO", "method": "m", "basis": "b", "rank": 1.0}
    return Level(**(values | {"energy_keys": ("e",)} | changes))


def test_reading_a_run_tells_its_levels_to_nobody_else(tmp_path):
    level = own_level(self_energies={1: -0.25})
    settings = recorded(tmp_path, level).read_settings()
    assert settings.known.get("LO") == level
    assert settings.known.get("LO").self_energies == {1: -0.25}
    with pytest.raises(UserError, match="Unknown level"):
        KNOWN_LEVELS.get("LO")


def test_two_runs_have_levels_of_their_own_under_one_name(tmp_path):
    """What one run calls by a name says nothing of another's, not even in one process."""
    first = recorded(tmp_path / "a", own_level())
    second = recorded(tmp_path / "b", own_level(self_energies={1: -0.5}))
    assert first.read_settings().known.get("LO") == own_level()
    assert second.read_settings().known.get("LO").self_energies == {1: -0.5}
    assert first.read_settings().known.get("LO") == own_level()
    assert [status.state for status in read_status(tmp_path / "b")] == ["finished"]


def test_runs_of_two_levels_of_one_name_are_not_read_together(tmp_path):
    recorded(tmp_path, own_level(), seed=0)
    recorded(tmp_path, own_level(rank=2.0), seed=1)
    with pytest.raises(UserError, match=r"seed-1.*levels\.low: rank is 2\.0, not 1\.0"):
        read_results(tmp_path)


def test_damaged_records_of_a_run_are_named(tmp_path):
    folder = recorded(tmp_path, own_level())
    content = json.loads(folder.file("experiment.json").read_text())
    content["settings"]["levels"][0]["rank"] = "high"
    write(folder.file("experiment.json"), content)
    with pytest.raises(UserError, match=r"experiment\.json is damaged: levels\.0\.rank: "):
        folder.read_settings()
