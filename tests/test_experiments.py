import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import exit_code, make_run

from hippynn_mf.errors import UserError
from hippynn_mf.levels import KNOWN_LEVELS, PAPER_LEVELS, Level
from hippynn_mf.paper.table1 import beyond_table1, get_experiment, published_result, table1
from hippynn_mf.runs.experiment import Experiment

REPOSITORY = Path(__file__).parent.parent

# Table 1 of the paper, in its order, with the levels and properties that its names spell.
ROWS = {
    "SF-DZ/E": {"wb97x_dz": "E"},
    "SF-DZ/EF": {"wb97x_dz": "EF"},
    "SF-TZ/E": {"wb97x_tz": "E"},
    "SF-TZ/EF": {"wb97x_tz": "EF"},
    "SF-MP2/E": {"mp2_tz": "E"},
    "SF-CC/E": {"ccsd(t)_cbs": "E"},
    "MF-DZ/E-TZ/E": {"wb97x_dz": "E", "wb97x_tz": "E"},
    "MF-DZ/EF-TZ/E": {"wb97x_dz": "EF", "wb97x_tz": "E"},
    "MF-DZ/E-TZ/EF": {"wb97x_dz": "E", "wb97x_tz": "EF"},
    "MF-DZ/EF-TZ/EF": {"wb97x_dz": "EF", "wb97x_tz": "EF"},
    "MF-DZ/EF-MP2/E": {"wb97x_dz": "EF", "mp2_tz": "E"},
    "MF-TZ/EF-MP2/E": {"wb97x_tz": "EF", "mp2_tz": "E"},
    "MF-DZ/E-CC/E": {"wb97x_dz": "E", "ccsd(t)_cbs": "E"},
    "MF-DZ/EF-CC/E": {"wb97x_dz": "EF", "ccsd(t)_cbs": "E"},
    "MF-TZ/E-CC/E": {"wb97x_tz": "E", "ccsd(t)_cbs": "E"},
    "MF-TZ/EF-CC/E": {"wb97x_tz": "EF", "ccsd(t)_cbs": "E"},
    "MF-DZ/EF-TZ/EF-CC/E": {"wb97x_dz": "EF", "wb97x_tz": "EF", "ccsd(t)_cbs": "E"},
}

# The paper's levels and two of a user's own.
LEVELS = KNOWN_LEVELS.including(
    [
        Level("gfn2_xtb", "GFN2", "GFN2-xTB", "minimal", 5.0, ("gfn2_xtb.energy",)),
        Level("own", "A-B(c)*_+", "own", "own", 4.0, ("own.energy",)),
    ]
)

# Tables 2 to 4 of the paper: table, then mean and half-width of energy and of force or ΔE.
PUBLISHED = {
    "SF-TZ/E": (2, (2.75, 0.02), (13.52, 0.50)),
    "SF-TZ/EF": (2, (1.60, 0.02), (3.52, 0.09)),
    "MF-DZ/E-TZ/E": (2, (2.78, 0.04), (11.92, 0.15)),
    "MF-DZ/EF-TZ/E": (2, (1.49, 0.04), (4.16, 0.15)),
    "MF-DZ/EF-TZ/EF": (2, (1.34, 0.02), (3.42, 0.11)),
    "SF-MP2/E": (3, (2.95, 0.02), (8.59, 0.42)),
    "MF-DZ/EF-MP2/E": (3, (1.72, 0.02), (3.42, 0.09)),
    "SF-CC/E": (4, (2.78, 0.05), (2.65, 0.04)),
    "MF-DZ/E-CC/E": (4, (2.76, 0.03), (2.60, 0.03)),
    "MF-DZ/EF-CC/E": (4, (1.52, 0.03), (1.60, 0.03)),
}


def test_table1_has_the_papers_17_rows_in_its_order():
    assert [experiment.name for experiment in table1()] == list(ROWS)
    assert [experiment.row for experiment in table1()] == list(range(1, 18))


@pytest.mark.parametrize(("name", "labels"), ROWS.items(), ids=list(ROWS))
def test_a_row_trains_on_the_labels_that_its_name_spells(name, labels):
    resolved = get_experiment(name).resolved_labels
    assert {level.id: str(properties) for level, properties in resolved.items()} == labels


def test_published_numbers_are_those_of_tables_2_to_4_and_of_no_other_row():
    found = {
        e.name: (e.published.table, e.published.energy, e.published.other)
        for e in table1()
        if e.published
    }
    assert found == PUBLISHED


def test_every_row_is_trained_on_the_structures_with_all_four_energies():
    assert all(experiment.common_levels == PAPER_LEVELS for experiment in table1())


def test_every_row_has_one_script_named_by_its_slug():
    scripts = {path.name for path in (REPOSITORY / "experiments").glob("[!_]*.py")}
    assert scripts == {f"{experiment.slug}.py" for experiment in table1()}
    assert all((REPOSITORY / experiment.script).is_file() for experiment in table1())


@pytest.mark.parametrize("experiment", table1(), ids=lambda experiment: experiment.slug)
def test_a_script_states_its_row_its_command_and_its_published_numbers(experiment):
    text = (REPOSITORY / experiment.script).read_text()
    docstring = text.split('"""')[1]
    assert docstring.startswith(f"{experiment.name}, row {experiment.row} of Table 1")
    assert f"python {experiment.script} --seed 0" in docstring
    if experiment.published:
        for mean, half_width in (experiment.published.energy, experiment.published.other):
            assert f"{mean:.2f} ± {half_width:.2f}" in docstring
    else:
        assert "Supporting Information" in docstring


def test_an_experiment_is_found_by_its_name_and_by_its_slug():
    assert get_experiment("MF-DZ/EF-CC/E") == get_experiment("mf_dz_ef_cc_e")


def test_an_unknown_experiment_is_refused_with_near_and_known_names():
    with pytest.raises(UserError, match=r"'MF-DZ/EF-CC/F'.*Did you mean.*MF-DZ/EF-CC/E") as error:
        get_experiment("MF-DZ/EF-CC/F")
    assert all(name in str(error.value) for name in ROWS)
    assert "SF-LEVEL/E or EF for one level, MF-LEVEL/EF-LEVEL/E for several" in str(error.value)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("SF-GFN2/E", {"gfn2_xtb": "E"}),
        ("SF-GFN2/EF", {"gfn2_xtb": "EF"}),
        ("MF-A-B(c)*_+/EF-GFN2/E", {"own": "EF", "gfn2_xtb": "E"}),
        ("MF-A-B(c)*_+/E-GFN2/EF-CC/E", {"own": "E", "gfn2_xtb": "EF", "ccsd(t)_cbs": "E"}),
        ("MF-DZ/EF-TZ/E-CC/E", {"wb97x_dz": "EF", "wb97x_tz": "E", "ccsd(t)_cbs": "E"}),
    ],
)
def test_an_experiment_of_any_known_levels_is_what_its_name_spells(name, labels):
    experiment = get_experiment(name, levels=LEVELS)
    found = {level.id: str(properties) for level, properties in experiment.resolved_labels.items()}
    assert found == labels
    assert experiment.name == name
    assert published_result(experiment) is None


@pytest.mark.parametrize("name", ["MF-CC/E-DZ/EF", "MF-ccsd(t)_cbs/E-wb97x_dz/EF"])
def test_a_row_of_table_1_in_another_spelling_is_that_row(name):
    assert get_experiment(name) == get_experiment("MF-DZ/EF-CC/E")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("SF-XZ/E", r"Experiment 'SF-XZ/E': Unknown level of theory 'XZ'.* Known: .*DZ, wb97x_dz"),
        ("SF-DZ/E-CC/E", "SF (single-fidelity) learns 1 level; found 2: DZ, CC"),
        ("MF-CC/E", "MF (multi-fidelity) learns at least 2 levels; found 1: CC"),
        ("DELTA-DZ/EF-CC/EF", "found CC/EF. Ask for CC/E"),
        ("MF-DZ/E-wb97x_dz/EF", "a level is named twice"),
        ("MF-DZ/E-DZ/E", "a level is named twice"),
        *(
            (name, f"Unknown experiment {name!r}")
            for name in (
                *("SF", "MF-", "SF-DZ", "SF-DZ/", "SF-/E", "SF-DZ/F", "SF-DZ/E-", "sf-DZ/E"),
                *("XF-DZ/E", "SF-DZ/EF/E", "SF--/E ", "SF-D Z/E", "SF-DZ/EE", " SF-DZ/E-CC/E"),
            )
        ),
    ],
)
def test_a_name_that_spells_no_experiment_is_refused(name, message):
    with pytest.raises(UserError, match=re.escape(message) if "*" not in message else message):
        get_experiment(name)


def test_levels_of_a_users_experiment_may_be_named_in_any_order_and_by_id():
    experiment = Experiment(labels={"ccsd(t)_cbs": "E", "DZ": "EF"})
    assert experiment.name == "MF-DZ/EF-CC/E"
    assert experiment.slug == "mf_dz_ef_cc_e"


def test_levels_are_those_that_are_handed_over_and_no_others():
    get_experiment("SF-GFN2/E", levels=LEVELS)
    with pytest.raises(UserError, match="Unknown level of theory 'GFN2'"):
        get_experiment("SF-GFN2/E")


def made_up(label):
    return Level(label, label, "made up", "none", 1.0, (f"{label}.energy",))


def test_slugs_tell_experiments_apart_whose_levels_are_spelt_alike():
    labels = ["A-B", "A_B", "a_b", "AB", "ab", "A-b", "A(B)", "A-E-B", "A_E_B"]
    several = [{made_up(label): "E"} for label in labels]
    several += [{made_up("A"): "E", made_up("B"): "E"}, {made_up("A"): "EF", made_up("B"): "E"}]
    slugs = [Experiment(labels=each).slug for each in several]
    assert len({slug.lower() for slug in slugs}) == len(several)
    assert slugs[0] == "sf_a_b_e-" + hashlib.sha256(b"SF-A-B/E").hexdigest()[:6]
    assert [slugs[3], *slugs[-2:]] == ["sf_ab_e", "mf_a_e_b_e", "mf_a_ef_b_e"]


def test_the_list_of_experiments_as_json_gives_names_scripts_and_labels(capsys):
    assert exit_code("experiments", "--json") == 0
    properties = {"E": ["energy"], "EF": ["energy", "forces"]}
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows[17:]] == [e.name for e in beyond_table1()]
    assert rows[:17] == [
        {
            "name": name,
            "script": f"experiments/{name.lower().replace('-', '_').replace('/', '_')}.py",
            "strategy": {"SF": "single-fidelity", "MF": "multi-fidelity"}[name[:2]],
            "labels": {level: properties[value] for level, value in labels.items()},
        }
        for name, labels in ROWS.items()
    ]


def test_the_list_of_experiments_for_people_has_a_line_per_row(capsys):
    assert exit_code("experiments") == 0
    lines = capsys.readouterr().out.splitlines()
    experiments = [*table1(), *beyond_table1()]
    assert [line.split()[:2] for line in lines] == [[e.name, e.script] for e in experiments]


def test_a_script_is_the_train_command_with_its_experiment():
    script = REPOSITORY / "experiments" / "mf_dz_ef_cc_e.py"
    command = [sys.executable, str(script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Train and evaluate experiments" in done.stdout
    assert "--seed" in done.stdout


def test_a_script_passes_its_experiment_and_its_options_on(tmp_path):
    make_run(tmp_path, "SF-TZ/E", 5, None)  # of other data, so that the script refuses it
    script = REPOSITORY / "experiments" / "sf_tz_e.py"
    command = [sys.executable, str(script), "--seed", "5", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path / 'runs' / 'sf_tz_e' / 'seed-5'} holds another run" in done.stderr
