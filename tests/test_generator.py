"""The generator of the embedded data: plan, sampling, and resuming from its own output."""

from __future__ import annotations

import shutil
from collections import Counter

import h5py
import numpy as np
import pytest
from ase import units

from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES, MINI_COMP6

pytest.importorskip("pyscf", reason="needs the extra qm")
pytest.importorskip("tblite", reason="needs the extra qm")


@pytest.fixture
def generator(generator_scripts):
    import generate_mini_dataset

    return generate_mini_dataset


@pytest.fixture
def sampling():
    from hippynn_mf.labelling import harmonic

    return harmonic


def test_plan_holds_every_conformer_once_and_a_third_before_comp6(generator):
    samples = generator.plan_samples()
    counts = Counter(sample.kind for sample in samples)
    assert len(set(samples)) == len(samples)
    assert counts["full"] >= 1200
    assert counts["low"] >= 1500
    assert counts["comp6"] >= 60
    assert counts["cc_forces"] >= 60
    kinds = [sample.kind for sample in samples]
    first = samples[: kinds.index("comp6")]
    assert {s.molecule for s in first} == set(generator.TRAINING_MOLECULES)
    assert sum(s.kind == "full" for s in first) >= 400
    assert sum(s.kind == "low" for s in first) >= 500


def test_geometry_of_a_conformer_depends_on_its_own_name_only(generator, sampling, monkeypatch):
    monkeypatch.setattr(sampling, "xtb_energy", lambda numbers, positions: 0.0)
    minimum = planted_minimum(sampling)
    samples = generator.plan_samples()[:50]
    drawn = [sampling.draw_conformer(minimum, sample.seed) for sample in samples]
    again = [sampling.draw_conformer(minimum, sample.seed) for sample in reversed(samples)]
    np.testing.assert_array_equal(drawn, again[::-1])
    assert len({positions.tobytes() for positions in drawn}) == len(drawn)


def planted_minimum(sampling, wavenumber=1500.0):
    """Three equal atoms with one mode along each axis of the first atom."""
    curvature = (wavenumber / sampling.curvature_to_wavenumber(1.0)) ** 2
    modes = np.zeros((3, 3, 3))
    modes[range(3), 0, range(3)] = 1
    return sampling.Minimum(
        numbers=np.array([6, 6, 6]),
        positions=np.array([[0.0, 0, 0], [1.5, 0, 0], [0, 1.5, 0]]),
        masses=np.full(3, 12.0),
        modes=modes,
        curvatures=np.full(3, curvature),
    )


def test_modes_carry_half_a_kt_each(sampling):
    temperature = 500.0
    minimum = planted_minimum(sampling)
    rng = np.random.default_rng(1)
    drawn = [
        sampling.draw_harmonic(minimum, rng, temperatures=(temperature, temperature))
        for _ in range(4000)
    ]
    shifts = np.array(drawn) - minimum.positions
    curvature = minimum.curvatures[0] * 12.0  # eV/Å²
    energy = curvature * np.square(shifts[:, 0]).mean(axis=0) / 2
    np.testing.assert_allclose(energy, units.kB * temperature / 2, rtol=0.08)
    np.testing.assert_allclose(shifts[:, 1:], 0, atol=1e-6)


def test_a_torn_conformer_is_drawn_again(sampling, monkeypatch):
    minimum = planted_minimum(sampling)
    drawn = []

    def xtb_energy(numbers, positions):
        """Two torn conformers, then a whole one; the minimum is at -100."""
        if positions is minimum.positions:
            return -100.0
        drawn.append(positions)
        return -100.0 + sampling.HIGHEST_ENERGY + [5.0, 0.1, -0.1][len(drawn) - 1]

    monkeypatch.setattr(sampling, "xtb_energy", xtb_energy)
    positions = sampling.draw_conformer(minimum, (1, 2))
    np.testing.assert_array_equal(positions, drawn[2])
    assert len({p.tobytes() for p in drawn}) == 3


def test_drawing_ends_if_every_conformer_is_torn(sampling, monkeypatch):
    minimum = planted_minimum(sampling)

    def xtb_energy(numbers, positions):
        return 0.0 if positions is minimum.positions else np.inf

    monkeypatch.setattr(sampling, "xtb_energy", xtb_energy)
    with pytest.raises(RuntimeError, match="100 conformers"):
        sampling.draw_conformer(minimum, (1, 2))


def test_an_atomized_molecule_has_an_infinite_energy(sampling):
    rng = np.random.default_rng(0)
    far = 5.0 * rng.normal(size=(4, 3))
    positions = np.concatenate([np.zeros((1, 3)), far * 5.0 / np.linalg.norm(far, axis=1)[:, None]])
    energy = sampling.xtb_energy(np.array([6, 1, 1, 1, 1]), positions)
    near = sampling.xtb_energy(np.array([6, 1, 1, 1, 1]), positions * 1.09 / 5.0)
    assert energy > near + sampling.HIGHEST_ENERGY


def test_stored_conformers_obey_the_plan_that_their_file_states(generator, sampling):
    from qm_files import PROVENANCE
    from qm_starts import find_minimum

    minima = {name: find_minimum(name) for name in ("H2O2", "NH2OH")}
    with h5py.File(MINI_ANI1X) as file:
        assert dict(file.attrs.items()) == PROVENANCE
        for group, (molecule, minimum) in zip(("H2O2", "H3NO"), minima.items(), strict=True):
            lowest = sampling.xtb_energy(minimum.numbers, minimum.positions)
            np.testing.assert_array_equal(file[group]["atomic_numbers"][()], minimum.numbers)
            for name, positions in zip(
                file[group]["sample"].asstr()[:], file[group]["coordinates"][()], strict=True
            ):
                assert name.split("/")[1] == molecule
                energy = sampling.xtb_energy(minimum.numbers, positions)
                assert lowest - 0.1 < energy <= lowest + sampling.HIGHEST_ENERGY


def test_xtb_energy_is_in_kcal_per_mol(sampling):
    # Bond energy of H2 by GFN2-xTB: 0.98266 Ha for the molecule, 0.39348 Ha for an atom.
    near, far = (
        sampling.xtb_energy(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, d]]))
        for d in (0.7764, 0.9)
    )
    assert near / 627.5095 == pytest.approx(-0.98266, abs=2e-4)
    assert far > near


def test_wavenumber_agrees_with_the_textbook_formula(sampling):
    force_constant, mass = 1000.0, 14.0  # N/m and u
    per_metre = np.sqrt(force_constant / (mass * units._amu)) / (2 * np.pi * units._c)
    in_ev = force_constant * units.J / units.m**2
    found = sampling.curvature_to_wavenumber(in_ev / mass)
    assert found == pytest.approx(per_metre / 100, rel=1e-6)


@pytest.mark.parametrize(
    ("positions", "n_internal"),
    [
        ([[0.0, 0, 0], [0, 0, 1.1]], 1),
        ([[0.0, 0, -1.16], [0, 0, 0], [0, 0, 1.16]], 4),
        ([[0.0, 0, 0], [0.97, 0, 0], [-0.24, 0.94, 0]], 3),
    ],
    ids=["diatomic", "linear", "bent"],
)
def test_internal_directions_leave_out_rigid_motions(sampling, positions, n_internal):
    positions = np.array(positions)
    directions = sampling.internal_directions(positions, np.ones(len(positions)))
    assert directions.shape == (positions.size, n_internal)
    for axis in np.eye(3):
        shift = np.tile(axis, len(positions))
        turn = np.cross(axis, positions - positions.mean(axis=0)).ravel()
        np.testing.assert_allclose(directions.T @ shift, 0, atol=1e-12)
        np.testing.assert_allclose(directions.T @ turn, 0, atol=1e-12)


def test_output_files_can_be_continued_on_another_machine(generator, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    for path in (MINI_ANI1X, MINI_COMP6, MINI_CC_FORCES):
        shutil.copy(path, out)
    generator.main(out=out, work=work, assemble=True)
    for path in (MINI_ANI1X, MINI_COMP6, MINI_CC_FORCES):
        with h5py.File(path) as before, h5py.File(out / path.name) as after:
            names = []
            before.visit(names.append)
            assert names
            for name in names:
                if isinstance(before[name], h5py.Dataset):
                    assert before[name].dtype == after[name].dtype
                    np.testing.assert_array_equal(before[name][()], after[name][()], err_msg=name)


def test_a_conformer_is_computed_and_kept(generator, tmp_path):
    generator.main(out=tmp_path / "out", work=tmp_path / "work", workers=1, limit=1)
    (finished,) = (tmp_path / "work").rglob("*.npz")
    generator.main(out=tmp_path / "out", work=tmp_path / "work", assemble=True)
    with h5py.File(tmp_path / "out" / "mini-ani1x.h5") as file:
        (group,) = file.values()
        assert group["sample"][0].decode() == str(
            finished.relative_to(tmp_path / "work").with_suffix("")
        )
        assert np.isfinite(group["ccsd(t)_cbs.energy"][()]).all()
