import json
import shutil

import numpy as np
import pytest
from made_predictions import predicted_run
from made_runs import (
    comp6_errors,
    exit_code,
    files_below,
    heldout_errors,
    make_run,
    require,
    run_metrics,
    spelt_experiment,
)
from scipy import stats

from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level
from hippynn_mf.paper.documents import write_documents
from hippynn_mf.paper.table1 import PaperExperiment, Published, get_experiment, table1
from hippynn_mf.paper.tables import paper_table
from hippynn_mf.report.completeness import missing_runs
from hippynn_mf.report.results import Selection, read_results
from hippynn_mf.report.table_data import TableData
from hippynn_mf.report.tables import build_table
from hippynn_mf.report.text import format_document, main_table

DOCUMENTS = ["table2.md", "table3.md", "table4.md", "low-level-forces.md"]
TABLE2 = ("SF-TZ/E", "SF-TZ/EF", "MF-DZ/E-TZ/E", "MF-DZ/EF-TZ/E", "MF-DZ/EF-TZ/EF")
FORMULAS = (
    "- ±: 95 % interval of the mean over n seeds, t·s/√n, with the standard deviation s (n − 1)"
    " and the\n"
    "  97.5 % quantile t of Student's t with n − 1 degrees of freedom. It covers what the seed"
    " changes\n"
    "  (weights, order of batches), not the choice of structures. The paper does not state its"
    " formula.\n"
    "- mean prediction: the error of the mean of all seeds' predictions, beside the mean of their"
    " errors.\n"
    "- difference: the mean over seeds of the model's error minus the other error of the same"
    " seed, with\n"
    "  the interval of the paired t test.\n"
    "- improvement: 100·(1 − exp(mean d)), where d is the logarithm of the ratio of both errors of"
    " one\n"
    "  seed; in brackets its 95 % interval, from that of the mean of d. Beside it that of the"
    " published\n"
    "  means.\n"
)
SOURCE = (
    "- rows: common; preset: quick; data: made.h5 (SHA-256 ccd061909bc6), split seed 0.{tests}"
    " Published numbers: eight seeds on ANI-1x and COMP6.\n"
)
PUBLISHED = " Published numbers: eight seeds on ANI-1x and COMP6."


def tz(energy, force=None):
    return run_metrics({"wb97x_tz": heldout_errors(energy, force, label_rms=31.25)})


def experiments(*names):
    return [get_experiment(name) for name in names]


def written(out, **options):
    """Tables without the paper's findings, which have tests of their own."""
    found = write_documents(out, read_results(out), Selection(**options))
    paths = [path for path in found.paths if not path.name.startswith("claims")]
    lacking = {name: runs for name, runs in found.lacking.items() if "claims" not in name}
    return type(found)(out, paths, lacking)


def tables(out, **options):
    return require(written(out, **options))


@pytest.fixture
def pair(tmp_path):
    """Three seeds of SF-TZ/E and MF-DZ/EF-TZ/E."""
    for seed, energy, force in [(0, 1.0, 10.0), (1, 2.0, 11.0), (2, 3.0, 15.0)]:
        make_run(tmp_path, "SF-TZ/E", seed, tz(energy, force))
    for seed, energy, force in [(0, 0.5, 4.0), (1, 0.5, 5.0), (2, 0.5, 6.0)]:
        make_run(tmp_path, "MF-DZ/EF-TZ/E", seed, tz(energy, force))
    return tmp_path


def test_table2_of_two_models_is_exactly_this(pair):
    (path, _) = tables(pair, experiments=experiments("SF-TZ/E", "MF-DZ/EF-TZ/E"))
    assert path == pair / "tables" / "table2.md"
    assert path.read_text() == (
        "## Table 2: energy, held-out TZ; force, held-out TZ (RMSE)\n"
        "\n"
        "| model | seeds | energy, held-out TZ (kcal/mol) | mean prediction | published |"
        " force, held-out TZ (kcal/mol/Å) | mean prediction | published |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| SF-TZ/E | 3 | 2.00 ± 2.48 | — | 2.75 ± 0.02 | 12.00 ± 6.57 | — | 13.52 ± 0.50 |\n"
        "| MF-DZ/EF-TZ/E | 3 | 0.50 ± 0.00 | — | 1.49 ± 0.04 | 5.00 ± 2.48 | — | 4.16 ± 0.15 |\n"
        "\n"
        "Beside SF-TZ/E, seed by seed:\n"
        "\n"
        "| model | seeds | energy, held-out TZ: difference (kcal/mol) | improvement (%) |"
        " published (%) | force, held-out TZ: difference (kcal/mol/Å) | improvement (%) |"
        " published (%) |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| MF-DZ/EF-TZ/E | 3 | −1.50 ± 2.48 | 72.5 [−9.4, 93.1] | 45.8 |"
        " −7.00 ± 4.30 | 58.3 [49.9, 65.3] | 69.2 |\n"
        "\n"
        "- force, held-out TZ: predicting zero has an RMSE of 31.25 kcal/mol/Å.\n"
        "- No mean prediction of SF-TZ/E, MF-DZ/EF-TZ/E: the runs' predictions.npz are missing"
        " ('hippynn-mf evaluate' makes them).\n"
        "\n" + FORMULAS + SOURCE.format(tests="")
    )


def test_the_numbers_of_the_text_are_scipys(pair):
    tables(pair, experiments=experiments("SF-TZ/E", "MF-DZ/EF-TZ/E"))
    (table,) = json.loads((pair / "tables" / "table2.json").read_text())["tables"]
    ours, theirs = np.array([4.0, 5.0, 6.0]), np.array([10.0, 11.0, 15.0])
    cell = table["rows"][1]["cells"][1]
    assert cell["values"] == {"0": 4.0, "1": 5.0, "2": 6.0}
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = cell["difference"]
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    interval = stats.ttest_1samp(np.log(ours / theirs), 0).confidence_interval(0.95)
    found = cell["percent_improvement"]
    expected = [100 * (1 - np.exp(end)) for end in (interval.high, interval.low)]
    assert [found["low"], found["high"]] == pytest.approx(expected)
    assert cell["published_percent_improvement"] == pytest.approx(100 * (1 - 4.16 / 13.52))
    assert cell["published"] == {"value": 4.16, "half_width": 0.15}
    assert table["rows"][0]["cells"][1]["difference"] is None  # the reference itself


def test_the_text_follows_from_the_json_alone(pair):
    for path in tables(pair, experiments=table1(), partial=True):
        content = json.loads(path.with_suffix(".json").read_text())
        read = [TableData.model_validate(table) for table in content["tables"]]
        assert format_document(read) == path.read_text()


def test_the_mean_prediction_stands_beside_the_mean_of_the_errors(tmp_path):
    for seed in range(3):
        for name in ("SF-CC/E", "MF-DZ/EF-CC/E"):
            predicted_run(tmp_path, name, seed)
    chosen = experiments("SF-CC/E", "MF-DZ/EF-CC/E")
    tables(tmp_path, experiments=chosen)
    (table,) = json.loads((tmp_path / "tables" / "table4.json").read_text())["tables"]
    for row, experiment in zip(table["rows"], chosen, strict=True):
        path = tmp_path / "runs" / experiment.slug / "ensemble.json"
        errors = json.loads(path.read_text())["sets"]
        cc = "ccsd(t)_cbs"
        expected = (
            errors["heldout"][cc][cc]["energy_rmse_kcal_per_mol"],
            errors["comp6"][cc][cc]["delta_e_rmse_kcal_per_mol"],
        )
        assert tuple(cell["ensemble"] for cell in row["cells"]) == expected
        text = (tmp_path / "tables" / "table4.md").read_text()
        assert f" | {expected[0]:.2f} | " in text
        assert f" | {expected[1]:.2f} | " in text
    assert "No mean prediction" not in text


def test_tables_come_out_the_same_where_only_json_was_kept(tmp_path):
    for seed in range(3):
        for name in ("SF-CC/E", "MF-DZ/EF-CC/E"):
            predicted_run(tmp_path, name, seed)
    chosen = experiments("SF-CC/E", "MF-DZ/EF-CC/E")
    tables(tmp_path, experiments=chosen)
    before = files_below(tmp_path / "tables")
    for path in tmp_path.rglob("*.npz"):
        path.unlink()
    for path in (tmp_path / "tables").iterdir():
        path.unlink()
    tables(tmp_path, experiments=chosen)
    assert files_below(tmp_path / "tables") == before


def incomplete(out):
    """Of table 2: one seed not begun, one unfinished, one model not trained; table 4 complete."""
    for seed in (0, 2):
        for name in TABLE2[:3]:
            make_run(out, name, seed, tz(1.0 + seed, 2.0))
    make_run(out, "MF-DZ/EF-TZ/E", 0, tz(1.0, 2.0))
    make_run(out, "SF-TZ/EF", 4, None)
    for name in ("SF-CC/E", "MF-DZ/E-CC/E", "MF-DZ/EF-CC/E"):
        make_run(out, name, 1, run_metrics({"ccsd(t)_cbs": heldout_errors(1.0)}))


def test_a_table_that_lacks_runs_is_refused_with_the_command_that_trains_every_one(tmp_path):
    incomplete(tmp_path)
    with pytest.raises(UserError) as error:
        tables(tmp_path)
    message = str(error.value)
    assert "tables/table2.md (SF-TZ/E, seed 4; SF-TZ/EF, seed 4 (begun: 4); 3 more)" in message
    assert "tables/table3.md (SF-MP2/E, any seed; MF-DZ/EF-MP2/E, any seed)" in message
    assert "table4" not in message
    missing = "SF-TZ/E,SF-TZ/EF,MF-DZ/E-TZ/E,MF-DZ/EF-TZ/E,MF-DZ/EF-TZ/EF,SF-MP2/E,MF-DZ/EF-MP2/E"
    assert f"hippynn-mf reproduce --out {tmp_path} --experiments {missing}" in message
    assert "--seeds 0,1,2,4'" in message
    assert f"hippynn-mf tables {tmp_path} --partial" in message
    assert {path.name for path in (tmp_path / "tables").glob("table*")} == {
        "table4.md",
        "table4.json",
    }


def test_an_earlier_table_is_left_as_it_was_when_runs_are_missing(pair):
    chosen = experiments("SF-TZ/E", "MF-DZ/EF-TZ/E")
    tables(pair, experiments=chosen)
    before = files_below(pair / "tables")
    make_run(pair, "SF-TZ/E", 3, tz(9.0, 9.0))
    with pytest.raises(UserError, match=r"table2\.md \(MF-DZ/EF-TZ/E, seed 3\)"):
        tables(pair, experiments=chosen)
    assert files_below(pair / "tables") == before


def test_training_what_is_named_as_missing_completes_the_tables(tmp_path):
    incomplete(tmp_path)
    for runs in written(tmp_path).lacking.values():
        for run in runs:
            for seed in run.seeds or (0,):
                make_run(tmp_path, run.name, seed, run_metrics())
    assert [path.name for path in tables(tmp_path)] == DOCUMENTS


def test_seeds_can_be_chosen_and_are_then_the_only_ones_and_required(pair):
    chosen = experiments("SF-TZ/E", "MF-DZ/EF-TZ/E")
    make_run(pair, "SF-TZ/E", 3, tz(9.0, 9.0))
    (path, _) = tables(pair, experiments=chosen, seeds=[1, 0])
    assert "| SF-TZ/E | 2 | 1.50 (1.00 to 2.00) |" in path.read_text()
    with pytest.raises(UserError, match=r"table2\.md \(SF-TZ/E, seed 7; MF-DZ/EF-TZ/E, seed 7\)"):
        tables(pair, experiments=chosen, seeds=[0, 7])


def test_documents_without_a_chosen_experiment_are_skipped(tmp_path):
    make_run(tmp_path, "SF-MP2/E", 0, run_metrics())
    assert [path.name for path in tables(tmp_path, experiments=experiments("SF-MP2/E"))] == [
        "table3.md",
        "low-level-forces.md",
    ]
    assert tables(tmp_path, experiments=experiments("SF-DZ/E")) == []


def test_a_partial_table_is_written_on_request_and_says_what_is_missing(tmp_path):
    incomplete(tmp_path)
    paths = tables(tmp_path, partial=True)
    assert [path.name for path in paths] == DOCUMENTS
    text = paths[0].read_text()
    assert (
        "- **Partial.** Missing: SF-TZ/E, seed 4; SF-TZ/EF, seed 4 (begun: 4); MF-DZ/E-TZ/E, "
        "seed 4; MF-DZ/EF-TZ/E, seeds 2, 4; MF-DZ/EF-TZ/EF, seeds 0, 2, 4.\n"
    ) in text
    assert "| MF-DZ/EF-TZ/E | 1 | 1.00 (one seed) |" in text
    assert "- Fewer than three seeds have no interval: in parentheses is their range.\n" in text
    assert "| MF-DZ/EF-TZ/EF |" not in text
    assert paths[1].read_text().splitlines()[4:] == [
        "",
        "- **Partial.** Missing: SF-MP2/E, any seed; MF-DZ/EF-MP2/E, any seed.",
        "",
    ]
    assert "Partial" not in paths[2].read_text()


def test_table3_shows_energies_of_heldout_and_forces_of_comp6(tmp_path):
    held = {"mp2_tz": heldout_errors(2.0)}
    make_run(tmp_path, "SF-MP2/E", 0, run_metrics(held, {"mp2_tz": comp6_errors(8.0)}))
    make_run(tmp_path, "MF-DZ/EF-MP2/E", 0, run_metrics(held, {"mp2_tz": comp6_errors()}))
    text = tables(tmp_path, experiments=experiments("SF-MP2/E", "MF-DZ/EF-MP2/E"))[0].read_text()
    lines = text.splitlines()
    assert lines[0] == "## Table 3: energy, held-out MP2; force, COMP6 MP2 (RMSE)"
    assert lines[4:6] == [
        "| SF-MP2/E | 1 | 2.00 (one seed) | — | 2.95 ± 0.02 | 8.00 (one seed) | — | 8.59 ± 0.42 |",
        "| MF-DZ/EF-MP2/E | 1 | 2.00 (one seed) | — | 1.72 ± 0.02 | — | — | 3.42 ± 0.09 |",
    ]
    assert "- force, COMP6 MP2: — because no planted forces." in lines


def test_table4_shows_conformer_energies_and_names_the_rows_that_were_used(tmp_path):
    held, far = {"ccsd(t)_cbs": heldout_errors(2.5)}, {"ccsd(t)_cbs": comp6_errors(None, 1.25)}
    make_run(tmp_path, "MF-DZ/E-CC/E", 4, run_metrics(held, far), rows="all", preset="paper")
    text = tables(tmp_path, experiments=experiments("MF-DZ/E-CC/E"))[0].read_text()
    row = "| MF-DZ/E-CC/E | 1 | 2.50 (one seed) | — | 2.76 ± 0.03 | 1.25 (one seed) | — | 2.60 ± "
    assert row in text
    assert "Nothing here could be compared with SF-CC/E." in text
    assert "- rows: all; preset: paper; " in text
    assert " COMP6: comp6.h5 (SHA-256 fedcba987654)." in text


def test_tables_of_maes_have_no_published_column_and_files_of_their_own(pair):
    chosen = experiments("SF-TZ/E", "MF-DZ/EF-TZ/E")
    rmse = tables(pair, experiments=chosen)[0].read_text()
    path, _ = tables(pair, experiments=chosen, metric="mae")
    assert path.name == "table2-mae.md"
    lines = path.read_text().splitlines()
    assert lines[0] == "## Table 2: energy, held-out TZ; force, held-out TZ (MAE)"
    assert lines[4] == "| SF-TZ/E | 3 | 1.00 ± 1.24 | — | 6.00 ± 3.29 | — |"
    numbers = "−0.75 ± 1.24 | 72.5 [−9.4, 93.1] | −3.50 ± 2.15 | 58.3 [49.9, 65.3]"
    assert lines[11] == f"| MF-DZ/EF-TZ/E | 3 | {numbers} |"
    assert not any("published" in line for line in lines[:12])
    assert (pair / "tables" / "table2.md").read_text() == rmse


def test_a_users_own_experiments_can_have_a_table(tmp_path):
    own = PaperExperiment(
        row=1,
        labels={"TZ": "E", "MP2": "EF"},
        published=Published(table=2, energy=(1, 0.1), other=(2, 0.2)),
    )
    make_run(tmp_path, own.name, 0, tz(1.0, 2.0))
    spec, results = paper_table(2, [own]), read_results(tmp_path)
    missing = missing_runs(results, spec.names)
    text = format_document([build_table(spec, results, {}, "rmse", missing)])
    row = "| MF-TZ/E-MP2/EF | 1 | 1.00 (one seed) | — | 1.00 ± 0.10 | 2.00 (one seed) | — | 2.00 ±"
    assert row in text


def test_an_unknown_metric_is_refused_before_anything_is_written(pair):
    with pytest.raises(UserError, match=r"Unknown metric 'rms'.*rmse"):
        tables(pair, metric="rms")
    assert not (pair / "tables").exists()


MAE_DOCUMENTS = [name.replace(".md", "-mae.md") for name in DOCUMENTS]


@pytest.mark.parametrize(
    ("options", "names"),
    [([], [*DOCUMENTS, "claims.md"]), (["--metric", "mae"], MAE_DOCUMENTS)],
    ids=["rmse", "mae"],
)
def test_the_command_prints_the_tables_that_it_writes(pair, capsys, options, names):
    assert exit_code("tables", pair, "--partial", *options) == 0
    written = [(pair / "tables" / name).read_text() for name in names]
    assert sorted(path.name for path in (pair / "tables").glob("*.md")) == sorted(names)
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in written)


def test_the_command_refuses_what_lacks_runs_with_code_2_and_writes_the_rest(tmp_path, capsys):
    incomplete(tmp_path)
    assert exit_code("tables", tmp_path) == 2
    said = capsys.readouterr()
    assert said.out.startswith("## Table 4")
    assert said.err.startswith("hippynn-mf: Not written, because of runs that are not finished: ")
    assert "Traceback" not in said.err


def test_the_command_takes_seeds(pair, capsys):
    assert exit_code("tables", pair, "--partial", "--seeds", "0,2") == 0
    assert "| SF-TZ/E | 2 | 2.00 (1.00 to 3.00) |" in capsys.readouterr().out


def test_the_main_table_alone_is_what_a_readme_can_quote(pair):
    path, *_ = tables(pair, partial=True)
    (content,) = json.loads(path.with_suffix(".json").read_text())["tables"]
    lines = main_table(TableData.model_validate(content)).splitlines()
    assert lines == path.read_text().splitlines()[2:6]


def test_models_that_are_worse_than_predicting_zero_are_named(tmp_path):
    for name, force in [("SF-TZ/E", 40.0), ("SF-TZ/EF", 31.0), ("MF-DZ/EF-TZ/E", 31.5)]:
        make_run(tmp_path, name, 0, tz(1.0, force))
    text = tables(tmp_path, partial=True)[0].read_text()
    note = "predicting zero has an RMSE of 31.25 kcal/mol/Å; above it: SF-TZ/E, MF-DZ/EF-TZ/E.\n"
    assert f"- force, held-out TZ: {note}" in text


# Experiments that are not in Table 1.


LOW = Level("low", "LO", "m", "b", 1.0, ("low.energy",))
HIGH = Level("high", "HI", "m", "b", 2.0, ("high.energy",), "high.forces")
OWN = {"more_levels": (LOW, HIGH)}


def own_experiments(*names):
    return [spelt_experiment(name, (LOW, HIGH)) for name in names]


@pytest.fixture
def own(tmp_path):
    """Three seeds of two experiments of user's levels, the lower one without forces in the file."""
    for seed, energy, force in [(0, 1.0, 10.0), (1, 2.0, 11.0), (2, 3.0, 15.0)]:
        metrics = run_metrics({"high": heldout_errors(energy, force, label_rms=31.25)})
        make_run(tmp_path, "SF-HI/E", seed, metrics, **OWN)
    for seed, energy, force in [(0, 0.5, 4.0), (1, 0.5, 5.0), (2, 0.5, 6.0)]:
        heldout = {
            "high": heldout_errors(energy, force, label_rms=31.25),
            "low": heldout_errors(7.0 + seed),
        }
        make_run(tmp_path, "MF-LO/E-HI/E", seed, run_metrics(heldout), **OWN)
    return tmp_path


def test_the_tables_of_own_levels_are_exactly_these(own):
    assert tables(own) == [own / "tables" / "experiments.md"]
    of_paper = (
        " The paper does not state its formula.",
        " Beside it that of the published\n  means.",
    )
    formulas = FORMULAS.replace(of_paper[0], "").replace(of_paper[1], "")
    assert (own / "tables" / "experiments.md").read_text() == (
        "## Models of LO: held-out errors (RMSE)\n"
        "\n"
        "| model | seeds | energy, held-out LO (kcal/mol) | mean prediction |"
        " force, held-out LO (kcal/mol/Å) | mean prediction |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| MF-LO/E-HI/E | 3 | 8.00 ± 2.48 | — | — | — |\n"
        "\n"
        "Nothing here could be compared with SF-LO/E.\n"
        "\n"
        "- force, held-out LO: — because no planted forces.\n"
        "- No mean prediction of MF-LO/E-HI/E: the runs' predictions.npz are missing"
        " ('hippynn-mf evaluate' makes them).\n"
        "\n"
        "## Models of HI: held-out errors (RMSE)\n"
        "\n"
        "| model | seeds | energy, held-out HI (kcal/mol) | mean prediction |"
        " force, held-out HI (kcal/mol/Å) | mean prediction |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| SF-HI/E | 3 | 2.00 ± 2.48 | — | 12.00 ± 6.57 | — |\n"
        "| MF-LO/E-HI/E | 3 | 0.50 ± 0.00 | — | 5.00 ± 2.48 | — |\n"
        "\n"
        "Beside SF-HI/E, seed by seed:\n"
        "\n"
        "| model | seeds | energy, held-out HI: difference (kcal/mol) | improvement (%) |"
        " force, held-out HI: difference (kcal/mol/Å) | improvement (%) |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| MF-LO/E-HI/E | 3 | −1.50 ± 2.48 | 72.5 [−9.4, 93.1] | −7.00 ± 4.30 |"
        " 58.3 [49.9, 65.3] |\n"
        "\n"
        "- force, held-out HI: predicting zero has an RMSE of 31.25 kcal/mol/Å.\n"
        "- No mean prediction of SF-HI/E, MF-LO/E-HI/E: the runs' predictions.npz are missing"
        " ('hippynn-mf evaluate' makes them).\n"
        "\n" + formulas + SOURCE.format(tests="").replace(PUBLISHED, "")
    )


def test_tables_of_own_levels_follow_from_their_json(own):
    for metric in ("rmse", "mae"):
        (path,) = tables(own, metric=metric)
        content = json.loads(path.with_suffix(".json").read_text())
        read = [TableData.model_validate(table) for table in content["tables"]]
        assert format_document(read) == path.read_text()
        assert "published" not in path.read_text()


def test_a_folder_of_own_levels_needs_no_run_of_table_1(own, capsys):
    assert exit_code("tables", own) == 0
    assert exit_code("figures", own, "--only", "figure3") == 0
    assert {path.name for path in (own / "tables").iterdir()} == {
        "experiments.md",
        "experiments.json",
    }
    assert not list((own / "figures").iterdir())


def test_own_levels_that_lack_a_seed_are_refused_or_named(own):
    make_run(own, "SF-HI/E", 3, None, **OWN)
    lacking = r"tables/experiments\.md \(MF-LO/E-HI/E, seed 3; SF-HI/E, seed 3 \(begun: 3\)\)"
    with pytest.raises(UserError, match=lacking):
        tables(own)
    assert not (own / "tables").exists()
    (path,) = tables(own, partial=True)
    assert "**Partial.** Missing: SF-HI/E, seed 3 (begun: 3)" in path.read_text()
    (path,) = tables(own, seeds=[0, 1, 2])
    assert "Partial" not in path.read_text()


def test_experiments_of_own_levels_are_chosen_by_name_as_the_runs_know_them(own, capsys):
    assert exit_code("tables", own, "--experiments", "SF-HI/E") == 0
    said = capsys.readouterr().out
    assert "## Models of HI: held-out errors" in said
    assert "MF-LO/E-HI/E" not in said


def test_an_experiment_that_was_asked_for_and_has_no_run_is_missing(own):
    with pytest.raises(UserError, match=r"experiments\.md \(SF-LO/E, seeds 0, 1, 2\)"):
        tables(own, experiments=own_experiments("SF-HI/E", "SF-LO/E"))


def test_own_levels_beside_table_1_have_their_document_beside_its(own):
    make_run(own, "SF-TZ/E", 0, tz(1.0, 10.0))
    with pytest.raises(UserError, match=r"table2\.md .*SF-TZ/EF, seed 0") as error:
        tables(own)
    assert "experiments.md" not in str(error.value)
    assert (own / "tables" / "experiments.md").exists()
    paths = tables(own, experiments=experiments("SF-TZ/E"))
    assert [path.name for path in paths] == ["table2.md", "low-level-forces.md"]


def test_paper_levels_in_other_combinations_are_compared_with_table_1(tmp_path):
    make_run(tmp_path, "SF-TZ/E", 0, tz(2.0, 10.0))
    make_run(tmp_path, "MF-DZ/EF-TZ/E-CC/E", 0, tz(1.0, 5.0))
    (path,) = tables(tmp_path, experiments=[spelt_experiment("MF-DZ/EF-TZ/E-CC/E")])
    content = json.loads(path.with_suffix(".json").read_text())["tables"]
    assert [table["title"].split(":")[0] for table in content] == [
        "Models of DZ",
        "Models of TZ",
        "Models of CC",
    ]
    (row,) = content[1]["rows"]
    assert row["cells"][0]["percent_improvement"]["value"] == pytest.approx(50)


def test_strategies_of_own_labels_are_compared_with_multi_fidelity_learning(own):
    for seed, energy, force in [(0, 0.25, 2.0), (1, 0.25, 2.5), (2, 0.25, 3.0)]:
        heldout = {"high": heldout_errors(energy, force), "low": heldout_errors(7.0 + seed)}
        make_run(own, "MFC-LO/E-HI/E", seed, run_metrics(heldout), **OWN)
    tables(own)
    content = json.loads((own / "tables" / "experiments.json").read_text())["tables"]
    *_, table = content
    assert table["title"] == "Strategies of LO/E-HI/E: held-out errors"
    assert table["reference"] == "MF-LO/E-HI/E"
    assert [row["model"] for row in table["rows"]] == ["MF-LO/E-HI/E", "MFC-LO/E-HI/E"]
    low_energy, low_force, high_energy, high_force = table["rows"][1]["cells"]
    assert low_energy["difference"]["value"] == 0
    assert low_force["mean"] is None
    assert high_energy["percent_improvement"]["value"] == pytest.approx(50)
    assert high_force["difference"]["value"] == pytest.approx(-2.5)


def test_strategies_are_compared_with_a_row_of_table_1(tmp_path):
    make_run(tmp_path, "MF-DZ/EF-TZ/E", 0, tz(2.0, 10.0))
    make_run(tmp_path, "MFC-DZ/EF-TZ/E", 0, tz(1.0, 5.0))
    tables(tmp_path, experiments=[spelt_experiment("MFC-DZ/EF-TZ/E")])
    content = json.loads((tmp_path / "tables" / "experiments.json").read_text())["tables"]
    table = content[-1]
    assert table["title"] == "Strategies of DZ/EF-TZ/E: held-out errors"
    assert [row["model"] for row in table["rows"]] == ["MF-DZ/EF-TZ/E", "MFC-DZ/EF-TZ/E"]


def test_high_forces_are_compared_with_those_of_the_lower_head(own):
    """Of the same run; a head that fine-tuning left aside is not compared."""
    for prefix in ("MF", "TL"):
        for seed, high, of_low_head in [(0, 4.0, 5.0), (1, 6.0, 9.0), (2, 5.0, 10.0)]:
            heldout = {"high": heldout_errors(1.0, high), "low": heldout_errors(1.0, 2.0)}
            cross = {"low": {"high": heldout_errors(99.0, of_low_head)}}
            metrics = run_metrics(heldout, cross=cross)
            make_run(own, f"{prefix}-LO/E-HI/E", seed, metrics, **OWN)
    tables(own)
    content = json.loads((own / "tables" / "experiments.json").read_text())["tables"]
    labels, heads = content[-2:]
    assert labels["title"] == "Are a model's HI forces nearer to HI than LO forces are? Held-out"
    assert heads["title"].endswith("HI than those of its LO head are? Held-out")
    assert heads["reference"] == "its LO head"
    (row,) = heads["rows"]
    assert row["model"] == "MF-LO/E-HI/E"
    (cell,) = row["cells"]
    assert cell["reference"] == 8.0
    assert cell["difference"]["value"] == pytest.approx(-3.0)
    markdown = (own / "tables" / "experiments.md").read_text()
    assert "| MF-LO/E-HI/E | 3 | 8.00 | −3.00 ± 4.97 |" in markdown


def test_strategies_without_multi_fidelity_learning_beside_them_have_no_table(own):
    shutil.rmtree(own / "runs" / "mf_lo_e_hi_e")
    for prefix in ("MFC", "DELTA"):
        heldout = {"high": heldout_errors(1.0), "low": heldout_errors(1.0)}
        make_run(own, f"{prefix}-LO/E-HI/E", 0, run_metrics(heldout), **OWN)
    tables(own, seeds=[0])
    titles = [
        t["title"] for t in json.loads((own / "tables" / "experiments.json").read_text())["tables"]
    ]
    assert titles == ["Models of LO: held-out errors", "Models of HI: held-out errors"]
