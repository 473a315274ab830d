"""Ctrl-C in a real terminal: the prompt is back in ten seconds, and nothing is left."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time

import psutil
import pytest
from made_runs import NO_COMPILER, TINY_OPTIONS

from hippynn_mf.campaign.processes import MARK

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux"),
]
CLI = [sys.executable, "-c", "from hippynn_mf.cli.start import main; main()"]
PROMPT_SECONDS = 10
GONE_SECONDS = 10


class Terminal:
    """A shell in tmux."""

    def __init__(self, name):
        self.name = name
        shell = "env PS1='PROMPT> ' bash --norc"
        self.tmux("new-session", "-d", "-s", name, "-x", "200", "-y", "50", shell)

    def tmux(self, *arguments):
        done = subprocess.run(["tmux", *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    def press(self, *keys):
        self.tmux("send-keys", "-t", self.name, *keys)

    def lines(self):
        return self.tmux("capture-pane", "-p", "-J", "-t", self.name).splitlines()


@pytest.fixture
def terminal(request):
    shown = Terminal(f"test-{os.getpid()}")
    yield shown
    subprocess.run(["tmux", "kill-session", "-t", shown.name], check=False)


def wait_until(condition, seconds):
    stop = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.05)
    return found


def processes_of(out):
    found = []
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and process.cwd() == str(out.parent):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def n_epochs(out):
    return sum(path.read_bytes().count(b"\n") for path in out.glob("runs/*/*/epochs.jsonl"))


MOMENTS = {
    "starting": lambda out: processes_of(out),
    "running": lambda out: n_epochs(out) >= 3,
    "finishing": lambda out: len(list(out.glob("runs/*/*/metrics.json"))) == 2,
}


@pytest.mark.parametrize("engine", ["parsl", "pool"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupt(terminal, tmp_path, engine, moment):
    out, said = tmp_path / "Läufe hier", tmp_path / "said.txt"
    n = 3 if moment == "finishing" else 500
    names = ["--experiments", "SF-CC/E,SF-DZ/E", "--seeds", "0", "--workers", "2"]
    sizes = [*TINY_OPTIONS, "--set", f"max_epochs={n}"]
    where = ["--out", str(out), "--engine", engine, "--device", "cpu"]
    script = tmp_path / "start.sh"
    values = " ".join(f"{name}={value}" for name, value in NO_COMPILER.items())
    script.write_text(
        f"cd {shlex.quote(str(tmp_path))}; stty -a > before.txt; export {values}\n"
        f"{shlex.join([*CLI, 'campaign', *where, *names, *sizes])}; echo $? > code.txt\n"
        "stty -a > after.txt\n"
    )
    terminal.press(f". {shlex.quote(str(script))}", "Enter")
    wait_until(lambda: MOMENTS[moment](out), 200)
    start = time.monotonic()
    terminal.press("C-c")
    code = tmp_path / "code.txt"
    wait_until(lambda: code.exists() and code.read_text().strip(), 60)
    seconds = time.monotonic() - start
    assert seconds < PROMPT_SECONDS
    wait_until(lambda: not processes_of(out), GONE_SECONDS)
    wait_until(lambda: (tmp_path / "after.txt").exists(), 10)
    assert (tmp_path / "before.txt").read_text() == (tmp_path / "after.txt").read_text()
    text = "\n".join(terminal.lines())
    said.write_text(text)
    assert "Traceback" not in text
    assert code.read_text().strip() == "130" or moment == "finishing"
    if moment != "starting":
        content = json.loads((out / "campaign.json").read_text())
        assert content["runs"]
