"""Campaigns to which something happens at a random moment: `pytest -m faults`.

Not in CI: each of the twelve is up to three campaigns, undisturbed, hit and continued, and one took
60 s (pool) to 101 s (Parsl) on two cores with a load of 15.
"""

from pathlib import Path

import pytest

pytestmark = pytest.mark.faults


@pytest.fixture
def inject_faults(monkeypatch):
    """The script that injects faults at random moments."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    import inject_faults

    return inject_faults


@pytest.mark.parametrize(
    ("fault", "seed"),
    [
        ("worker stopped", 0),
        ("interchange killed", 1),
        ("manager stopped", 2),
        ("SIGINT", 3),
        ("SIGTERM", 4),
        ("parent killed", 5),
        ("disk full", 6),
    ],
)
def test_faults_at_random_moments_are_survived(inject_faults, tmp_path, fault, seed):
    if fault == "disk full" and not inject_faults.can_mount():
        pytest.skip("may not mount a file system here")
    n = len(inject_faults.EXPECTED[fault][0])  # every engine once
    trials = list(inject_faults.run_trials(tmp_path, n, seed, [fault]))
    assert len(trials) == n
    for trial in trials:
        assert trial.survived, trial
        assert trial.gone_s is None or trial.gone_s < 60
