"""CCSD(T)/CBS composite energies of ANI-1ccx and of the embedded data set.

Hartree–Fock and MP2 correlation energies are extrapolated from triple and quadruple zeta, and a
coupled-cluster correction from a smaller basis is added. Every energy is in hartree; scalars and
arrays of one shape work alike; NaN stays NaN.

Source: Smith et al., Sci. Data 7, 134 (2020), the ANI-1x/ANI-1ccx data descriptor.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

HF_ALPHA = 5.46
MP2_BETA = 2.51

Energy = TypeVar("Energy", float, np.ndarray)


def extrapolate_hf(*, tz: Energy, qz: Energy) -> Energy:
    """Hartree–Fock basis set limit from an exponential in the square root of 3 (TZ) and 4 (QZ)."""
    weight_tz, weight_qz = np.exp(-HF_ALPHA * np.sqrt([3.0, 4.0]))
    return (weight_qz * tz - weight_tz * qz) / (weight_qz - weight_tz)


def extrapolate_mp2(*, tz: Energy, qz: Energy) -> Energy:
    """MP2 correlation basis set limit from an inverse power of 3 (TZ) and 4 (QZ)."""
    weight_tz, weight_qz = 3.0**MP2_BETA, 4.0**MP2_BETA
    return (weight_qz * qz - weight_tz * tz) / (weight_qz - weight_tz)


def published_ccsd_t_cbs(
    *,
    hf_tz: Energy,
    hf_qz: Energy,
    mp2_tz: Energy,
    mp2_qz: Energy,
    npno_tz: Energy,
    npno_dz: Energy,
    tpno_dz: Energy,
) -> Energy:
    """Composite of ANI-1ccx: HF_CBS + MP2_CBS − MP2_TZ + NPNO_TZ + TPNO_DZ − NPNO_DZ.

    `npno` and `tpno` are DLPNO-CCSD(T) correlation energies with normal and tight thresholds.
    """
    limit = extrapolate_hf(tz=hf_tz, qz=hf_qz) + extrapolate_mp2(tz=mp2_tz, qz=mp2_qz)
    return limit - mp2_tz + npno_tz + tpno_dz - npno_dz


def canonical_ccsd_t_cbs(
    *,
    hf_tz: Energy,
    hf_qz: Energy,
    mp2_tz: Energy,
    mp2_qz: Energy,
    mp2_dz: Energy,
    ccsd_t_dz: Energy,
) -> Energy:
    """Composite of the embedded data: HF_CBS + MP2_CBS + (CCSD(T) − MP2)/cc-pVDZ, all canonical."""
    limit = extrapolate_hf(tz=hf_tz, qz=hf_qz) + extrapolate_mp2(tz=mp2_tz, qz=mp2_qz)
    return limit + ccsd_t_dz - mp2_dz
