"""One run in this process, and the processor time that each of its parts takes.

    python scripts/run_shares.py PACKAGE SHARES.json train MF-DZ/EF-CC/E --out OUT

Called by `benchmark_run.py`. PACKAGE is the folder whose `hippynn_mf` is measured; what follows are
arguments of `hippynn-mf`. A part does not count what another part takes inside it. Nothing of the
package is changed but that its functions are timed, so that the same script measures any commit.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

IMPORTS = "imports"
METRICS = "metrics of an epoch"
BATCHES, MODEL, LOSSES = "batches", "model and forces", "losses"
BACKWARD, OPTIMIZER = "backward", "optimizer"

# Functions by part, `module:name`. A commit may lack one of them.
FUNCTIONS = {
    "reading and checks": [
        "hippynn_mf.runs.build:build_settings",
        "hippynn_mf.runs.preflight:check_inputs",
        "hippynn_mf.runs.preflight:load_inputs",
        "hippynn_mf.runs.preflight:refuse_changed_files",
        "hippynn_mf.evaluation.test_sets:read_test_set",
        "hippynn_mf.runs.train:_facts",
    ],
    "preparing a phase": [
        "hippynn_mf.runs.phases:phase_database",
        "hippynn_mf.training.loop:prepare_training",
        "hippynn_mf.model.model:build_model",
    ],
    "final evaluation": [
        "hippynn_mf.runs.evaluate:errors_of_run",
        "hippynn_mf.runs.evaluate:inference_costs",
    ],
    BACKWARD: ["hippynn_mf.model.whole_model:_add_gradients"],  # of a step past autograd
    "tables and texts": ["hippynn_mf.runs.summary:summarize"],
    "models and results": ["hippynn_mf.runs.checkpoints:write_models"],
}
METHODS = {
    METRICS: ["hippynn.experiment.evaluator:Evaluator.evaluate"],
    "epochs.jsonl": ["hippynn_mf.runs.log:EpochRecord.__call__"],
    "checkpoints": ["hippynn_mf.runs.checkpoints:Checkpoints.__call__"],
    "models and results": ["hippynn_mf.runs.folder:RunFolder.write_results"],
    BATCHES: ["torch.utils.data.dataloader:_BaseDataLoaderIter.__next__"],
    BACKWARD: ["torch:Tensor.backward"],
    MODEL: ["hippynn_mf.model.whole_model:WholeModel.forward"],  # others: by their type
    LOSSES: ["hippynn_mf.model.whole_loss:WholeLoss.forward"],
    OPTIMIZER: [
        "torch.optim:Adam.step",
        "torch.optim:Optimizer.zero_grad",
        "hippynn_mf.training.flat_adam:FlatAdam.step",
        "hippynn_mf.training.flat_adam:FlatAdam.zero_grad",
    ],
}
IN_METRICS = {BATCHES, MODEL, LOSSES}  # belong to the metrics of an epoch inside them
FINAL = "final evaluation"


class Shares:
    """Processor seconds by part; the innermost part that is open counts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.open = ["everything else"]
        self.since = 0.0  # of this process's time: what began before it was measured is an import
        self.thread = threading.get_ident()

    def _count(self) -> None:
        now = time.process_time()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as a part; of the main thread only."""
        inside = self.open[-1]
        stays = name in IN_METRICS and inside in (METRICS, FINAL)
        stays = stays or (inside == FINAL and name != IMPORTS)
        if threading.get_ident() != self.thread or stays:
            yield
            return
        self._count()
        self.open.append(name)
        try:
            yield
        finally:
            self._count()
            self.open.pop()

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The function, counted as a part."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return wrapper


def time_imports(shares: Shares) -> None:
    """Count every import from now on."""
    bootstrap = importlib._bootstrap  # type: ignore[attr-defined]
    bootstrap._find_and_load = shares.timed(bootstrap._find_and_load, IMPORTS)


def time_functions(shares: Shares) -> None:
    """Time the functions wherever they are bound, and the methods."""
    for name, places in FUNCTIONS.items():
        for place in places:
            module, _, function = place.partition(":")
            try:
                found = getattr(importlib.import_module(module), function)
            except (ImportError, AttributeError):
                continue
            timed = shares.timed(found, name)
            for other in [m for m in sys.modules.values() if m is not None]:
                for bound in [k for k, v in vars(other).items() if v is found]:
                    setattr(other, bound, timed)
    for name, places in METHODS.items():
        for place in places:
            module, _, path = place.partition(":")
            owner, method = path.split(".")
            try:
                cls = getattr(importlib.import_module(module), owner)
            except ImportError:
                continue
            setattr(cls, method, shares.timed(getattr(cls, method), name))


def time_graphs(shares: Shares) -> None:
    """Time hippynn's graphs, of models and of losses."""
    from hippynn.graphs import GraphModule
    from hippynn.graphs.nodes.base import LossInputNode

    forward = GraphModule.forward

    @functools.wraps(forward)
    def timed(self: Any, *inputs: Any) -> Any:
        is_loss = isinstance(self.input_nodes[0], LossInputNode)
        with shares.part(LOSSES if is_loss else MODEL):
            return forward(self, *inputs)

    GraphModule.forward = timed


def main() -> None:
    """Run the command and write its shares."""
    package, out, *arguments = sys.argv[1:]
    shares = Shares()
    sys.path.insert(0, package)
    time_imports(shares)
    with shares.part(IMPORTS):
        with suppress(ImportError):  # as the command line does it, if it does
            importlib.import_module("hippynn_mf.starting").import_hippynn()
        import hippynn_mf.runs.train
        from hippynn_mf.cli.main import main as run

        found = Path(hippynn_mf.__file__).resolve()
        if not found.is_relative_to(Path(package).resolve()):
            raise SystemExit(f"{found} would be measured instead of {package}.")
        time_functions(shares)
        time_graphs(shares)
    try:
        run(arguments)
    finally:
        shares._count()
        Path(out).write_text(json.dumps(shares.seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
