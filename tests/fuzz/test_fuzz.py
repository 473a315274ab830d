"""Inputs made wrong at random: each is accepted or one clear refusal, soon, and touches nothing."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from kinds import KINDS

N_INPUTS = 150  # of each kind, about a minute in all
DEADLINE_MS = 10_000  # the slowest are accepted, and read several times
SECRET = b"not for reading"


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Thousands of inputs are warned of, which nobody reads."""
    caplog.set_level(logging.ERROR, logger="hippynn_mf")


def surroundings(folder: Path) -> dict[str, bytes]:
    """Every file beside the folder that is used."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.relative_to(folder).parts[0] != "used"
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")  # numpy's and ASE's, of values that are then refused
def test_wrong_inputs_are_refused_or_sound(name):
    @settings(
        max_examples=N_INPUTS,
        derandomize=True,
        database=None,
        deadline=DEADLINE_MS,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def use(seed: int) -> None:
        with TemporaryDirectory() as made:
            around = Path(made)
            (around / "outside").mkdir()
            (around / "outside" / "secret").write_bytes(SECRET)
            (around / "used").mkdir()
            before = surroundings(around)
            KINDS[name].outcome(around / "used", Random(seed))
            assert surroundings(around) == before

    use()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_the_inputs_are_accepted_as_they_were(name, tmp_path):
    kind = KINDS[name]
    kind.write(tmp_path)
    kind.use(tmp_path, tmp_path / kind.name)
