"""What a process of ours loads, and the threads that it has."""

import json
import os
import subprocess
import sys

import numba
import pytest

from hippynn_mf.starting import match_numba_threads

# Two epochs of a tiny network in a process of its own, through the command line.
TRAIN = """
import sys
from hippynn_mf.cli.main import main
options = "n_features=4 n_sensitivities=4 n_atom_layers=1 max_epochs=2"
sets = [word for option in options.split() for word in ("--set", option)]
try:
    main(["train", "MF-DZ/EF-CC/E", "--out", sys.argv[1], *sets])
except SystemExit as end:
    assert not end.code, end.code
"""
COUNT = """
import json, numba, torch
from pathlib import Path
n = len(list(Path("/proc/self/task").iterdir()))
modules = [m for m in ("torch._dynamo", "matplotlib", "pytorch_lightning", "pandas", "scipy.stats")
           if sys.modules.get(m) is not None]
print()
print(json.dumps([n, numba.config.NUMBA_NUM_THREADS, torch.get_num_threads(), modules]))
"""


def run_python(code, *arguments, **environment):
    kept = {k: v for k, v in os.environ.items() if "THREADS" not in k}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=kept | environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Threads and modules of a process after it has trained; it takes some seconds."""
    return run_python(TRAIN + COUNT, str(tmp_path_factory.mktemp("out")), OMP_NUM_THREADS="1")


def test_a_training_loads_no_compiler_no_figures_and_no_tables(trained):
    assert trained[3] == []


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_one_thread_is_one_for_numba_too(trained):
    n_threads, of_numba, of_torch, _ = trained
    assert (of_numba, of_torch) == (1, 1)
    # That of Python, the one that watches for signals, and one of the progress line.
    assert n_threads <= 3


def test_a_model_in_a_script_leaves_numba_no_more_threads_than_torch():
    code = """
import json, hippynn, numba, torch
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import parse_labels
from hippynn_mf.model.model import build_model
torch.set_num_threads(1)
build_model(get_hyperparameters("quick", {"n_features": 4}), parse_labels({"DZ": "E"}))
of_numba = numba.config.NUMBA_NUM_THREADS, numba.get_num_threads()
print(json.dumps([*of_numba, torch.get_num_threads()]))
"""
    assert run_python(code, NUMBA_NUM_THREADS="2") == [2, 1, 1]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "2,1"}, "2"),
        ({"OMP_NUM_THREADS": "4", "NUMBA_NUM_THREADS": "2"}, "2"),
        ({"OMP_NUM_THREADS": "all"}, None),
        ({"OMP_NUM_THREADS": "0"}, None),
    ],
)
def test_numba_has_as_many_threads_as_openmp_unless_told_otherwise(before, expected, monkeypatch):
    monkeypatch.delitem(sys.modules, "numba", raising=False)
    environment = dict(before)
    match_numba_threads(environment)
    assert environment.get("NUMBA_NUM_THREADS") == expected


def test_where_numba_is_loaded_its_threads_are_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", numba)
    environment = {"OMP_NUM_THREADS": "3"}
    match_numba_threads(environment)
    assert environment == {"OMP_NUM_THREADS": "3"}


def test_hippynn_draws_and_has_its_names_after_it_was_imported_lightly(tmp_path):
    """Its loop says only by a warning that it does not draw."""
    code = """
import json, sys, warnings
from pathlib import Path
from hippynn_mf.starting import import_hippynn
import_hippynn()
import hippynn
from hippynn.experiment.metric_tracker import MetricTracker
before = "matplotlib" in sys.modules
tracker = MetricTracker(["loss"], "loss", quiet=True)
for value in (1.0, 0.5, 0.3):
    tracker.epoch_metric_values.append({"valid": {"loss": value}})
    tracker.epoch_best_metric_values.append({"valid": {"loss": value}})
warnings.simplefilter("error")
import os
os.environ["MPLBACKEND"] = "agg"
os.chdir(sys.argv[1])
tracker.plot_over_time()
from hippynn.experiment import HippynnLightningModule
print()
print(json.dumps([before, sorted(map(str, Path().rglob("*.*"))), hippynn.plotting.__name__,
                  HippynnLightningModule.__name__, hasattr(hippynn, "nothing")]))
"""
    before, drawn, plotting, trainer, nothing = run_python(code, str(tmp_path))
    assert not before
    assert drawn
    assert (plotting, trainer) == ("hippynn.plotting", "HippynnLightningModule")
    assert not nothing


def test_hippynn_is_whole_after_it_was_imported_lightly():
    code = """
from hippynn_mf.starting import import_hippynn
import_hippynn()
import sys, json
before = "matplotlib" in sys.modules or "torch._dynamo" in sys.modules
import matplotlib.pyplot, torch
from hippynn.experiment.lightning_trainer import HippynnLightningModule
from hippynn.plotting import PlotMaker
from hippynn.custom_kernels import env_pytorch
compiles = torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item()
print(json.dumps([before, HippynnLightningModule.__name__, PlotMaker.__name__, compiles]))
"""
    assert run_python(code) == [False, "HippynnLightningModule", "PlotMaker", 2.0]
