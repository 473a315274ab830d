"""The script that injects faults draws every kind, and counts what it has seen."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import inject_faults

    return inject_faults


def test_every_kind_is_drawn_in_turn_and_the_same_by_seed(script):
    drawn = script.draw(30, 7, list(script.EXPECTED))
    assert drawn == script.draw(30, 7, list(script.EXPECTED))
    assert drawn != script.draw(30, 8, list(script.EXPECTED))
    pairs = {(e, fault) for fault, (engines, _) in script.EXPECTED.items() for e in engines}
    assert {(engine, fault) for engine, fault, _ in drawn[: len(pairs)]} == pairs
    assert all(0 <= share < 1 for *_, share in drawn)


def test_a_campaign_that_is_over_is_hit_earlier_and_one_that_fails_by_itself_is_said(
    script, tmp_path, monkeypatch
):
    class Fake:
        def __init__(self, out, engine):
            self.code = codes.pop(0)

        def wait(self, seconds):
            moments.append(seconds)
            return self.code

        def said(self):
            return "planted failure"

        def clear(self):
            pass

    codes, moments = [0, 0, 3], []
    monkeypatch.setattr(script, "Campaign", Fake)
    monkeypatch.setattr(script, "weights", lambda out: {})
    monkeypatch.setattr(script, "draw", lambda n, seed, faults: [("pool", "SIGTERM", 0.5)])
    (trial,) = script.run_trials(tmp_path, 1, 0, ["SIGTERM"])
    assert not trial.survived
    assert trial.problem == "exit code 3 before the fault: planted failure"
    assert moments[2] == moments[1] / 2


def test_the_table_counts(script):
    lost = script.Trial("parsl", "worker killed", 3.0, "killed the worker", True, 20.0, None)
    late = script.Trial("pool", "SIGTERM", 3.0, "sent SIGTERM", False, 12.4, 13.0, "late")
    text = script.table([asdict(lost), asdict(late)])
    assert "| parsl | worker killed | 1 | 1 | 20 s | it goes on |" in text
    assert "| pool | SIGTERM | 1 | 0 | 12 s | 13 s |" in text
    assert "2 faults injected, 1 survived." in text


def test_the_committed_faults_were_all_survived(script):
    content = json.loads((SCRIPTS / "benchmarks" / "faults.json").read_text())
    trials = [script.Trial(**row) for row in content["rows"]]
    assert trials
    assert all(trial.survived for trial in trials)
    assert all(trial.gone_s <= script.ORPHAN_SECONDS for trial in trials if trial.gone_s)
    interrupts = [trial for trial in trials if trial.fault.startswith("SIG")]
    assert all(trial.end_s <= script.INTERRUPT_SECONDS for trial in interrupts)
