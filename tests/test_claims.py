import json

import numpy as np
import pytest
from made_predictions import predicted_run
from made_runs import heldout_errors, make_run, require, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.levels import MP2
from hippynn_mf.paper.claims import (
    CLAIMS,
    DZ_LABELS,
    Findings,
    find,
    format_claims,
    judge,
    write_claims,
)
from hippynn_mf.paper.table1 import get_experiment, table1
from hippynn_mf.paper.tables import published_value
from hippynn_mf.report.columns import comp6_force
from hippynn_mf.report.results import Selection, read_results
from hippynn_mf.report.statistics import estimate_mean, percent_improvement


def experiments(*names):
    return [get_experiment(name) for name in names]


def tz_runs(out, name, energies):
    for seed, energy in enumerate(energies):
        make_run(out, name, seed, run_metrics({"wb97x_tz": heldout_errors(energy)}))


def findings(out, *names, **options):
    selection = Selection(experiments=experiments(*names), **options)
    written = write_claims(out, read_results(out), selection)
    (path,) = require(written)
    stored = Findings.model_validate(json.loads(path.with_suffix(".json").read_text()))
    assert format_claims(stored) == path.read_text()
    return stored.findings, path.read_text()


def test_the_names_of_all_claims_are_experiments_of_table_1():
    names = {experiment.name for experiment in table1()}
    assert {claim.better for claim in CLAIMS} <= names
    assert {claim.worse for claim in CLAIMS} <= names | {DZ_LABELS}
    assert len({(c.better, c.worse, c.column) for c in CLAIMS}) == len(CLAIMS)


def test_the_papers_own_numbers_are_on_the_side_of_every_claim():
    """A claim turned round, or in a column where the paper says the opposite, would fail."""
    n_published = 0
    for claim in CLAIMS:
        worse = 5.9 if claim.worse == DZ_LABELS else published_value(claim.worse, claim.column)
        better = published_value(claim.better, claim.column)
        if better is not None and worse is not None:
            n_published += 1
            assert better < worse, claim
    assert n_published == len(CLAIMS) - 2  # three levels: in the Supporting Information only


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.5, 0.6, 0.55], "confirmed"),
        ([2.0, 1.8, 1.9], "contradicted"),
        ([0.5, 2.0, 1.1], "open"),
        ([0.5, 0.4], "too few seeds"),
        ([], "no numbers"),
    ],
    ids=["below", "above", "both sides", "two seeds", "none"],
)
def test_a_verdict_needs_an_interval_that_leaves_zero_out(ratios, verdict):
    ours = dict(enumerate(ratios))
    assert judge(percent_improvement(ours, dict.fromkeys(ours, 1.0))) == verdict


def test_an_interval_that_ends_at_zero_decides_nothing():
    edge = estimate_mean(np.array([1.0, 2.0, 3.0]))
    assert judge(edge.model_copy(update={"low": 0.0})) == "open"
    assert judge(edge.model_copy(update={"high": 0.0, "low": -1.0})) == "open"


def test_a_claim_between_two_models_is_judged_by_their_seeds(tmp_path):
    tz_runs(tmp_path, "SF-TZ/E", [1.0, 2.0, 4.0])
    tz_runs(tmp_path, "MF-DZ/EF-TZ/E", [0.5, 1.1, 1.9])
    found, text = findings(tmp_path, "SF-TZ/E", "MF-DZ/EF-TZ/E")
    energy, force = found
    assert (energy.better, energy.worse) == ("MF-DZ/EF-TZ/E", "SF-TZ/E")
    assert energy.verdict == "confirmed"
    assert energy.percent_improvement == percent_improvement(
        {0: 0.5, 1: 1.1, 2: 1.9}, {0: 1.0, 1: 2.0, 2: 4.0}
    )
    assert energy.published_percent_improvement == pytest.approx(100 * (1 - 1.49 / 2.75))
    assert force.verdict == "no numbers"
    assert "| MF-DZ/EF-TZ/E | SF-TZ/E | energy, held-out TZ | 49.3 [" in text
    assert "| 45.8 | confirmed |" in text
    assert "| — | 69.2 | no numbers |" in text


def test_a_claim_that_the_runs_turn_round_is_contradicted(tmp_path):
    tz_runs(tmp_path, "SF-TZ/EF", [1.0, 2.0, 4.0])
    tz_runs(tmp_path, "MF-DZ/EF-TZ/E", [2.0, 4.1, 7.9])
    (claim, _), text = findings(tmp_path, "SF-TZ/EF", "MF-DZ/EF-TZ/E")
    assert claim.verdict == "contradicted"
    assert claim.percent_improvement.value < -90
    assert "| 6.9 | contradicted |" in text


def test_the_low_levels_own_forces_are_what_mp2_forces_have_to_beat(tmp_path):
    for seed in range(3):
        predicted_run(tmp_path, "MF-DZ/EF-MP2/E", seed)
        predicted_run(tmp_path, "SF-MP2/E", seed)
    found, _ = findings(tmp_path, "MF-DZ/EF-MP2/E", "SF-MP2/E")
    (claim,) = [finding for finding in found if finding.worse == DZ_LABELS]
    path = tmp_path / "runs" / "mf_dz_ef_mp2_e" / "ensemble.json"
    differences = json.loads(path.read_text())["level_differences"]
    name = "force_rmse_kcal_per_mol_per_angstrom"
    own = differences["comp6"]["wb97x_dz"]["mp2_tz"][name]
    values = read_results(tmp_path).values("MF-DZ/EF-MP2/E", comp6_force(MP2))
    expected = percent_improvement(values, dict.fromkeys(values.index, own))
    assert claim.percent_improvement == expected
    assert claim.published_percent_improvement == pytest.approx(100 * (1 - 3.42 / 5.9))


def test_claims_that_lack_runs_are_refused_or_partial(tmp_path):
    tz_runs(tmp_path, "SF-TZ/E", [1.0, 2.0, 4.0])
    tz_runs(tmp_path, "MF-DZ/EF-TZ/E", [0.5, 1.1])
    names = ("SF-TZ/E", "MF-DZ/EF-TZ/E")
    with pytest.raises(UserError, match=r"claims\.md \(MF-DZ/EF-TZ/E, seed 2\)"):
        findings(tmp_path, *names)
    assert not (tmp_path / "tables").exists()
    _, text = findings(tmp_path, *names, partial=True)
    assert "- **Partial.** Missing: MF-DZ/EF-TZ/E, seed 2.\n" in text
    found, _ = findings(tmp_path, *names, seeds=[0, 1])
    assert found[0].verdict == "too few seeds"


def test_without_both_models_of_a_claim_nothing_is_written(tmp_path):
    tz_runs(tmp_path, "SF-TZ/E", [1.0])
    selection = Selection(experiments=experiments("SF-TZ/E"))
    written = write_claims(tmp_path, read_results(tmp_path), selection)
    assert require(written) == []
    assert not (tmp_path / "tables").exists()


def test_a_claim_about_runs_that_are_not_there_has_no_numbers(tmp_path):
    tz_runs(tmp_path, "SF-TZ/E", [1.0])
    results = read_results(tmp_path)
    assert {find(claim, results, {}).verdict for claim in CLAIMS} == {"no numbers"}


def test_an_improvement_above_the_error_of_predicting_zero_is_marked(tmp_path):
    for seed in range(3):
        for name, energy, force in [("SF-TZ/E", 2.0, 90.0), ("MF-DZ/EF-TZ/E", 1.0, 40.0)]:
            held = {"wb97x_tz": heldout_errors(energy, force + seed, label_rms=30.0)}
            make_run(tmp_path, name, seed, run_metrics(held))
    (energy, force), text = findings(tmp_path, "SF-TZ/E", "MF-DZ/EF-TZ/E")
    assert (energy.above_zero_prediction, force.above_zero_prediction) == (False, True)
    assert energy.verdict == force.verdict == "confirmed"
    assert text.count("| confirmed |") == text.count("| confirmed † |") == 1
