"""The README's code runs, and its commands exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from hippynn_mf.cli.main import app

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


@pytest.mark.filterwarnings("ignore")  # hippynn's own plots at the end of training
def test_the_example_of_a_model_does_what_its_comments_say(capsys):
    (script,) = re.findall(r"## Using a model\n\n```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict = {}
    exec(compile(script, "README.md", "exec"), names)
    atoms = names["atoms"]
    assert np.abs(atoms.get_forces()).max() < 0.01
    assert atoms.calc.get_property("forces_std", atoms).shape == (6, 3)
    energies = atoms.calc.get_level_energies(atoms)
    assert {len(of_members) for of_members in energies.values()} == {8}
    difference = atoms.calc.get_level_difference(atoms, "CC", "DZ")
    expected = (energies["ccsd(t)_cbs"] - energies["wb97x_dz"]).mean()
    assert difference.energy == pytest.approx(expected)


def test_plugin_script_trains_two_levels(tmp_path, monkeypatch, capsys):
    (script,) = re.findall(r"own hippynn script\n\n```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(script, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "energy_rmse.ccsd(t)_cbs" in printed
    assert "force_rmse.wb97x_dz" in printed
    assert "Training complete." in printed


def test_every_command_in_the_readme_exists():
    group = typer.main.get_command(app)
    named = set(re.findall(r"hippynn-mf ([a-z]+)", README))
    assert named >= {
        "campaign",
        "status",
        "reproduce",
        "train",
        "evaluate",
        "tables",
        "figures",
        "experiments",
        "data",
    }
    assert named <= set(group.commands)


def options_of(command):
    own = {option for parameter in command.params for option in parameter.opts}
    return own.union(*map(options_of, getattr(command, "commands", {}).values()))


def option_names(text):
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", text))


def test_every_option_in_the_readme_exists():
    group = typer.main.get_command(app)
    known = set().union(*map(options_of, group.commands.values()))
    assert option_names(re.sub(r"(python scripts/|torchrun ).*", "", README)) <= known


@pytest.mark.parametrize("line", sorted(set(re.findall(r"python scripts/[^`#\n]*", README))))
def test_every_option_of_a_script_in_the_readme_exists(line, monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    name = re.match(r"python scripts/(\w+)\.py", line)[1]
    script = typer.Typer()
    script.command()(importlib.import_module(name).main)
    assert option_names(line) <= options_of(typer.main.get_command(script))


def test_files_named_in_the_readme_exist():
    for name in re.findall(r"(?:hippynn_mf|experiments|scripts)/[\w/.-]+\.\w+", README):
        assert (TOP / name).exists(), name


def test_the_table_of_benchmarks_is_that_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    benchmarks = importlib.import_module("benchmark_all")
    assert benchmarks.summary(benchmarks.read(benchmarks.RESULTS)) in README
