"""Training a model with hippynn's own loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from hippynn.experiment import assemble_for_training
from hippynn.experiment.assembly import TrainingModules
from hippynn.experiment.controllers import PatienceController, RaiseBatchSizeOnPlateau
from hippynn.experiment.metric_tracker import MetricTracker
from hippynn.experiment.routines import SetupParams, setup_training, training_loop

from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.levels import Level
from hippynn_mf.model.heads import Heads
from hippynn_mf.model.losses import LossWeights, build_loss, build_metrics
from hippynn_mf.model.model import Model
from hippynn_mf.model.traced_model import trace
from hippynn_mf.model.whole_loss import WholeLoss
from hippynn_mf.model.whole_model import WholeModel, compute_at_once
from hippynn_mf.network.stored_pairs import precompute_pairs
from hippynn_mf.training.averaging import EvaluatesAverage, WeightAverage
from hippynn_mf.training.flat_adam import FlatAdam
from hippynn_mf.training.initial_heads import DECAY_FACTOR, initialize_heads, require_labels
from hippynn_mf.training.reptile import reptile_of, share_head
from hippynn_mf.training.strategies import Phase

EpochCallback = Callable[[int, bool], None]
BatchCallback = Callable[[Any, Any, Any], None]


@dataclass(frozen=True)
class Training:
    """Everything that changes while a model is trained, and its database.

    With an `average` of the weights, `modules.evaluator` measures that.
    """

    model: Model
    modules: TrainingModules
    database: TrainingDatabase
    controller: PatienceController
    tracker: MetricTracker
    average: WeightAverage | None = None


def prepare_training(
    model: Model,
    database: TrainingDatabase,
    hyperparameters: Hyperparameters,
    *,
    device: torch.device | str = "cpu",
    phase: Phase | None = None,
    weights: Mapping[str, LossWeights] | None = None,
    in_one_process: bool = True,
) -> Training:
    """Fit the atomic energies, and assemble loss, metrics, optimizer and schedule of a training.

    `hyperparameters` are those of the phase. A phase that starts from another's weights finds them
    in the model already. `weights` of the loss, by level id, take the place of those of the
    hyperparameters. In one process, the loss is computed in one pass, and on the CPU the optimizer
    works on one vector; several processes exchange gradients and parts of the loss, one by one. A
    phase that extends a model has its heads ready, and trains those of its labels.
    """
    extends = phase is not None and phase.extends
    heads = model.heads
    if phase is not None and phase.extends:
        heads = Heads({level.id: model.heads[level] for level in phase.labels}, heads.network)
    of_levels = dict.fromkeys(heads, LossWeights.of(hyperparameters)) | dict(weights or {})
    loss = build_loss(heads, of_levels)
    modules, db_info = assemble_for_training(loss, build_metrics(heads, loss))
    database.inputs, database.targets = db_info["inputs"], db_info["targets"]
    continues = phase is not None and phase.starts_from is not None
    if extends:
        require_labels(heads, database)
    else:
        initialize_heads(heads, database, decay_factor=1.0 if continues else DECAY_FACTOR)
    if phase is not None and phase.frozen_interactions:
        freeze_interactions(model)
    if phase is not None and phase.as_tasks:
        share_head(heads)
    if in_one_process and all(head.stress is None for head in heads.values()):
        modules = modules._replace(loss=WholeLoss(modules.loss, heads, of_levels))
    if hyperparameters.precompute_pairs:
        modules = precompute_pairs(modules, database)
    if hyperparameters.interaction == "traced":
        if not in_one_process:
            raise UserError("interaction=traced is for one process. Take interaction=auto or fast.")
        modules = trace(modules, model.heads, database, hyperparameters.batch_size)
    elif in_one_process:
        modules = compute_at_once(modules, model.heads)

    # In an order that does not depend on the process, as that of hippynn's graph does: the
    # optimizer's part of a checkpoint knows parameters by their place.
    parameters = [p for p in model.parameters.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if phase is not None and phase.as_tasks:
        optimizer = reptile_of(parameters, hyperparameters)
    elif in_one_process and torch.device(device).type == "cpu":
        optimizer = flat_adam(modules.model, parameters, hyperparameters.learning_rate)
    else:
        optimizer = torch.optim.Adam(parameters, lr=hyperparameters.learning_rate, fused=True)
    controller = build_controller(optimizer, hyperparameters, heads.levels)
    modules, controller, tracker = setup_training(
        modules, SetupParams(controller=controller, device=device)
    )
    if not hyperparameters.ema_decay:
        return Training(model, modules, database, controller, tracker)
    average = WeightAverage(model.parameters, hyperparameters.ema_decay)
    modules = modules._replace(evaluator=EvaluatesAverage(modules.evaluator, average))
    return Training(model, modules, database, controller, tracker, average)


def flat_adam(
    model: torch.nn.Module, parameters: Sequence[torch.nn.Parameter], rate: float
) -> FlatAdam:
    """Adam on one vector, in the order of a `WholeModel`, which then takes its parameters there."""
    if not isinstance(model, WholeModel):
        return FlatAdam(parameters, lr=rate)
    optimizer = FlatAdam(parameters, lr=rate, first=model.layout_of_parameters)
    model.take_parameters_from(optimizer.vector)
    return optimizer


def freeze_interactions(model: Model) -> None:
    """Keep the interaction layers as they are; atom layers and heads go on learning."""
    for block in model.heads.network.torch_module.blocks:
        block[0].requires_grad_(False)


def continue_training(
    training: Training,
    callbacks: Sequence[EpochCallback],
    *,
    batch_callbacks: Sequence[BatchCallback] = (),
) -> None:
    """Run hippynn's loop to the end.

    `callbacks` get (epoch, whether it is the best so far) after every epoch, `batch_callbacks`
    inputs, outputs and targets of a batch after its step.
    """
    if training.controller.current_epoch >= training.controller.max_epochs:
        return  # of a training that was complete; the loop would add an epoch
    after_batch = list(batch_callbacks)
    if training.average is not None:
        after_batch.append(training.average.update)
    model = training.modules.model
    with model.steps_at_once() if isinstance(model, WholeModel) else nullcontext():
        training_loop(
            training_modules=training.modules,
            database=training.database,
            controller=training.controller,
            metric_tracker=training.tracker,
            callbacks=list(callbacks),
            batch_callbacks=after_batch,
            store_all_better=False,
            store_best=False,
            store_every=0,
            quiet=False,
        )


def build_controller(
    optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters, levels: Iterable[Level]
) -> PatienceController:
    """Hippynn's controller of a training of these levels: batches, epochs, and when it ends."""
    return PatienceController(
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, hyperparameters),
        batch_size=hyperparameters.batch_size,
        eval_batch_size=hyperparameters.eval_batch_size,
        max_epochs=hyperparameters.max_epochs,
        stopping_key=hyperparameters.stopping_key(levels),
        fraction_train_eval=hyperparameters.fraction_train_eval,
        termination_patience=hyperparameters.termination_patience,
    )


def build_scheduler(optimizer: torch.optim.Optimizer, hyperparameters: Hyperparameters) -> Any:
    """The learning rate schedule of the hyperparameters."""
    if hyperparameters.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=hyperparameters.max_epochs
        )
    with warnings.catch_warnings():
        # The constructor warns about an option that it never reads.
        warnings.filterwarnings("ignore", message="Parameter verbose")
        return RaiseBatchSizeOnPlateau(
            optimizer,
            max_batch_size=hyperparameters.batch_size,
            factor=0.5,
            patience=hyperparameters.patience,
        )


def load_controller(controller: PatienceController, state: dict[str, Any]) -> None:
    """Restore hippynn's controller, its optimizer and its schedulers."""
    controller.load_state_dict(state)
    for scheduler, stored in zip(controller.scheduler_list, state["scheduler"], strict=True):
        if "best_metric" in stored:  # which hippynn 0.1.3 restores from "boredom"
            scheduler.best_metric = stored["best_metric"]
