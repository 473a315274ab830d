import json

import numpy as np
import pytest
from ase import units
from made_predictions import (
    CC_FORCES,
    GROUPS,
    predicted_run,
    predictions,
    references,
    with_cc_forces,
)
from made_runs import COMP6, make_run, run_metrics

from hippynn_mf.errors import UserError
from hippynn_mf.files import write_npz
from hippynn_mf.levels import PAPER_LEVELS, Level
from hippynn_mf.report import draw_parity, read_results
from hippynn_mf.report.columns import field_name
from hippynn_mf.report.ensemble import score_ensemble
from hippynn_mf.report.level_colors import OTHER_COLORS, PAPER_COLORS, level_color
from hippynn_mf.report.parity import make_parity

NAME = "MF-DZ/EF-CC/E"
DZ, CC = "wb97x_dz", "ccsd(t)_cbs"


@pytest.fixture
def members(tmp_path):
    for seed in range(3):
        predicted_run(tmp_path, NAME, seed)
    return tmp_path


def panels_of(figure):
    """Title of a panel → its points and the text in its corner; empty panels by their text."""
    found = {}
    for axes in figure.axes:
        (text,) = [text.get_text() for text in axes.texts]
        if axes.get_title():
            (points,) = [line for line in axes.lines if line.get_marker() == "."]
            found[axes.get_title()] = (points.get_xdata(), points.get_ydata(), text)
        else:
            found[text.replace("\n", " ")] = None
    return found


def mean_prediction(name, seeds=(0, 1, 2)):
    return np.mean([predictions(NAME, seed)[name].astype(float) for seed in seeds], axis=0)


def rms(errors):
    return np.sqrt(np.mean(np.square(errors)))


def test_there_is_a_panel_for_each_head_and_quantity_and_a_reason_where_labels_lack(members):
    figure = draw_parity(read_results(members), NAME)
    assert figure.get_suptitle() == f"{NAME}, mean of seeds 0–2"
    assert list(panels_of(figure)) == [
        "DZ energy, held-out",
        "DZ forces, held-out",
        "DZ ΔE, COMP6",
        "DZ forces, COMP6",
        "CC energy, held-out",
        "CC forces, held-out: the file has no forces of this level",
        "CC ΔE, COMP6",
        "CC forces, COMP6: the file has no forces of this level",
    ]


def test_energies_are_the_mean_prediction_relative_to_the_mean_reference_of_a_composition(members):
    true = references()[f"heldout.reference.{CC}.energy"]
    mean = mean_prediction(f"heldout.{CC}.energy")
    large = np.array([True, True, False, True, False])  # of three atoms; the others have two
    shift = np.where(large, true[large].mean(), true[~large].mean())
    x, y, text = panels_of(draw_parity(read_results(members), NAME))["CC energy, held-out"]
    np.testing.assert_allclose(x, true - shift)
    np.testing.assert_allclose(y, mean - shift)
    errors = mean - true
    assert text == f"RMSE {rms(errors):.2f}\nMAE {np.abs(errors).mean():.2f}\n5 energies"


def test_forces_are_all_components_of_all_atoms_and_no_padding(members):
    truth = references()
    atoms = truth["heldout.species"] > 0
    true = truth[f"heldout.reference.{DZ}.forces"][atoms].ravel()
    mean = mean_prediction(f"heldout.{DZ}.forces")[atoms].ravel()
    x, y, text = panels_of(draw_parity(read_results(members), NAME))["DZ forces, held-out"]
    np.testing.assert_allclose(x, true)
    np.testing.assert_allclose(y, mean)
    assert text == f"RMSE {rms(y - x):.2f}\nMAE {np.abs(y - x).mean():.2f}\n39 components"


def test_comp6_energies_are_pairs_of_conformers_within_the_cut(members):
    true = references()[f"comp6.reference.{CC}.energy"]
    mean = mean_prediction(f"comp6.{CC}.energy")
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6) if GROUPS[i] == GROUPS[j]]
    x, y, text = panels_of(draw_parity(read_results(members), NAME))["CC ΔE, COMP6"]
    np.testing.assert_allclose(x, [true[i] - true[j] for i, j in pairs])
    np.testing.assert_allclose(y, [mean[i] - mean[j] for i, j in pairs])
    assert text.endswith("6 pairs")


def test_the_numbers_are_the_tables_errors_of_the_mean_prediction(members):
    runs = read_results(members).members(NAME)
    errors = score_ensemble(runs).errors()
    panels = {(p.part, p.level, p.kind): p for p in make_parity(runs)[1].panels}
    for key, quantity, count in [
        (("heldout", CC, "energy"), "energy", "n_energies"),
        (("heldout", DZ, "forces"), "force", "n_force_components"),
        (("comp6", CC, "delta_e"), "delta_e", "n_pairs"),
        (("comp6", DZ, "forces"), "force", "n_force_components"),
    ]:
        part, level, _ = key
        entry = errors[part][level][level]
        assert panels[key].rmse == pytest.approx(entry[field_name(quantity, "rmse")])
        assert panels[key].mae == pytest.approx(entry[field_name(quantity, "mae")])
        assert panels[key].n == entry[count]
    lacking = panels["comp6", CC, "forces"]
    assert (lacking.n, lacking.rmse, lacking.mae) == (0, None, None)


def test_a_single_seed_is_drawn_as_it_is_and_named(members):
    figure = draw_parity(read_results(members).only([1]), NAME)
    assert figure.get_suptitle() == f"{NAME}, seed 1"
    true = references()[f"heldout.reference.{CC}.energy"]
    x, y, _ = panels_of(figure)["CC energy, held-out"]
    np.testing.assert_allclose(y - x, mean_prediction(f"heldout.{CC}.energy", [1]) - true)


def test_references_that_are_missing_are_left_out(tmp_path):
    arrays = predictions(NAME, 0)
    arrays[f"heldout.reference.{CC}.energy"][[0, 2]] = np.nan
    arrays[f"heldout.reference.{DZ}.forces"][:] = np.nan
    predicted_run(tmp_path, NAME, 0, arrays)
    panels = panels_of(draw_parity(read_results(tmp_path), NAME))
    assert len(panels["CC energy, held-out"][0]) == 3
    # a column in which nothing can be compared is left out
    assert not any(title.split()[1:] == ["forces,", "held-out"] for title in panels)


def test_forces_whose_sign_is_not_proved_are_not_drawn(tmp_path):
    arrays = predictions(NAME, 0)
    path = predicted_run(tmp_path, NAME, 0, arrays).file("metrics.json")
    metrics = json.loads(path.read_text())
    for heads in metrics["sets"]["comp6"].values():
        errors = heads[DZ]
        for key in [key for key in errors if "force" in key]:
            del errors[key]
        errors |= {field_name("force", "rmse"): None, field_name("force", "mae"): None}
        errors["force_reason"] = "planted: the sign is not proved"
    path.write_text(json.dumps(metrics))
    panels = make_parity(read_results(tmp_path).members(NAME))[1].panels
    (panel,) = [p for p in panels if (p.part, p.level, p.kind) == ("comp6", DZ, "forces")]
    assert (panel.rmse, panel.reason) == (None, "planted: the sign is not proved")


def test_members_of_different_structures_have_no_mean(members):
    arrays = predictions(NAME, 1)
    arrays[f"heldout.reference.{CC}.energy"][0] += 1
    write_npz(members / "runs" / "mf_dz_ef_cc_e" / "seed-1" / "predictions.npz", arrays)
    with pytest.raises(UserError, match="were not tested on the same structures"):
        draw_parity(read_results(members), NAME)


def test_nothing_to_compare_is_refused(tmp_path):
    arrays = predictions(NAME, 0)
    for name in [name for name in arrays if ".reference." in name]:
        arrays[name][:] = np.nan
    make_run(tmp_path, NAME, 0, run_metrics())
    write_npz(tmp_path / "runs" / "mf_dz_ef_cc_e" / "seed-0" / "predictions.npz", arrays)
    with pytest.raises(UserError, match="no test structure has a label of a head's level"):
        draw_parity(read_results(tmp_path), NAME)


def test_an_experiment_without_finished_runs_is_refused_with_those_that_have_some(members):
    with pytest.raises(UserError, match=r"'SF-CC/E'\..*Known: MF-DZ/EF-CC/E\."):
        draw_parity(read_results(members), "SF-CC/E")


def test_every_set_has_panels_of_its_own(tmp_path):
    arrays = with_cc_forces(predictions(NAME, 0), name="mine")
    mine = CC_FORCES.model_copy(update={"name": "mine"})
    predicted_run(tmp_path, NAME, 0, arrays, tests=(COMP6, mine))
    figure = draw_parity(read_results(tmp_path), NAME)
    true = arrays[f"mine.reference.{CC}.forces"][arrays["mine.species"] > 0].ravel()
    x, _, _ = panels_of(figure)["CC forces, mine"]
    np.testing.assert_allclose(x, true)
    assert {"DZ energy, mine", "CC energy, mine", "CC ΔE, COMP6"} <= panels_of(figure).keys()


def test_levels_of_the_users_own_have_colours_of_their_own():
    mine = [
        Level(f"mine_{i}", f"M{i}", "made up", "none", 100.0 - i, (f"m{i}",))
        for i in range(len(OTHER_COLORS) + 1)
    ]
    colors = [level_color(level, mine) for level in mine]
    assert colors[1:] == list(OTHER_COLORS)[::-1]  # by rank: the last one has the lowest
    assert colors[0] == OTHER_COLORS[0]  # from the first again
    assert [level_color(level, mine) for level in PAPER_LEVELS] == list(PAPER_COLORS.values())
    assert not set(colors) & set(PAPER_COLORS.values())


def test_stress_is_drawn_in_gpa_where_a_head_predicts_it(tmp_path):
    rng = np.random.default_rng(3)
    true = rng.normal(0, 0.1, (5, 3, 3))
    true[2] = np.nan  # a molecule among crystals
    predicted = []
    for seed in (0, 1):
        arrays = predictions(NAME, seed)
        arrays[f"heldout.reference.{DZ}.stress"] = true
        for level in (DZ, CC):
            own = rng.normal(0, 0.1, (5, 3, 3)).astype(np.float32)
            arrays[f"heldout.{level}.stress"] = own
            predicted += [own] if level == DZ else []
        predicted_run(tmp_path, NAME, seed, arrays)
    results = read_results(tmp_path)
    panels = panels_of(draw_parity(results, NAME))
    # 1 kcal/mol/Å³ by the units of ASE, which this package's are not read from.
    gpa = units.kcal / units.mol / units.GPa
    kept = [0, 1, 3, 4]
    x, y, text = panels["DZ stress, held-out"]
    np.testing.assert_allclose(x, gpa * true[kept].ravel(), rtol=1e-6)
    mean = np.mean(np.float64(predicted), axis=0)
    np.testing.assert_allclose(y, gpa * mean[kept].ravel(), rtol=1e-5, atol=1e-6)
    assert text.endswith("36 components")
    assert panels["CC stress, held-out: there is no stress of this level"] is None
    entry = score_ensemble(results.members(NAME)).errors()["heldout"][DZ][DZ]
    assert rms(y - x) == pytest.approx(entry["stress_rmse_gpa"])
