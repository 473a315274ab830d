"""One level of a model as a model of its own: the same numbers, and nothing of the others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ase.build import molecule
from made_runs import exit_code
from safetensors import safe_open

from hippynn_mf import MultiFidelityCalculator
from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.model_file import SHIPPED
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems
from hippynn_mf.units import EV_PER_KCAL_PER_MOL

NAME = "mini-ani1x"
LEVELS = {"DZ": "wb97x_dz", "TZ": "wb97x_tz", "CC": "ccsd(t)_cbs"}
MOLECULES = [molecule(name) for name in ("CH3CH2OH", "H2O", "CH3NO2")]
ENERGY, FORCE = 1e-6 * EV_PER_KCAL_PER_MOL, 1e-5 * EV_PER_KCAL_PER_MOL


@pytest.fixture(scope="module")
def parent():
    return Potential.load(NAME)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """The files of every level, as the command writes them."""
    folder = tmp_path_factory.mktemp("extracted")
    files = {label: folder / f"{label}.safetensors" for label in LEVELS}
    for label, file in files.items():
        assert exit_code("extract", NAME, "--level", label, "--out", file) == 0
    return files


def evaluate(potential, label, dtype):
    evaluator = Evaluator(potential, dtype=dtype)
    systems = Systems.of(MOLECULES, evaluator.cutoff, evaluator.species)
    return evaluator(systems, [potential.level(label)])


@pytest.mark.parametrize("label", LEVELS)
def test_the_level_is_equal_to_its_parent(parent, extracted, label):
    alone = Potential.load(extracted[label])
    assert [level.id for level in alone.levels] == [LEVELS[label]]
    assert alone.level(None) == parent.level(label)
    ours, theirs = (evaluate(each, label, torch.float64) for each in (alone, parent))
    name = LEVELS[label]
    assert ours.energies.keys() == {name}
    np.testing.assert_allclose(ours.energies[name], theirs.energies[name], rtol=0, atol=ENERGY)
    np.testing.assert_allclose(ours.forces[name], theirs.forces[name], rtol=0, atol=FORCE)
    other = next(other for other in LEVELS.values() if other != name)
    assert abs(theirs.energies[other] - theirs.energies[name]).min() > 1e3 * ENERGY


@pytest.mark.parametrize("label", LEVELS)
def test_nothing_of_other_levels_is_left(parent, extracted, label):
    with safe_open(extracted[label], framework="pt") as file:
        names, header = set(file.keys()), file.metadata()["hippynn_mf"]
    with safe_open(SHIPPED[NAME], framework="pt") as file:
        of_parent = set(file.keys())
    others = [name for name in LEVELS.values() if name != LEVELS[label]]
    assert names == {name for name in of_parent if not any(o in name for o in others)}
    assert names < of_parent
    card = json.loads(header)
    # How the model came about is told still, and which conformers its errors are of.
    assert card.pop("training") == json.loads(parent.card.training.model_dump_json())
    for member in card["members"]:
        for errors in member["metrics"]["comp6"].values():
            assert errors.pop("cut_by") == LEVELS["CC"]
    text = json.dumps(card)
    assert LEVELS[label] in text
    assert not [name for name in (*others, "mp2_tz") if name in text]
    heldout = card["members"][3]["metrics"]["heldout"]
    assert heldout == {LEVELS[label]: parent.card.members[3].metrics["heldout"][LEVELS[label]]}
    assert extracted[label].stat().st_size < SHIPPED[NAME].stat().st_size


def test_metrics_without_comp6(parent):
    member = parent.card.members[0]
    without = member.model_copy(update={"metrics": member.metrics | {"comp6": None}})
    assert without.only(["wb97x_dz"]).metrics["comp6"] is None
    assert set(member.only(["wb97x_dz"]).metrics["comp6"]) == {"wb97x_dz"}


def test_metrics_of_a_test_file_are_those_of_the_level_alone(parent):
    member = parent.card.members[0]
    errors = {head: {key: {"n": head} for key in LEVELS.values()} for head in LEVELS.values()}
    tested = member.model_copy(update={"metrics": member.metrics | {"test_file": errors}})
    found = tested.only(["wb97x_dz"]).metrics["test_file"]
    assert found == {"wb97x_dz": {"wb97x_dz": {"n": "wb97x_dz"}}}
    assert set(errors) == set(LEVELS.values())  # the parent keeps its own
    without = member.model_copy(update={"metrics": member.metrics | {"test_file": None}})
    assert without.only(["wb97x_dz"]).metrics["test_file"] is None


def test_one_member(parent, tmp_path, capsys):
    out = tmp_path / "one.safetensors"
    assert exit_code("extract", NAME, "--level", "CC", "--seed", 3, "--out", out) == 0
    assert capsys.readouterr().out == f"{out}: 1 member, level CC\n"
    alone = Potential.load(out)
    assert [member.seed for member in alone.card.members] == [3]
    one, all_members = (evaluate(each, "CC", torch.float64) for each in (alone, parent))
    name = LEVELS["CC"]
    expected = all_members.energies[name][3:4]
    np.testing.assert_allclose(one.energies[name], expected, rtol=0, atol=ENERGY)


def test_what_exists_is_kept(tmp_path, capsys):
    out = tmp_path / "old.safetensors"
    out.write_bytes(b"old")
    command = ["extract", NAME, "--level", "CC", "--seed", 0, "--out", out]
    assert exit_code(*command) == 2
    assert "exists. Choose another name" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
    assert exit_code(*command, "--force") == 0
    assert Potential.load(out).levels[0].label == "CC"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--level", "MP2"], "Unknown level of this model 'MP2'. Known: DZ, wb97x_dz, TZ"),
        (["--level", "CC", "--seed", "9"], "Unknown seed of this model '9'. Known: 0, 1, 2"),
    ],
)
def test_wrong_choices_list_the_right_ones(tmp_path, capsys, options, message):
    assert exit_code("extract", NAME, *options, "--out", tmp_path / "x.safetensors") == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_extracted_level_runs_where_no_level_is_named(extracted):
    atoms = MOLECULES[1].copy()
    atoms.calc = MultiFidelityCalculator(extracted["CC"])
    found = atoms.get_potential_energy()
    atoms.calc = MultiFidelityCalculator(NAME, "CC")
    assert found == pytest.approx(atoms.get_potential_energy(), abs=ENERGY)
