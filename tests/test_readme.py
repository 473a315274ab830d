"""The README's code runs, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import typer

from hippynn_mf.cli import app

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


@pytest.mark.filterwarnings("ignore")  # hippynn's own plots at the end of training
def test_plugin_script_trains_two_levels(tmp_path, monkeypatch, capsys):
    (script,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
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
    assert named >= {"reproduce", "train", "evaluate", "tables", "figures", "experiments", "data"}
    assert named <= set(group.commands)


def test_every_option_in_the_readme_exists():
    group = typer.main.get_command(app)
    known = {
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    used = set(re.findall(r"(?<![\w-])(--[a-z][a-z0-9-]*)", README))
    assert used <= known


def test_files_named_in_the_readme_exist():
    for name in re.findall(r"(?:hippynn_mf|experiments|scripts)/[\w/.-]+\.\w+", README):
        assert (TOP / name).exists(), name
