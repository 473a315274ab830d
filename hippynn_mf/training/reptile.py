"""Meta-learning over levels: Reptile (Nichol, Achiam and Schulman, arXiv:1803.02999).

Every level is a task. All tasks share the trunk and one head; each has its own atomic energies,
which are fitted and fixed. From the shared weights φ, `meta_steps` steps of Adam (without momentum)
on one level's labels lead to φ', and then φ ← φ + `meta_rate` (φ' − φ), with the levels in turn.
Ours are the numbers of steps, that Adam begins anew with every task, and a constant rate: with 1,
the default, the levels simply take turns. With `meta_adam=persistent`, Adam is the ordinary one,
with momentum, and keeps what it knows from task to task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hippynn_mf.data.batches import Batches
from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.keys import split_label
from hippynn_mf.labels import Labels
from hippynn_mf.model.heads import Heads
from hippynn_mf.ragged import Ragged

Task = tuple[str, list[int]]


class Reptile(torch.optim.Adam):
    """Adam for `meta_steps` steps on a task, then a step of size `meta_rate` toward its result.

    A task begins without what Adam knows of the one before, unless it is `persistent`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        meta_steps: int,
        meta_rate: float,
        persistent: bool = False,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=(0.9 if persistent else 0.0, 0.999), fused=True)
        self.meta_steps, self.meta_rate = meta_steps, meta_rate
        self.persistent = persistent
        self.n_steps = 0  # of the current task
        self.slow: list[Tensor] = []

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on the current task; the last one of a task moves the shared weights."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        if self.n_steps == 0:
            self.slow = [p.detach().clone() for p in parameters]
        super().step(closure)
        self.n_steps += 1
        if self.n_steps == self.meta_steps:
            with torch.no_grad():
                for parameter, slow in zip(parameters, self.slow, strict=True):
                    parameter.copy_(slow.lerp(parameter, self.meta_rate))
            if not self.persistent:
                self.state.clear()
            self.n_steps = 0


def share_head(heads: Heads) -> None:
    """Let all heads have the first one's layers but for their atomic energies."""
    if any(head.base is not None for head in heads.values()):
        raise UserError("Coupled heads cannot be shared; meta-learning needs independent ones.")
    first, *others = (head.energy.torch_module for head in heads.values())
    for module in others:
        for place in range(1, len(module.layers)):
            module.layers[place] = first.layers[place]


class TaskDatabase(TrainingDatabase):
    """A database whose training batches come as tasks: `meta_steps` with the labels of one level.

    The levels take turns. An epoch has as many tasks of each level as the one with most structures
    needs to see all of them; others draw theirs anew.
    """

    def __init__(
        self,
        splits: Mapping[str, Mapping[str, np.ndarray | Ragged]],
        *,
        labels: Labels,
        meta_steps: int,
        seed: int = 0,
    ) -> None:
        super().__init__(splits, seed=seed)
        self.meta_steps = meta_steps
        self.level_ids = [level.id for level in labels]
        train = self.splits["train"]
        self.rows = {
            level.id: torch.isfinite(torch.as_tensor(train[level.energy_name][:]))
            .flatten()
            .nonzero()
            .flatten()
            for level in labels
        }

    def training_batches(
        self, split_name: str, batch_size: int | None, share: tuple[int, int]
    ) -> tuple[Batches, Iterable[Any]]:
        """The batches of a training epoch, and the tasks in turn to ask them for."""
        if share != (0, 1):
            raise UserError("Meta-learning works in one process; train it without torchrun.")
        arrays, pairs = self.splits[split_name], self.pairs.get(split_name)
        batches = _TaskBatches(arrays, self.var_list, pairs, trimmed=True, share=share)
        return batches, self._tasks(batch_size or len(batches))

    def _tasks(self, batch_size: int) -> list[Task]:
        """Level and rows of every batch of an epoch."""
        n_of_task = self.meta_steps * batch_size
        n_tasks = math.ceil(max(len(rows) for rows in self.rows.values()) / n_of_task)
        by_level = {k: self._draw(rows, n_tasks * n_of_task) for k, rows in self.rows.items()}
        batches: list[Task] = []
        for task in range(n_tasks):
            for level_id, drawn in by_level.items():
                task_rows = drawn[task * n_of_task : (task + 1) * n_of_task]
                batches += [
                    (level_id, list(dict.fromkeys(rows.tolist())))  # no structure twice
                    for rows in torch.split(task_rows, batch_size)
                ]
        return batches

    def _draw(self, rows: Tensor, n: int) -> Tensor:
        """`n` of the rows in random order, all of them before any comes again."""
        rounds = range(math.ceil(n / len(rows)))
        shuffled = [torch.randperm(len(rows), generator=self.random_state) for _ in rounds]
        return rows[torch.cat(shuffled)[:n]]


class _TaskBatches(Batches):
    """Batches in which only the labels of one level are there."""

    def __getitem__(self, task: Any) -> list[Tensor]:
        level_id, rows = task
        tensors = super().__getitem__(rows)
        return [
            torch.full_like(tensor, torch.nan) if self._is_of_another(name, level_id) else tensor
            for name, tensor in zip(self.names, tensors, strict=True)
        ]

    @staticmethod
    def _is_of_another(name: str, level_id: str) -> bool:
        label = split_label(name)
        return label is not None and label[0] != level_id


def reptile_of(parameters: Sequence[Tensor], hyperparameters: Hyperparameters) -> Reptile:
    """The optimizer with the steps and rates of the hyperparameters."""
    return Reptile(
        parameters,
        lr=hyperparameters.learning_rate,
        meta_steps=hyperparameters.meta_steps,
        meta_rate=hyperparameters.meta_rate,
        persistent=hyperparameters.meta_adam == "persistent",
    )
