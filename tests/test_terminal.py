"""A real terminal: Ctrl-C gives the prompt back within ten seconds; nothing is left running."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from made_runs import NO_COMPILER, TINY_OPTIONS

from hippynn_mf.campaign.processes import MARK

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux"),
]
CLI = [sys.executable, "-c", "from hippynn_mf.cli.start import main; main()"]
NAME = "TEST_OF_TERMINAL"  # in the environment of every process of a test
MOMENT_SECONDS = 200
FINISH_SECONDS = 200
PROMPT_SECONDS = 10
GONE_SECONDS = 60


class Terminal:
    """A shell in a tmux of its own, whose server no other test can end or be slow for."""

    def __init__(self, socket):
        self.socket, self.name = socket, "shell"
        shell = "env PS1='PROMPT> ' bash --norc"
        self.tmux("new-session", "-d", "-s", self.name, "-x", "200", "-y", "50", shell)

    def tmux(self, *arguments):
        command = ["tmux", "-f", os.devnull, "-S", str(self.socket), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def press(self, *keys):
        self.tmux("send-keys", "-t", self.name, *keys)

    def text(self):
        return self.tmux("capture-pane", "-p", "-J", "-S", "-", "-t", self.name)

    def close(self):
        subprocess.run(["tmux", "-S", str(self.socket), "kill-server"], check=False)


@pytest.fixture
def terminal():
    # Paths of sockets are short, those of tests are not.
    with tempfile.TemporaryDirectory() as folder:
        shown = Terminal(Path(folder) / "tmux")
        yield shown
        shown.close()


def wait_until(condition, seconds):
    stop = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < stop, "waited too long"
        time.sleep(0.05)
    return found


class Started:
    """A command in a terminal; what it has written and which of its processes are there."""

    def __init__(self, terminal, folder, engine, n_epochs, names="SF-CC/E,SF-DZ/E"):
        from planted import write_ani1x

        self.out, self.folder = folder / 'Läufe "hier"', folder
        self.n = 1 if engine == "-" else len(names.split(","))
        data = write_ani1x(folder / "data.h5")  # whose epochs take a fraction of a second
        sizes = [*TINY_OPTIONS, "--set", f"max_epochs={n_epochs}", "--device", "cpu"]
        sizes += ["--data", str(data)]
        if engine == "-":  # this process
            words = ["train", "SF-CC/E", "--seed", "0", *sizes]
        else:
            which = ["--experiments", names, "--seeds", "0", "--workers", str(self.n)]
            words = ["campaign", *which, "--engine", engine, *sizes]
        values = " ".join(f"{name}={value}" for name, value in NO_COMPILER.items())
        script = folder / "start.sh"
        script.write_text(
            # A shell that is interrupted once the command has ended writes its code all the same.
            f"trap : INT; cd {shlex.quote(str(folder))}; stty -a > before.txt\n"
            f"export {values} {NAME}={shlex.quote(str(folder))}\n"
            f"{shlex.join([*CLI, *words, '--out', str(self.out)])}; code=$?; unset {NAME}\n"
            "stty -a > after.txt; echo $code > code.txt\n"
        )
        terminal.press(f". {shlex.quote(str(script))}", "Enter")

    def processes(self):
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(NAME) == str(self.folder):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def code(self):
        path = self.folder / "code.txt"
        return path.read_text().strip() if path.exists() else ""

    def is_importing(self):
        with_torch = []
        for process in self.processes():
            try:
                with_torch += ["libtorch" in file.path for file in process.memory_maps()]
            except (psutil.Error, OSError):
                continue
        return any(with_torch)

    def is_starting(self):
        found = []
        for process in self.processes():
            try:
                found.append(MARK in process.environ())
            except (psutil.Error, OSError):
                continue
        return any(found)

    def is_running(self):
        paths = self.out.glob("runs/*/*/epochs.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in paths) >= 3

    def is_finishing(self):
        return len(list(self.out.glob("runs/*/*/metrics.json"))) == self.n


CASES = [
    *(
        (engine, when)
        for engine in ("parsl", "pool")
        for when in ("starting", "running", "finishing")
    ),
    *(("-", when) for when in ("importing", "running", "finishing")),
]


@pytest.mark.parametrize(("engine", "moment"), CASES)
def test_an_interrupt(terminal, tmp_path, engine, moment):
    started = Started(terminal, tmp_path, engine, 3 if moment == "finishing" else 5000)
    wait_until(getattr(started, f"is_{moment}"), MOMENT_SECONDS)
    start = time.monotonic()
    terminal.press("C-c")
    wait_until(started.code, 60)
    seconds = time.monotonic() - start
    assert seconds < PROMPT_SECONDS, terminal.text()
    wait_until(lambda: not started.processes(), GONE_SECONDS)
    assert (tmp_path / "before.txt").read_text() == (tmp_path / "after.txt").read_text()
    assert "Traceback" not in terminal.text()
    assert started.code() == "130" or moment == "finishing"
    if engine != "-" and moment != "starting":
        assert json.loads((started.out / "campaign.json").read_text())["runs"]


@pytest.mark.parametrize("engine", ["parsl", "pool"])
def test_nothing_outlives_a_terminal_that_is_closed(terminal, tmp_path, engine):
    started = Started(terminal, tmp_path, engine, 5000)
    wait_until(started.is_running, MOMENT_SECONDS)
    terminal.close()
    wait_until(lambda: not started.processes(), GONE_SECONDS)


@pytest.mark.parametrize("engine", ["parsl", "pool"])
def test_a_campaign_that_was_suspended_goes_on(terminal, tmp_path, engine):
    started = Started(terminal, tmp_path, engine, 60, names="SF-CC/E")
    wait_until(started.is_running, MOMENT_SECONDS)
    terminal.press("C-z")
    wait_until(lambda: "Stopped" in terminal.text(), 60)  # the script of its shell goes on
    assert not started.is_finishing()
    time.sleep(2)  # in which its workers may miss it
    terminal.press("fg", "Enter")
    wait_until(started.is_finishing, FINISH_SECONDS)
    assert "Traceback" not in terminal.text()
