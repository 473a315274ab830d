"""What CONTRIBUTING says is to be done for a level, a strategy and an experiment is enough.

The tests that a recipe names are run with its change made, in a process of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
LEVEL = """
from hippynn_mf import levels

HF = levels.Level("hf_tz", "HF", "HF", "cc-pVTZ", 5.0, ("hf_tz.energy",))
levels.KNOWN_LEVELS = levels.Levels((*levels.PAPER_LEVELS, HF))
"""
STRATEGY = """
from types import MappingProxyType
from hippynn_mf.training import strategies
from hippynn_mf.training.strategies import INDEPENDENT, Phase, Strategy
from hippynn_mf.experiments import strategies as scripts

def warm(labels):
    *lower, _ = labels
    first = Phase("pretraining", {level: labels[level] for level in lower})
    return first, Phase("together", labels, starts_from=lower[-1])

new = Strategy("WARM", "pre-trained, then together", warm, overrides=INDEPENDENT)
strategies.STRATEGIES = MappingProxyType({**strategies.STRATEGIES, "WARM": new})
scripts.__path__.append(FOLDER)
"""
SCRIPT = """
from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row={row}, labels={labels}, prefix={prefix!r})
"""


def files_of(recipe: str) -> list[str]:
    """The files of tests that the last step of a recipe in CONTRIBUTING names."""
    text = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {recipe}\n")[1].split("\n## ")[0]
    (command,) = re.findall(r"`pytest ([^`]+)`", section)
    return command.split()


@pytest.fixture
def run_tests(tmp_path):
    """Run files of tests in a process that loads a module first."""

    def run(module: str, files: list[str]) -> str:
        (tmp_path / "recipe.py").write_text(module)
        command = [sys.executable, "-m", "pytest", "-p", "recipe", "-n", "0", "-q", *files]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            command, cwd=TOP, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        return done.stdout

    return run


def next_row() -> int:
    from hippynn_mf.paper.table1 import beyond_table1

    return beyond_table1()[-1].row + 1


@pytest.mark.slow
def test_a_level_is_added_by_its_recipe(run_tests):
    assert " passed" in run_tests(LEVEL, files_of("A level"))


@pytest.mark.slow
def test_a_strategy_and_an_experiment_are_added_by_their_recipes(run_tests, tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    several = [("WARM", {"DZ": "EF", "CC": "E"}), ("MF", {"DZ": "EF", "TZ": "E", "CC": "E"})]
    for row, (prefix, labels) in enumerate(several, next_row()):
        text = SCRIPT.format(row=row, labels=labels, prefix=prefix)
        (scripts / f"{prefix.lower()}_new.py").write_text(text)
    files = dict.fromkeys(files_of("A strategy") + files_of("An experiment"))
    assert " passed" in run_tests(f"FOLDER = {str(scripts)!r}\n{STRATEGY}", list(files))
