"""What the tests of distributed training run in several processes: `launch` starts them.

    python tests/distributed_ranks.py FOLDER TASK…

Every process writes what its tasks return to `FOLDER/<task>-<rank>.pt`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
TIMEOUT = 120  # s: a hang is a failure
LABELS = {"DZ": "EF", "CC": "E"}
# 6 steps in an epoch, the last with a single structure.
TRAINING = {
    "n_features": 4,
    "n_sensitivities": 4,
    "n_atom_layers": 1,
    "batch_size": 19,
    "eval_batch_size": 11,
    "max_epochs": 4,
    "learning_rate": 5e-3,
}


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process on one thread, without compilation."""
    fast = {"HIPPYNN_USE_CUSTOM_KERNELS": "false", "TORCHDYNAMO_DISABLE": "1"}
    return os.environ | fast | {"OMP_NUM_THREADS": "1"} | changes


def launch(folder: Path, *tasks: str, n_ranks: int = 2) -> dict[str, list[Any]]:
    """Run tasks in several processes as torchrun would; what they returned, by task and rank."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, __file__, str(folder), *tasks]
    common = {"WORLD_SIZE": str(n_ranks), "LOCAL_WORLD_SIZE": str(n_ranks)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    processes = []
    logs = [folder / f"rank-{rank}.log" for rank in range(n_ranks)]
    end = time.monotonic() + TIMEOUT
    try:
        for rank, path in enumerate(logs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONHASHSEED": str(rank)}
            with path.open("w") as stream:  # a pipe that is full would stop its process
                processes.append(
                    subprocess.Popen(
                        command, env=environment(**common, **own), stdout=stream, stderr=stream
                    )
                )
        codes = [process.wait(max(1, end - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        codes = ["hangs"]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert not any(codes), "\n".join(f"{codes}\n{path.read_text()[-3000:]}" for path in logs)
    return {
        task: [
            torch.load(folder / f"{task}-{rank}.pt", weights_only=True) for rank in range(n_ranks)
        ]
        for task in tasks
    }


# Losses and their gradients, on batches with missing labels.

PATTERNS = ("complete", "uneven", "only first rank", "only second rank", "nowhere", "no forces")


def batch_with(pattern: str, model: Any) -> dict[str, torch.Tensor]:
    """Nine structures, of which ranks 0 and 1 get the even and the odd ones."""
    from tiny import labelled_batch

    batch = {name: array[:9] for name, array in labelled_batch(model).items()}
    missing = {
        "complete": [],
        "uneven": [1, 2, 5, 7],
        "only first rank": [1, 3, 5, 7],
        "only second rank": [0, 2, 4, 6, 8],
        "nowhere": list(range(9)),
        "no forces": list(range(9)),
    }[pattern]
    kinds = ("wb97x_dz.forces",) if pattern == "no forces" else ("wb97x_dz", "ccsd(t)_cbs.energy")
    for name in batch:
        if name.startswith(kinds):
            batch[name][missing] = float("nan")
    if pattern == "uneven":
        batch["wb97x_dz.energy"][0] = 0.5  # one label of one level on another number of structures
    return batch


def losses_of(heads: Any) -> dict[str, Any]:
    """Loss nodes by name: the whole loss, and every kind of error on its own."""
    from hippynn_mf import build_loss
    from hippynn_mf.model import losses as nodes

    dz, cc = heads["DZ"], heads["CC"]
    return {
        "loss": build_loss(heads),
        "rmse": nodes.MaskedRMSELoss.of_node(dz.forces) + nodes.MaskedRMSELoss.of_node(cc.energy),
        "mae": nodes.MaskedMAELoss.of_node(dz.forces) + nodes.MaskedMAELoss.of_node(cc.energy),
        "hierarchicality": nodes.MaskedHierarchicalityLoss.of_node(dz.energy),
    }


def reverse_errors(graph: Any) -> None:
    """Let a loss graph evaluate its errors in the opposite order."""
    errors = [node for node in graph.forward_output_list if isinstance(node, nodes_of_errors())]
    later = [n for n in graph.forward_output_list if set(errors) & set(n.get_all_parents())]
    first = [n for n in graph.forward_output_list if n not in (*errors, *later)]
    graph.forward_output_list = [*first, *errors[::-1], *later]
    graph.forward_inputs_list = [node.parents for node in graph.forward_output_list]


def nodes_of_errors() -> tuple[type, ...]:
    from hippynn_mf.model import losses as nodes

    return (
        nodes.MaskedRMSELoss,
        nodes.MaskedMAELoss,
        nodes.MaskedHierarchicalityLoss,
    )


def gradients() -> dict[str, Any]:
    """Global losses, and their gradients as data-parallel training averages them."""
    from hippynn.experiment import assemble_for_training
    from tiny import tiny_model
    from torch.nn.parallel import DistributedDataParallel

    from hippynn_mf.training.global_loss import GlobalLoss
    from hippynn_mf.training.lightning_module import NamedGraph

    class LossOfModel(torch.nn.Module):
        def __init__(self, model, node):
            super().__init__()
            modules, self.names = assemble_for_training(node, {"loss": node})
            self.model = NamedGraph(model.parameters, modules.model)
            if rank == 1:
                reverse_errors(modules.loss)
            self.loss = GlobalLoss(modules.loss)

        def forward(self, batch):
            predictions = self.model(*(batch[name].clone() for name in self.names["inputs"]))
            return self.loss(*predictions, *(batch[name] for name in self.names["targets"]))[0]

    torch.distributed.init_process_group("gloo")  # kept: trainings use it, too
    torch.set_default_dtype(torch.float64)
    rank = torch.distributed.get_rank()
    model = tiny_model(LABELS)
    results: dict[str, Any] = {}
    for name, node in losses_of(model.heads).items():
        module = LossOfModel(model, node)
        parallel = DistributedDataParallel(module, find_unused_parameters=True)
        for pattern in PATTERNS:
            batch = batch_with(pattern, model)
            model.parameters.zero_grad()
            value = parallel({name: array[rank::2] for name, array in batch.items()})
            value.backward()
            found = {n: p.grad for n, p in model.parameters.named_parameters()}
            results[f"{name}, {pattern}"] = value.item(), found
        results[f"names of {name}"] = module.loss.names
    torch.set_default_dtype(torch.float32)
    return results


# Whole trainings.


def model_and_database(
    folder: Path,
    data: str = "planted.h5",
    labels: Mapping[str, str] = LABELS,
    **changes: Any,
) -> tuple[Any, Any, Any]:
    from hippynn_mf.data.database import load_database
    from hippynn_mf.hyperparameters import get_hyperparameters
    from hippynn_mf.labels import parse_labels
    from hippynn_mf.model.model import build_model

    hyperparameters = get_hyperparameters("paper", TRAINING | changes)
    torch.manual_seed(0)
    is_periodic = any("S" in trained for trained in labels.values())
    model = build_model(hyperparameters, parse_labels(labels), periodic=is_periodic)
    database = load_database(folder / data, labels, rows="all")
    return model, database, hyperparameters


def train(folder: Path, out: str, *, resume: bool = False, **changes: Any) -> dict[str, Any]:
    """Train; the losses of all steps, metrics and learning rates."""
    from hippynn_mf.training import distributed

    losses: list[float] = []
    rates: list[float] = []

    class Recorded(distributed.DataParallelModule):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            losses.append(loss.item())
            return loss

        def on_train_epoch_start(self):
            super().on_train_epoch_start()
            rates.extend(group["lr"] for group in self.trainer.optimizers[0].param_groups)
            if interrupted_after is not None and self.current_epoch == interrupted_after:
                raise InterruptedError

    interrupted_after = changes.pop("interrupted_after", None)
    original, distributed.DataParallelModule = distributed.DataParallelModule, Recorded
    calls: list[list[int]] = []
    try:
        tracker = distributed.train_distributed(
            *model_and_database(folder, **changes),
            folder / out,
            resume=resume,
            callbacks=lambda tracker: [lambda epoch, better: calls.append([epoch, int(better)])],
        )
    except InterruptedError:
        return {"losses": losses}
    finally:
        distributed.DataParallelModule = original
    metrics = [epoch["valid"] for epoch in tracker.epoch_metric_values]
    return {"losses": losses, "metrics": metrics, "rates": rates, "calls": calls}


def trained(folder: Path) -> dict[str, Any]:
    return train(folder, "whole")


def interrupted(folder: Path) -> dict[str, Any]:
    """A training that fails in its third epoch, twice: to be continued by one and by two ranks."""
    train(folder, "continued-1", interrupted_after=2)
    return train(folder, "continued-2", interrupted_after=2)


def continued(folder: Path) -> dict[str, Any]:
    return train(folder, f"continued-{os.environ['WORLD_SIZE']}", resume=True)


def ended(folder: Path) -> dict[str, Any]:
    return train(folder, "whole", resume=True)


def spoiled(folder: Path) -> dict[str, Any]:
    """A training that is spoiled after three epochs, to be stopped by its patience."""
    from hippynn_mf.training import loop as training

    def disturbing(optimizer, hyperparameters):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 if n < 3 else 1000)

    original, training.build_scheduler = training.build_scheduler, disturbing
    try:
        return train(folder, "spoiled", max_epochs=20, termination_patience=2, stopping_metric="DZ")
    finally:
        training.build_scheduler = original


def frozen(folder: Path) -> dict[str, Any]:
    """A training that hardly moves."""
    return train(folder, "frozen", learning_rate=1e-7, patience=1, max_epochs=5)


PERIODIC = {
    "data": "crystals.xyz",
    "labels": {"DZ": "EFS", "CC": "E"},
    "species": [0, 6],
    "stress_weight": 10.0,
    "dist_soft_min": 0.8,
    "dist_soft_max": 2.5,
    "dist_hard_max": 3.0,
}


def crystals(folder: Path) -> dict[str, Any]:
    """A training on energies, forces and stress of crystals of several sizes."""
    return train(folder, f"crystals-{os.environ['WORLD_SIZE']}", **PERIODIC)


# As the preset robust, with an average of the weights beside it.
AVERAGED = {"kept_epoch": "last", "ema_decay": 0.8, "scheduler": "cosine", "force_weight": 4.0}


def averaged(folder: Path) -> dict[str, Any]:
    """Trainings that keep the averaged weights of their last epoch, and of their best one."""
    n = os.environ["WORLD_SIZE"]
    train(folder, f"averaged-best-{n}", **(AVERAGED | {"kept_epoch": "best_energy"}))
    return train(folder, f"averaged-{n}", **AVERAGED)


def averaged_in_two(folder: Path) -> dict[str, Any]:
    """The same, which fails in its third epoch and is continued."""
    train(folder, "averaged-in-two", **AVERAGED, interrupted_after=2)
    return train(folder, "averaged-in-two", resume=True, **AVERAGED)


def refused(folder: Path) -> dict[str, Any]:
    """Messages of trainings that differ between the ranks or from their checkpoint, or diverge."""
    from hippynn_mf.errors import UserError

    rank = int(os.environ["RANK"])
    cases = {
        "rate": {"out": "rate", "learning_rate": 1e-3 * (1 + rank)},
        "width": {"out": "width", "n_features": 4 + rank},
        "resumed": {"out": "whole", "resume": True, "force_weight": 2.0},
        "diverged": {"out": "diverged", "learning_rate": 1e20},
    }
    messages = {}
    for name, arguments in cases.items():
        try:
            train(folder, **arguments)
        except UserError as error:
            messages[name] = str(error)
    return messages


def main() -> None:
    folder, *tasks = sys.argv[1:]
    rank = int(os.environ["RANK"])
    # Other objects at other addresses: hippynn's sets of nodes get another order.
    sys.modules["ballast"] = [object() for _ in range(1000 * rank)]  # type: ignore[assignment]
    run_tasks(Path(folder), tasks, rank)


def run_tasks(folder: Path, tasks: Sequence[str], rank: int) -> None:
    for name in tasks:
        task = globals()[name]
        result = task() if name == "gradients" else task(folder)
        torch.save(result, folder / f"{name}-{rank}.pt")


if __name__ == "__main__":
    main()
