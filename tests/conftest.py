"""Fixtures shared by the tests: planted files, float64, and one table of tolerances."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from planted import write_ani1x, write_comp6

# Threads of small products wait for each other, above all where other processes compute.
torch.set_num_threads(1)
for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # of the processes that tests start
    os.environ.setdefault(variable, "1")

# (relative, absolute) per dtype, for everything that should be equal but for rounding.
TOLERANCES = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 1e-4)}


@pytest.fixture
def float64() -> Iterator[None]:
    """Run a test with torch's default dtype set to float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare tensors with the tolerance of their dtype; both must have it."""
    __tracebackhide__ = True
    rtol, atol = TOLERANCES[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


@pytest.fixture
def generator_scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the generator of the embedded data importable, and forget its modules afterwards."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("qm_", "generate_")):
            del sys.modules[name]


@pytest.fixture
def ani1x_file(tmp_path: Path) -> Path:
    """A planted file in the ANI-1x layout, every label present: 5 groups of 40."""
    return write_ani1x(tmp_path / "planted.h5")


@pytest.fixture
def comp6_file(tmp_path: Path) -> Path:
    """A planted file in the COMP6 layout: 5 molecules of 6 conformers."""
    return write_comp6(tmp_path / "planted-comp6.h5")


@pytest.fixture
def comp6_keys_file(tmp_path: Path) -> Path:
    """A key map for `comp6_file`, with all its levels."""
    from hippynn_mf.data.embedded import MINI_COMP6_KEYS

    return MINI_COMP6_KEYS
