"""One model of what a user asks for: options, messages, settings and documentation come from it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import made_xyz
import pytest
from made_runs import TINY, exit_code

from hippynn_mf.cli.asking import field_parameters
from hippynn_mf.cli.texts import parse_overrides, read_values
from hippynn_mf.data.embedded import MINI_CC_FORCES, MINI_COMP6, MINI_COMP6_KEYS
from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import PRESETS, Hyperparameters
from hippynn_mf.levels import CC, KNOWN_LEVELS
from hippynn_mf.runs.build import build_settings, requested_tests
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.request_fields import Flag, RequestedTest
from hippynn_mf.runs.run_file import merged
from hippynn_mf.runs.setting_texts import field_rows, settings_page

ROOT = Path(__file__).parents[1]
LEVEL = {
    "id": "mine",
    "label": "MINE",
    "method": "m",
    "basis": "b",
    "rank": 5.0,
    "energy_keys": ["mine.energy"],
    "self_energies_hartree": {"1": -0.5},
}


@pytest.mark.parametrize("model", [Request, RequestedTest, Hyperparameters])
def test_every_field_says_what_it_is(model):
    for row in field_rows(model):
        assert row.description.endswith((".", ")")), row.name
        assert row.kind, row.name


def test_every_field_of_a_request_has_an_option_of_train_and_campaign(capsys):
    flags = [
        flag.names
        for field in Request.model_fields.values()
        for flag in field.metadata
        if isinstance(flag, Flag)
    ]
    assert len(flags) >= len(Request.model_fields)
    for command in ("train", "campaign", "reproduce"):
        assert exit_code(command, "--help") == 0
        words = set(re.split(r"[\s,│]+", capsys.readouterr().out))
        assert {text for names in flags for text in names} <= words


def test_the_help_is_the_description_of_the_fields():
    (option,) = [p for p in field_parameters() if p.name == "set"]
    help_text = option.annotation.__metadata__[0].help
    assert help_text == Request.model_fields["hyperparameters"].description
    assert "species" in help_text
    assert "hippynn-mf settings" in help_text
    (option,) = [p for p in field_parameters() if p.name == "device"]
    assert option.annotation.__metadata__[0].help.endswith("(default: auto)")


def test_help_imports_no_torch_and_no_pictures():
    script = (
        "import sys\n"
        "from hippynn_mf.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'hippynn', 'matplotlib', 'parsl'} & set(sys.modules)))"
    )
    for arguments in (["--help"], ["train", "--help"], ["settings"]):
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"


def test_training_imports_no_engines():
    script = (
        "import sys\n"
        "import hippynn_mf.runs.execute, hippynn_mf.runs.train, hippynn_mf.cli.main\n"
        "print([name for name in sys.modules if 'campaign' in name or name == 'parsl'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_settings_lists_what_set_takes(capsys):
    assert exit_code("settings") == 0
    text = capsys.readouterr().out
    for name in Hyperparameters.model_fields:
        assert f"\n{name}  (" in text
    assert "n_features  (whole number; quick 48, paper 120, robust 48)" in text
    assert "batch_size  (whole number; quick 32, paper 256, robust 32)" in text
    assert exit_code("settings", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["species"]["defaults"]["paper"] == list(PRESETS["paper"].species)


def test_the_committed_settings_page_is_what_the_model_says():
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert settings_page() in page


# From words to values.


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        ({"seeds": "0,2"}, {"seeds": (0, 2)}),
        ({"set": ["a=1", "b=x"]}, {"hyperparameters": {"a": 1, "b": "x"}}),
        ({"test": ["a=x.h5"]}, {"tests": {"a": {"path": Path("x.h5")}}}),
        (
            {"test": ["a=CC:x.xyz", "a=DZ:y.xyz"]},
            {"tests": {"a": {"path": {"CC": Path("x.xyz"), "DZ": Path("y.xyz")}}}},
        ),
        ({"test": ["a=C:/x.h5"]}, {"tests": {"a": {"path": Path("C:/x.h5")}}}),
        ({"energy_cut": 5.0}, {"tests": {"comp6": {"energy_cut_kcal_per_mol": 5.0}}}),
        ({"train": ["DZ=a.xyz"]}, {"data": {"DZ": Path("a.xyz")}}),
        ({"label": ["DZ=EF"]}, {"labels": {"DZ": "EF"}}),
        ({"rows": None}, {}),
    ],
)
def test_options_become_values_of_fields(flags, values):
    assert read_values(flags) == values


def test_options_override_single_entries_of_tables_and_whole_lists():
    before = Request(
        labels={"DZ": "E"},
        strategy="SF",
        hyperparameters={"n_features": 8, "max_epochs": 2},
        tests={"comp6": {"path": "c.h5", "energy_cut_kcal_per_mol": 5}, "mine": "a.h5"},
        seeds=[0, 1],
    )
    changes = {
        "experiments": ("SF-CC/E",),
        "hyperparameters": {"max_epochs": 3},
        "tests": {"comp6": {"path": Path("d.h5")}},
        "seeds": (4,),
    }
    after = merged(before, changes)
    assert after.experiments == ("SF-CC/E",)
    assert not after.labels
    assert after.strategy is None
    assert after.hyperparameters == {"n_features": 8, "max_epochs": 3}
    assert after.tests["comp6"] == RequestedTest(path="d.h5", energy_cut_kcal_per_mol=5)
    assert after.tests["mine"] == before.tests["mine"]
    assert after.seeds == (4,)


# From a request to runs.


def test_labels_are_another_way_to_name_an_experiment():
    assert Request(labels={"CC": "E"}).experiment_names == ("SF-CC/E",)
    labels = {"DZ": "EF", "CC": "E"}
    assert Request(labels=labels).experiment_names == ("MF-DZ/EF-CC/E",)
    assert Request(labels=labels, strategy="TL").experiment_names == ("TL-DZ/EF-CC/E",)


def test_the_embedded_data_bring_their_tests(tmp_path):
    tests = requested_tests(Request())
    assert tests["comp6"].path == MINI_COMP6
    assert tests["cc-forces"].path == MINI_CC_FORCES
    tests = requested_tests(
        Request(tests={"comp6": {"energy_cut_kcal_per_mol": 7}, "mine": "a.h5"})
    )
    assert list(tests) == ["comp6", "cc-forces", "mine"]
    assert tests["comp6"].keys == MINI_COMP6_KEYS
    assert tests["comp6"].energy_cut_kcal_per_mol == 7
    assert not requested_tests(Request(data=tmp_path / "a.h5"))
    (own,) = requested_tests(Request(data="a.h5", tests={"comp6": "c.h5"})).values()
    assert own.energy_cut_kcal_per_mol == 100


def test_settings_of_a_request(ani1x_file, comp6_file):
    request = Request(
        experiments=["MF-DZ/EF-CC/E", "SF-CC/E"],
        seeds=[3, 1],
        data=ani1x_file,
        tests={"comp6": {"path": comp6_file, "energy_cut_kcal_per_mol": 9}},
        hyperparameters=TINY,
        label_fractions={"CC": 0.5},
        split_seed=2,
        rows="all",
    )
    runs = build_settings(request)
    assert [(run.name, run.seed) for run in runs] == [
        ("MF-DZ/EF-CC/E", 3),
        ("SF-CC/E", 3),
        ("MF-DZ/EF-CC/E", 1),
        ("SF-CC/E", 1),
    ]
    for run in runs:
        assert run.hyperparameters.n_features == TINY["n_features"]
        assert (run.split_seed, run.rows, run.preset) == (2, "all", "robust")
        assert run.label_fractions == {CC.id: 0.5}
        assert run.data.path == ani1x_file
        assert run.test("comp6").energy_cut_kcal_per_mol == 9
        assert run.test("comp6").keys == {level: dict(keys) for level, keys in PUBLIC_KEYS.items()}


def test_a_key_map_may_be_written_out(ani1x_file, comp6_file):
    keys = {"DZ": {"energy": "energies"}}
    request = Request(
        experiments=["SF-CC/E"],
        data=ani1x_file,
        tests={"comp6": {"path": comp6_file, "keys": keys}},
    )
    assert build_settings(request)[0].test("comp6").keys == keys
    wrong = Request(
        experiments=["SF-CC/E"],
        data=ani1x_file,
        tests={"comp6": {"path": comp6_file, "keys": {"DZ": {"energie": "e"}}}},
    )
    with pytest.raises(UserError, match=r"'energie'\. Did you mean energy"):
        build_settings(wrong)


def test_a_level_named_twice_in_a_table_is_refused(tmp_path):
    path = made_xyz.save(tmp_path / "a.xyz", made_xyz.label(made_xyz.molecules(2)))
    request = Request(experiments=["SF-CC/E"], data={"CC": path, "ccsd(t)_cbs": path})
    with pytest.raises(UserError, match=r"\[data\]: level .* is there twice, as CC and as ccsd"):
        build_settings(request)


def test_levels_of_ones_own_are_known_to_the_request_alone():
    request = Request(levels=[LEVEL])
    assert request.known.get("MINE").self_energies == {1: -0.5}
    assert request.known.get("MINE").force_key is None
    with pytest.raises(UserError, match="Unknown level of theory 'MINE'"):
        Request().known.get("MINE")
    assert Request().known is KNOWN_LEVELS


def test_a_level_of_a_known_name_is_refused():
    with pytest.raises(UserError, match="named 'CC'"):
        _ = Request(levels=[LEVEL | {"label": "CC"}]).known


def test_nothing_to_train_is_refused():
    with pytest.raises(UserError, match="Nothing is asked for: name experiments, or labels"):
        build_settings(Request())
    with pytest.raises(UserError, match="Asked for twice: experiment SF-CC/E"):
        build_settings(Request(experiments=["SF-CC/E", "SF-ccsd(t)_cbs/E"]))


def test_a_name_that_is_set_twice_is_said(caplog):
    assert parse_overrides(["max_epochs=2", "max_epochs=3", "seed=1"]) == {
        "max_epochs": 3,
        "seed": 1,
    }
    assert [r.getMessage() for r in caplog.records] == [
        "--set names max_epochs more than once; the last, 3, counts."
    ]
