"""Run files: written from data, read with their flaws named, and trained."""

import itertools
import json
import shutil
import tomllib

import made_xyz
import planted
import pytest
from made_runs import TINY_OPTIONS, exit_code, files_below

from hippynn_mf.data.embedded import MINI_COMP6
from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.run_file import SCHEMA, json_schema, read_run_file, schema_text

pytestmark = pytest.mark.filterwarnings("ignore:Provided distances are underneath:UserWarning")

WHOLE = """
experiments = ["SF-CC/E", "MF-DZ/EF-CC/E"]
seeds = [3, 1]
rows = "all"
preset = "quick"
split_seed = 2
device = "cpu"
out = "there/results"
data = "data.h5"

[label_fractions]
CC = 0.5

[tests.mine]
path = "mine.h5"

[tests.comp6]
path = "comp6.h5"
energy_cut_kcal_per_mol = 50

[hyperparameters]
max_epochs = 1
energy_weight = 2
species = [0, 1, 6, 7, 8]
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("data.h5", "mine.h5", "comp6.h5"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder, text):
    path = folder / "my.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_file_is_read_with_paths_that_start_at_its_folder(folder):
    request = read_run_file(write(folder, WHOLE))
    assert request.experiments == ("SF-CC/E", "MF-DZ/EF-CC/E")
    assert request.seeds == (3, 1)
    assert request.data == folder / "data.h5"
    assert request.out == folder / "there" / "results"
    assert request.tests["mine"].path == folder / "mine.h5"
    assert request.tests["comp6"].energy_cut_kcal_per_mol == 50
    assert request.label_fractions == {"CC": 0.5}
    assert request.hyperparameters["energy_weight"] == 2


def test_a_run_file_and_the_same_options_ask_for_the_same(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = 'labels = {DZ = "EF"}\ndata = {DZ = "a.xyz"}\n[[levels]]\nid = "x"\nlabel = "X"\n'
    text += (
        'method = "m"\nbasis = "b"\nrank = 1\nenergy_keys = ["e"]\nself_energies_hartree = {1 = 0}'
    )
    (folder / "a.xyz").touch()
    request = read_run_file(write(folder, text))
    assert list(request.data) == ["DZ"]
    assert request.known.get("X").rank == 1
    assert request.experiment_names == ("SF-DZ/EF",)


WRONG = {
    "unknown key": ("seed = 1", ["there is no key 'seed'", "Did you mean seeds?", "Known: exper"]),
    "key of another table": (
        "n_features = 3",
        ["there is no key 'n_features'; n_features belongs into [hyperparameters]"],
    ),
    "key of the top in a table": (
        "[hyperparameters]\nseeds = [1]",
        ["[hyperparameters] has no key 'seeds'; seeds stands at the top of the file"],
    ),
    "unknown hyperparameter": (
        "[hyperparameters]\nn_feature = 1",
        ["[hyperparameters] has no key 'n_feature'", "Did you mean n_features"],
    ),
    "key of a test": (
        '[tests.mine]\npth = "data.h5"',
        [
            "[tests.mine] has no key 'pth'. Did you mean path?",
            "Known: path, keys, units, energy_cut",
        ],
    ),
    "name of a test": (
        '[tests.Mine]\npath = "data.h5"',
        ["[tests]: 'Mine' is no name", "small letters, digits"],
    ),
    "key of a level": ('[[levels]]\nid = "a"\nlabl = "A"', ["[levels] has no key 'labl'. Did you"]),
    "level that lacks a key": ('[[levels]]\nid = "a"', ["[levels] lacks the key 'label'"]),
    "wrong type": ('seeds = "0"', ["seeds = '0': a list in [brackets] was expected"]),
    "text for a number": ('split_seed = "0"', ["split_seed = '0': a whole number was expected"]),
    "true for a number": ("split_seed = true", ["split_seed = True: a whole number was expected"]),
    "number for a path": ("data = 3", ["data = 3: a path in quotes was expected"]),
    "text for a table": ('hyperparameters = "a"', ["hyperparameters = 'a': a table was expected"]),
    "wrong hyperparameter": (
        '[hyperparameters]\nbatch_size = "many"',
        ["[hyperparameters]: Wrong hyperparameter: batch_size: Input", "found 'many'"],
    ),
    "unknown choice": ('rows = "comon"', ["value of rows 'comon'. Did you mean common?"]),
    "unknown preset": ('preset = "quik"', ["value of preset 'quik'. Did you mean quick?"]),
    "unknown property": ('[labels]\nDZ = "FE"', ["value of labels.DZ 'FE'", "Known: E, EF"]),
    "missing data file": ('data = "none.h5"', ["data: there is no file", "none.h5", "its folder"]),
    "missing file of a level": ('[data]\nDZ = "no.xyz"', ["data.DZ: there is no file", "no.xyz"]),
    "missing test": ('[tests]\nmine = "no.h5"', ["tests.mine.path: there is no file"]),
    "a seed twice": ("seeds = [1, 1]", ["Asked for twice: seed 1"]),
    "negative seed": ("seeds = [0, -1]", ["seeds.2 = -1", "greater than or equal to 0"]),
    "large seed": ("split_seed = 4294967296", ["split_seed = 4294967296", "4294967295"]),
    "text for a list": ('experiments = "SF-CC/E"', ["a list in [brackets] was expected"]),
    "empty path": ('out = ""', ["out = '': a path was expected"]),
    "no seed": ("seeds = []", ["seeds is empty"]),
    "fraction": ("[label_fractions]\nCC = 1.5", ["label_fractions.CC = 1.5", "equal to 1"]),
    "both ways": (
        'experiments = ["SF-CC/E"]\n[labels]\nCC = "E"',
        ["experiments and labels both say what to train"],
    ),
    "syntax": ("seeds = [0\nrows = 1", ["is not TOML", "line 2"]),
    "empty": ("# nothing", ["asks for nothing"]),
    "key twice": ("seeds = [1]\nseeds = [2]", ['Key "seeds" already exists, in line 2; keep one']),
    "table twice": ("[weights]\n[weights]", ['Key "weights" already exists, in line 2']),
    "key of a table twice": (
        "[hyperparameters]\nn_features = 3\nn_features = 4",
        ['Key "n_features" already exists; keep one'],
    ),
    "a mark before the text": ('\ufeffsplit_seed = "0"', ["split_seed = '0': a whole number"]),
    "text for true": ('accept_outliers = "yes"', ["'yes': true or false was expected"]),
    "one level as a table": (
        '[levels]\nid = "a"',
        ["a path in quotes or tables in double brackets as [[levels]] was expected"],
    ),
    "a list for data": ('data = ["a.xyz"]', ["a path in quotes or a table was expected"]),
    "home": (
        'experiments = ["SF-CC/E"]\ndata = "~/a.xyz"',
        ["data: there is no file", "~/a.xyz", "'~' stands for itself"],
    ),
    "results in a file": (
        'experiments = ["SF-CC/E"]\nout = "my.toml"',
        ["my.toml is a file; name a folder for results"],
    ),
    "results below a file": (
        'experiments = ["SF-CC/E"]\nout = "data.h5/results"',
        ["data.h5 is a file; name a folder for results"],
    ),
    "a split seed twice": ("split_seeds = [1, 1]", ["Asked for twice: split seed 1"]),
    "not text": ("\udcff", ["not a text file in UTF-8"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=list(WRONG))
@pytest.mark.parametrize("command", ["train", "campaign"])
def test_what_is_wrong_in_a_run_file_is_named(folder, capsys, command, text, words):
    path = folder / "my.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    before = files_below(folder)
    assert exit_code(command, path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"hippynn-mf: {path}")
    assert len(said.err.splitlines()) == 1
    assert all(word in said.err for word in words), said.err
    assert files_below(folder) == before


LEVELS = {
    "experiment": ('experiments = ["SF-LO/E"]', "Experiment 'SF-LO/E': Unknown level of theory"),
    "labels": ('[labels]\nLO = "E"', "[labels]: Unknown level of theory 'LO'"),
    "data": ('experiments=["SF-CC/E"]\n[data]\nCCC = "a.xyz"', "[data]: Unknown level of theory"),
    "fractions": (
        'experiments=["SF-CC/E"]\n[label_fractions]\nCCC = 0.5',
        "[label_fractions]: Unknown level of theory 'CCC'. Did you mean CC",
    ),
    "test": (
        'experiments=["SF-CC/E"]\n[tests.mine.path]\nCCC = "a.xyz"',
        "[tests.mine.path]: Unknown level of theory 'CCC'. Did you mean CC",
    ),
}


@pytest.mark.parametrize(("text", "words"), LEVELS.values(), ids=list(LEVELS))
def test_a_level_that_is_not_declared_is_named_with_its_table(folder, capsys, text, words):
    (folder / "a.xyz").touch()
    path = write(folder, text)
    assert exit_code("train", path) == 2
    said = capsys.readouterr().err
    assert f"hippynn-mf: {path}: {words}" in said
    assert "--levels" in said


def test_a_folder_and_a_missing_file_are_refused(tmp_path, capsys):
    (tmp_path / "folder.toml").mkdir()
    assert exit_code("train", tmp_path / "folder.toml") == 2
    assert "folder.toml is a folder; a run file" in capsys.readouterr().err
    assert exit_code("train", tmp_path / "none.toml") == 2
    assert "hippynn-mf new" in capsys.readouterr().err
    assert exit_code("train", "a.toml", "b.toml") == 2
    assert "One run file at a time" in capsys.readouterr().err


def test_options_override_a_run_file(ani1x_file, tmp_path, capsys):
    text = 'experiments = ["SF-DZ/EF"]\ndata = "gone.h5"\nout = "results"\nseeds = [5]\n'
    path = write(tmp_path, text + "[hyperparameters]\nn_features = 3\nmax_epochs = 7")
    options = ["SF-CC/E", "--data", ani1x_file, "--seed", "2", "--set", "max_epochs=1"]
    assert exit_code("train", path, *options, *TINY_OPTIONS) == 0
    run = RunFolder(tmp_path / "results" / "runs" / "sf_cc_e" / "seed-2")
    assert run.read_settings().hyperparameters.max_epochs == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{run.path}\n  Epoch 1 of 1 was kept (last).\n")
    assert "heldout   CC energy" in out.replace("  heldout", "heldout")
    assert f"hippynn-mf export {run.path}" in out


def test_a_campaign_of_a_run_file(ani1x_file, tmp_path, capsys):
    path = write(tmp_path, f'experiments = ["SF-CC/E", "SF-DZ/E"]\ndata = "{ani1x_file.name}"')
    assert exit_code("campaign", path, "--dry-run", "--device", "cpu", *TINY_OPTIONS) == 0
    assert capsys.readouterr().out.startswith("4 runs: 4 to do")  # seeds 0 and 1, as of a campaign


# Written from data.


def test_a_new_run_file_trains_at_once(ani1x_file, tmp_path, capsys):
    path = tmp_path / "my.toml"
    assert exit_code("new", path, ani1x_file) == 0
    assert f"hippynn-mf train {path}" in capsys.readouterr().out
    lowest, *_, highest = (f"{level.label}/{p}" for level, p in labels_in_file(ani1x_file).items())
    name = f"MF-{lowest}-{highest}"
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    assert content == {
        "experiments": [name],
        "data": "planted.h5",
        "rows": "all",
        "seeds": [0],
        "preset": "robust",
        "out": "results",
        "keys": {},
        "units": {},
        "label_fractions": {},
        "weights": {},
        "hyperparameters": {},
    }
    assert exit_code("train", path, *TINY_OPTIONS) == 0
    run = RunFolder(tmp_path / "results" / "runs" / get_experiment(name).slug / "seed-0")
    assert run.is_finished


def test_every_line_of_a_new_run_file_is_explained(ani1x_file, tmp_path):
    path = tmp_path / "my.toml"
    assert exit_code("new", path, ani1x_file) == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    for before, line in itertools.pairwise(lines):
        if "=" in line and not line.startswith("#"):
            assert before.startswith("# "), line
    text = "\n".join(lines)
    for name in Hyperparameters.model_fields:
        assert f"{name} = " in text
    # What is commented out is right, too.
    defaults = [line[2:] for line in lines if line.startswith("# ") and " = " in line.split("#")[1]]
    keys = {line.split(" = ")[0] for line in defaults}
    assert {"split_seed", "device"} <= keys
    assert 'preset = "robust"' in lines


def test_a_new_run_file_of_files_of_levels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made_xyz.save(tmp_path / "dz.xyz", made_xyz.label_mace(made_xyz.molecules(20), "wb97x_dz"))
    high = made_xyz.label(made_xyz.molecules(20), {"energy": ("ccsd(t)_cbs",)}, {})
    made_xyz.save(tmp_path / "cc.xyz", high)
    (tmp_path / "sub").mkdir()
    assert exit_code("new", "sub/my.toml", "DZ=dz.xyz", "CC=cc.xyz") == 0
    content = tomllib.loads((tmp_path / "sub" / "my.toml").read_text(encoding="utf-8"))
    assert content["data"] == {"DZ": "../dz.xyz", "CC": "../cc.xyz"}
    assert exit_code("train", "sub/my.toml", *TINY_OPTIONS) == 0
    assert (tmp_path / "sub/results/runs/mf_dz_ef_cc_e/seed-0/metrics.json").exists()


def test_a_new_run_file_names_no_place_of_this_machine(ani1x_file, tmp_path, capsys):
    assert exit_code("new", tmp_path / "plain.toml", ani1x_file) == 0
    assert "#:schema" not in (tmp_path / "plain.toml").read_text(encoding="utf-8")
    assert not (tmp_path / SCHEMA.name).exists()
    assert exit_code("new", tmp_path / "my.toml", ani1x_file, "--schema") == 0
    text = (tmp_path / "my.toml").read_text(encoding="utf-8")
    assert text.startswith(f"#:schema {SCHEMA.name}\n")
    assert (tmp_path / SCHEMA.name).read_bytes() == SCHEMA.read_bytes()
    for written in (text, (tmp_path / "plain.toml").read_text(encoding="utf-8")):
        assert SCHEMA.parent.as_posix() not in written


def test_a_new_run_file_overwrites_nothing(ani1x_file, tmp_path, capsys):
    path = write(tmp_path, "mine")
    before = files_below(tmp_path)
    for arguments, words in (
        ([path, ani1x_file], "my.toml exists"),
        ([tmp_path / "my.json", ani1x_file], "ends in .toml"),
        ([tmp_path / "none" / "my.toml", ani1x_file], "no folder"),
        ([tmp_path / "new.toml", tmp_path / "none.h5"], "No file"),
        ([tmp_path / "new.toml", "a.xyz", "b.xyz"], "One file, or LEVEL=FILE"),
    ):
        assert exit_code("new", *arguments) == 2
        assert words in capsys.readouterr().err
    assert files_below(tmp_path) == before


def test_a_new_run_file_of_one_level(tmp_path):
    missing = {
        key: slice(None)
        for key in (
            "wb97x_dz.forces",
            "wb97x_tz.energy",
            "hf_tz.energy",
            "mp2_tz.corr_energy",
            "ccsd(t)_cbs.energy",
        )
    }
    data = planted.write_ani1x(
        tmp_path / "dz.h5", missing=dict.fromkeys(("H2O", "CH4", "H3N", "CHN", "N2"), missing)
    )
    assert exit_code("new", tmp_path / "my.toml", data) == 0
    content = tomllib.loads((tmp_path / "my.toml").read_text(encoding="utf-8"))
    assert content["experiments"] == ["SF-DZ/E"]


# The schema.


def test_the_committed_schema_is_that_of_the_model():
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()
    assert json.loads(schema_text()) == json_schema()


def test_the_schema_knows_every_key():
    schema = json_schema()
    assert list(schema["properties"]) == list(Request.model_fields)
    overrides = schema["properties"]["hyperparameters"]["properties"]
    assert list(overrides) == list(Hyperparameters.model_fields)
    assert all(entry["description"] for entry in overrides.values())
    assert schema["additionalProperties"] is False


def test_the_schema_takes_what_is_read_and_refuses_what_is_not(ani1x_file, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    path = tmp_path / "my.toml"
    assert exit_code("new", path, ani1x_file) == 0
    for text in (path.read_text(encoding="utf-8"), WHOLE, '[tests]\nmine = "a.h5"'):
        assert not list(validator.iter_errors(tomllib.loads(text)))
    for name in ("unknown key", "unknown hyperparameter", "key of a test", "unknown choice",
                 "wrong type", "negative seed"):  # fmt: skip
        assert list(validator.iter_errors(tomllib.loads(WRONG[name][0]))), name


def test_read_again_after_being_replaced(folder):
    path = write(folder, 'experiments = ["SF-CC/E"]\ndata = "none.h5"')
    with pytest.raises(UserError, match="there is no file"):
        read_run_file(path)
    assert read_run_file(path, replaced={"data"}).data == folder / "none.h5"


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_file_to_test_on_is_no_training_data(tmp_path, capsys, as_folder):
    path = tmp_path / "comp6.h5"
    shutil.copy(MINI_COMP6, path)
    assert exit_code("new", tmp_path / "my.toml", tmp_path if as_folder else path) == 2
    error = capsys.readouterr().err
    assert "COMP6" in error
    assert "--comp6" in error
    assert not (tmp_path / "my.toml").exists()
