"""One training on several devices: data parallel, through PyTorch Lightning and hippynn's module.

    torchrun --nproc_per_node=2 script.py, in which: train_distributed(model, database, …)

Every process (rank) trains on its share of the same batches; losses and metrics are those of all
shares together, so that the number of ranks changes nothing but rounding.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hippynn.experiment.controllers import PatienceController
from hippynn.experiment.metric_tracker import MetricTracker

from hippynn_mf.data.batches import of_atoms
from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.errors import UserError
from hippynn_mf.files import make_folder, replace_when_complete
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.keys import POSITIONS, SPECIES
from hippynn_mf.model.model import Model
from hippynn_mf.ragged import Ragged, blocks_of
from hippynn_mf.training.loop import EpochCallback, prepare_training

try:
    import pytorch_lightning as pl
    from hippynn.experiment.lightning_trainer import HippynnDataModule
    from pytorch_lightning.strategies import DDPStrategy

    from hippynn_mf.training.lightning_module import DataParallelModule
except ModuleNotFoundError as error:
    raise UserError(
        f"Training on several devices needs PyTorch Lightning ({error}). Install it with: "
        'pip install "hippynn_mf[distributed]".'
    ) from None

CHECKPOINT = "last.ckpt"
KEPT_MODEL = "model.pt"
IRRELEVANT_WARNINGS = (
    ".*does not have many workers",  # batches are slices of arrays in memory
    "Grad strides do not match bucket view strides",  # of axes of length one
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own use of torch
)


class _Shares(HippynnDataModule):
    """The shares that a rank has of the batches; `batch_size` counts the batches of all ranks."""

    def __init__(self, database: TrainingDatabase, controller: PatienceController) -> None:
        super().__init__(database, controller.batch_size)
        self.eval_batch_size = controller.eval_batch_size

    @property
    def share(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    def train_dataloader(self) -> Any:
        return self.database.make_generator("train", "train", self.batch_size, share=self.share)

    def val_dataloader(self) -> Any:
        return self.database.make_generator("valid", "eval", self.eval_batch_size, share=self.share)


def train_distributed(
    model: Model,
    database: TrainingDatabase,
    hyperparameters: Hyperparameters,
    folder: Path | str,
    *,
    resume: bool = False,
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    callbacks: Callable[[MetricTracker], list[EpochCallback]] = lambda tracker: [],
) -> MetricTracker:
    """Train one model on several devices; returns hippynn's metric tracker.

    Every process calls this with the same arguments. `batch_size` is that of all processes
    together: two with 32 do the same steps as one with 32. Afterwards the model has the
    parameters of the epoch that `kept_epoch` says, of the average where `ema_decay` asks for one;
    they are also in `folder/model.pt`. The metrics are those of the whole validation set.
    `folder/last.ckpt` is replaced after every epoch.

    Args:
        model: from `build_model`; the first process's weights are used.
        database: from `load_database`.
        hyperparameters: as for one device; `fraction_train_eval` is not used.
        folder: for model and checkpoint.
        resume: continue from the checkpoint in the folder, if there is one.
        accelerator: Lightning's; `auto` is `gpu` where torch sees one and `cpu` elsewhere.
        devices: number of processes on each machine; those of torchrun are found.
        num_nodes: number of machines, likewise.
        callbacks: as in `continue_training`; called in the first process only.

    Raises:
        UserError: for a folder with a checkpoint that is not to be continued, a checkpoint of
            another training, processes that differ in what they train, a training that diverges.
    """
    if not isinstance(database, TrainingDatabase):
        raise UserError(
            f"A {type(database).__name__} cannot be shared among devices; make the database with "
            "hippynn_mf.load_database."
        )
    folder = Path(folder)
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and not resume:
        raise UserError(
            f"{checkpoint} is there already. Continue it with resume=True, or take another folder."
        )
    make_folder(folder)
    training = prepare_training(model, database, hyperparameters, in_one_process=False)
    controller, tracker = training.controller, training.tracker
    data = {split: _digest(arrays) for split, arrays in database.splits.items()}
    module = DataParallelModule(
        training,
        facts=hyperparameters.model_dump(mode="json") | {"structures": data},
        checkpoint=checkpoint,
        callbacks=callbacks(tracker),
    )
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=DDPStrategy(),
        max_epochs=hyperparameters.max_epochs,
        use_distributed_sampler=False,  # the shares are ours
        inference_mode=False,  # validation differentiates energies
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,  # the module writes them
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    with warnings.catch_warnings():
        for message in IRRELEVANT_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(
            module,
            datamodule=_Shares(database, controller),
            ckpt_path=checkpoint if checkpoint.exists() else None,
            weights_only=True,
        )
    keeps_last = hyperparameters.kept_epoch == "last"
    model.parameters.load_state_dict(module.last_state() if keeps_last else tracker.best_model)
    if trainer.is_global_zero:
        with replace_when_complete(folder / KEPT_MODEL) as partial:
            torch.save(model.parameters.state_dict(), partial)
    return tracker


def _digest(arrays: Mapping[str, torch.Tensor | Ragged]) -> str:
    """Tells the structures of a split, in their order, from those of others."""
    digest = hashlib.sha256()
    for name in (SPECIES, POSITIONS):
        array = of_atoms(arrays, name)
        for rows in blocks_of(len(array)):
            digest.update(array[rows].tobytes())
    return digest.hexdigest()
