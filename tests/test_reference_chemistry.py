"""Stored labels against a fresh computation (slow; needs the extra `qm`)."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from hippynn_mf.data.embedded import MINI_ANI1X

ENERGY_TOLERANCE = 1e-6  # hartree
FORCE_TOLERANCE = 1e-5  # hartree/Å: orbital gradients are converged to 1e-5 hartree/bohr

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore")  # PySCF and its imports warn about themselves
@pytest.mark.parametrize("formula", ["H2O", "CHN", "CH4"])
def test_stored_conformer_is_recomputed(formula):
    pytest.importorskip("pyscf", reason="needs the extra qm: pip install -e '.[qm]'")
    from hippynn_mf.labelling.reference import all_labels

    with h5py.File(MINI_ANI1X) as file:
        group = file[formula]
        row = int(np.flatnonzero(np.isfinite(group["ccsd(t)_cbs.energy"][()]))[-1])
        numbers = group["atomic_numbers"][()].astype(int)
        positions = group["coordinates"][row].astype(float)
        stored = {key: group[key][row] for key in group if key.endswith(("energy", "forces"))}
    labels = all_labels(numbers, positions, {})
    assert len(labels) == 11
    for key, value in labels.items():
        atol = FORCE_TOLERANCE if key.endswith("forces") else ENERGY_TOLERANCE
        np.testing.assert_allclose(stored[key], value, rtol=0, atol=atol, err_msg=key)
