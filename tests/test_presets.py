"""Which preset is used where none is asked for, and what the terminal says of it."""

import pytest
from made_runs import TINY_OPTIONS, exit_code

from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import Request


@pytest.mark.parametrize(
    ("values", "preset"),
    [
        ({}, "quick"),
        ({"data": "mine.h5"}, "robust"),
        ({"data": {"DZ": "a.xyz"}}, "robust"),
        ({"data": "mine.h5", "preset": "quick"}, "quick"),
        ({"preset": "robust"}, "robust"),
    ],
)
def test_data_of_your_own_have_the_preset_robust(values, preset):
    assert Request.of(values).chosen_preset == preset


COMMANDS = {
    "own data": ("train", [], "robust", "the default with data of your own; --preset chooses"),
    "asked for": ("train", ["--preset", "quick"], "quick", "as asked for"),
    "campaign": ("campaign", ["--engine", "pool"], "robust", "the default with data of your own"),
    "reproduce": ("reproduce", ["--engine", "pool"], "quick", "the default of this command"),
}


@pytest.mark.parametrize(
    ("command", "options", "preset", "reason"), COMMANDS.values(), ids=list(COMMANDS)
)
def test_the_terminal_says_which_preset_is_used_and_why(
    ani1x_file, tmp_path, capsys, command, options, preset, reason
):
    asked = ["--experiments", "SF-CC/E", "--data", ani1x_file, "--out", tmp_path, "--seeds", "0"]
    exit_code(command, *asked, *options, *TINY_OPTIONS, "--set", "max_epochs=1")
    (line,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("Preset ")]
    assert line.startswith(f"Preset {preset}")
    assert reason in line
    run = RunFolder(tmp_path / "runs" / "sf_cc_e" / "seed-0")
    assert run.read_settings().preset == preset
