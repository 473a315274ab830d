import pytest
from made_runs import exit_code, make_run, make_settings

from hippynn_mf.errors import UserError
from hippynn_mf.experiment import Experiment, Published
from hippynn_mf.results import read_results
from hippynn_mf.runs import RunFolder
from hippynn_mf.tables import format_table, write_tables


def heldout(level, energy, force=None):
    """Metrics of a run; the MAEs are half the RMSEs."""
    return {
        "heldout": {
            level: {
                "energy_rmse_kcal_per_mol": energy,
                "energy_mae_kcal_per_mol": energy / 2,
                "force_rmse_kcal_per_mol_per_angstrom": force,
                "force_mae_kcal_per_mol_per_angstrom": force and force / 2,
            }
        },
        "comp6": None,
    }


def comp6(level, **values):
    return {"comp6": {level: values}}


NOTE = (
    "data: made.h5 (SHA-256 0123456789ab), split seed 0. Published numbers: eight seeds on the "
    "real ANI-1x and COMP6."
)
SPREAD = "- mean ± 95 % interval over seeds (t), mean and range for fewer than three seeds;"


def test_table2_with_intervals_ranges_and_everything_that_is_missing(tmp_path):
    for seed, energy, force in [(0, 1.0, 10.0), (1, 2.0, 11.0), (2, 3.0, 15.0)]:
        make_run(tmp_path, "SF-TZ/E", seed, heldout("wb97x_tz", energy, force))
    for seed, energy, force in [(0, 0.5, 4.0), (2, 0.7, 5.0)]:
        make_run(tmp_path, "MF-DZ/EF-TZ/E", seed, heldout("wb97x_tz", energy, force))
    make_run(tmp_path, "MF-DZ/EF-TZ/E", 1, None)
    make_run(tmp_path, "MF-DZ/EF-TZ/EF", 1, heldout("wb97x_tz", 0.25, 3.125))
    make_run(tmp_path, "MF-DZ/E-TZ/E", 0, None)
    make_run(tmp_path, "SF-CC/E", 0, None)  # of another table
    path = write_tables(tmp_path, read_results(tmp_path))[0]
    assert path == tmp_path / "tables" / "table2.md"
    assert path.read_text() == (
        "## Table 2: RMSE of energy, held-out TZ; force, held-out TZ\n"
        "\n"
        "| model | seeds | energy, held-out TZ (kcal/mol) | published |"
        " force, held-out TZ (kcal/mol/Å) | published |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| SF-TZ/E | 3 | 2.00 ± 2.48 | 2.75 ± 0.02 | 12.00 ± 6.57 | 13.52 ± 0.50 |\n"
        "| MF-DZ/EF-TZ/E | 2 | 0.60 (0.50 to 0.70) | 1.49 ± 0.04 |"
        " 4.50 (4.00 to 5.00) | 4.16 ± 0.15 |\n"
        "| MF-DZ/EF-TZ/EF | 1 | 0.25 (one seed) | 1.34 ± 0.02 | 3.12 (one seed) | 3.42 ± 0.11 |\n"
        "\n"
        "- Not trained: SF-TZ/EF, MF-DZ/E-TZ/E.\n"
        "- MF-DZ/EF-TZ/E lacks seeds [1].\n"
        "- MF-DZ/EF-TZ/EF lacks seeds [0, 2].\n"
        "- Unfinished: MF-DZ/E-TZ/E, seed 0; MF-DZ/EF-TZ/E, seed 1.\n"
        "- mean ± 95 % interval over seeds (t), mean and range for fewer than three seeds;"
        " rows: common; preset: quick; " + NOTE + "\n"
    )


def test_table3_shows_energies_of_heldout_and_forces_of_comp6(tmp_path):
    metrics = heldout("mp2_tz", 2.0) | comp6("mp2_tz", force_rmse_kcal_per_mol_per_angstrom=8.0)
    make_run(tmp_path, "SF-MP2/E", 0, metrics)
    make_run(tmp_path, "MF-DZ/EF-MP2/E", 0, heldout("mp2_tz", 1.0))
    write_tables(tmp_path, read_results(tmp_path))
    lines = (tmp_path / "tables" / "table3.md").read_text().splitlines()
    assert lines[0] == "## Table 3: RMSE of energy, held-out MP2; force, COMP6 MP2"
    assert lines[4:] == [
        "| SF-MP2/E | 1 | 2.00 (one seed) | 2.95 ± 0.02 | 8.00 (one seed) | 8.59 ± 0.42 |",
        "| MF-DZ/EF-MP2/E | 1 | 1.00 (one seed) | 1.72 ± 0.02 | — | 3.42 ± 0.09 |",
        "",
        SPREAD + " rows: common; preset: quick; " + NOTE,
    ]


def test_table4_shows_conformer_energies_of_comp6_and_names_the_rows_that_were_used(tmp_path):
    metrics = heldout("ccsd(t)_cbs", 2.5) | comp6("ccsd(t)_cbs", delta_e_rmse_kcal_per_mol=1.25)
    make_run(tmp_path, "MF-DZ/E-CC/E", 4, metrics, rows="all", preset="paper")
    write_tables(tmp_path, read_results(tmp_path))
    lines = (tmp_path / "tables" / "table4.md").read_text().splitlines()
    assert lines[0] == "## Table 4: RMSE of energy, held-out CC; ΔE, COMP6 CC"
    assert lines[4:] == [
        "| MF-DZ/E-CC/E | 1 | 2.50 (one seed) | 2.76 ± 0.03 | 1.25 (one seed) | 2.60 ± 0.03 |",
        "",
        "- Not trained: SF-CC/E, MF-DZ/EF-CC/E.",
        SPREAD + " rows: all; preset: paper; " + NOTE,
    ]


def test_tables_of_maes_have_no_published_column_and_files_of_their_own(tmp_path):
    make_run(tmp_path, "SF-TZ/E", 0, heldout("wb97x_tz", 3.0, 12.0))
    results = read_results(tmp_path)
    write_tables(tmp_path, results)
    rmse = (tmp_path / "tables" / "table2.md").read_text()
    paths = write_tables(tmp_path, results, metric="mae")
    assert [path.name for path in paths] == ["table2-mae.md", "table3-mae.md", "table4-mae.md"]
    lines = paths[0].read_text().splitlines()
    assert lines[0] == "## Table 2: MAE of energy, held-out TZ; force, held-out TZ"
    assert lines[2] == (
        "| model | seeds | energy, held-out TZ (kcal/mol) | force, held-out TZ (kcal/mol/Å) |"
    )
    assert lines[4] == "| SF-TZ/E | 1 | 1.50 (one seed) | 6.00 (one seed) |"
    assert (tmp_path / "tables" / "table2.md").read_text() == rmse


def test_a_table_without_any_finished_run_says_so(tmp_path):
    make_run(tmp_path, "SF-DZ/E", 0, heldout("wb97x_dz", 1.0))
    text = format_table(4, read_results(tmp_path), "rmse", [])
    assert text.splitlines()[3:] == ["| --- | --- | --- | --- | --- | --- |", ""]
    write_tables(tmp_path, read_results(tmp_path))
    lines = (tmp_path / "tables" / "table4.md").read_text().splitlines()
    assert lines[5:] == ["- Not trained: SF-CC/E, MF-DZ/E-CC/E, MF-DZ/EF-CC/E."]


def test_a_users_own_experiments_can_have_a_table(tmp_path):
    own = Experiment(
        row=1,
        labels={"TZ": "E", "MP2": "EF"},
        published=Published(table=2, energy=(1, 0.1), other=(2, 0.2)),
    )
    settings = make_settings("SF-TZ/E").model_copy(
        update={"name": own.name, "slug": own.slug, "labels": dict(own.labels)}
    )
    folder = RunFolder.of(tmp_path, settings)
    folder.prepare(settings, facts={})
    folder.write_metrics(heldout("wb97x_tz", 1.0, 2.0))
    text = format_table(2, read_results(tmp_path), "rmse", [own])
    row = "| MF-TZ/E-MP2/EF | 1 | 1.00 (one seed) | 1.00 ± 0.10 | 2.00 (one seed) | 2.00 ± 0.20 |"
    assert row in text.splitlines()


def test_an_unknown_metric_is_refused_before_anything_is_written(tmp_path):
    make_run(tmp_path, "SF-TZ/E", 0, heldout("wb97x_tz", 1.0, 2.0))
    with pytest.raises(UserError, match=r"Unknown metric 'rms'.*rmse"):
        write_tables(tmp_path, read_results(tmp_path), metric="rms")
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["table2.md", "table3.md", "table4.md"]),
        (["--metric", "mae"], ["table2-mae.md", "table3-mae.md", "table4-mae.md"]),
    ],
    ids=["rmse", "mae"],
)
def test_the_command_prints_the_tables_that_it_writes(tmp_path, capsys, options, names):
    make_run(tmp_path, "SF-TZ/E", 0, heldout("wb97x_tz", 3.0, 12.0))
    assert exit_code("tables", tmp_path, *options) == 0
    written = [(tmp_path / "tables" / name).read_text() for name in names]
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == names
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in written)


def test_tables_say_what_predicting_zero_would_give(tmp_path):
    metrics = heldout("wb97x_tz", 1.0, 2.0)
    metrics["heldout"]["wb97x_tz"]["force_label_rms_kcal_per_mol_per_angstrom"] = 31.25
    make_run(tmp_path, "SF-TZ/E", 0, metrics)
    text = write_tables(tmp_path, read_results(tmp_path))[0].read_text()
    assert "- force, held-out TZ: predicting zero has an RMSE of 31.25 kcal/mol/Å.\n" in text
