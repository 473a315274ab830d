from math import exp, sqrt

import numpy as np
import pytest

from hippynn_mf.data.composite import (
    canonical_ccsd_t_cbs,
    extrapolate_hf,
    extrapolate_mp2,
    published_ccsd_t_cbs,
)

# One conformer of ani1x-release.h5: its parts and its published composite energy, in hartree.
PARTS = {
    "hf_tz": -557.3013494778872,
    "hf_qz": -557.3426482230868,
    "mp2_tz": -1.9429519127460972,
    "mp2_qz": -2.0852302230766,
    "npno_dz": -1.6281721046206972,
    "npno_tz": -2.02456426080263,
    "tpno_dz": -1.6309148176133395,
}
MP2_DZ = -1.5539720835219866
PUBLISHED = -559.6590647156545

CANONICAL = {name: PARTS[name] for name in ("hf_tz", "hf_qz", "mp2_tz", "mp2_qz")} | {
    "mp2_dz": MP2_DZ,
    "ccsd_t_dz": PARTS["tpno_dz"],
}
COMPOSITES = pytest.mark.parametrize(
    ("composite", "parts"),
    [(published_ccsd_t_cbs, PARTS), (canonical_ccsd_t_cbs, CANONICAL)],
    ids=["published", "canonical"],
)


def test_the_published_energy_of_a_conformer_is_reproduced():
    assert published_ccsd_t_cbs(**PARTS) == pytest.approx(PUBLISHED, rel=0, abs=1e-12)


def test_the_canonical_composite_equals_its_hand_evaluation():
    tz, qz = exp(-5.46 * sqrt(3)), exp(-5.46 * sqrt(4))
    hf = (qz * PARTS["hf_tz"] - tz * PARTS["hf_qz"]) / (qz - tz)
    mp2 = (4**2.51 * PARTS["mp2_qz"] - 3**2.51 * PARTS["mp2_tz"]) / (4**2.51 - 3**2.51)
    by_hand = hf + mp2 + PARTS["tpno_dz"] - MP2_DZ
    assert canonical_ccsd_t_cbs(**CANONICAL) == pytest.approx(by_hand, rel=0, abs=1e-12)


def test_hartree_fock_extrapolation_finds_the_limit_of_an_exponential_in_the_root():
    limit, amplitude = -557.4, 37.0
    tz, qz = (limit + amplitude * exp(-5.46 * sqrt(n)) for n in (3, 4))
    assert extrapolate_hf(tz=tz, qz=qz) == pytest.approx(limit, rel=0, abs=1e-11)


def test_mp2_extrapolation_finds_the_limit_of_an_inverse_power():
    limit, amplitude = -2.1, 1.7
    tz, qz = (limit + amplitude * n**-2.51 for n in (3, 4))
    assert extrapolate_mp2(tz=tz, qz=qz) == pytest.approx(limit, rel=0, abs=1e-13)


@pytest.mark.parametrize("extrapolate", [extrapolate_hf, extrapolate_mp2])
def test_the_limit_lies_beyond_the_larger_basis(extrapolate):
    assert extrapolate(tz=-1.0, qz=-1.1) < -1.1
    assert extrapolate(tz=-1.0, qz=-1.0) == pytest.approx(-1.0, rel=1e-14)


@COMPOSITES
def test_arrays_give_what_scalars_give(composite, parts):
    shifts = np.array([[0.0, 0.1, -0.2], [3.0, 1e-3, 7.0]])
    columns = {name: value + i * shifts for i, (name, value) in enumerate(parts.items())}
    result = composite(**columns)
    assert result.shape == shifts.shape
    for index in np.ndindex(shifts.shape):
        single = composite(**{name: float(values[index]) for name, values in columns.items()})
        assert result[index] == pytest.approx(single, rel=1e-14)


@COMPOSITES
def test_a_missing_part_leaves_its_conformers_without_the_composite(composite, parts):
    for missing in parts:
        columns = {name: np.full(3, value) for name, value in parts.items()}
        columns[missing][1] = np.nan
        assert np.isnan(composite(**columns)).tolist() == [False, True, False]


@COMPOSITES
def test_the_parts_are_named_and_cannot_be_swapped_by_position(composite, parts):
    with pytest.raises(TypeError, match="positional"):
        composite(*parts.values())
