"""hippynn's Lightning module, for one training on several devices.

Without its two faults there: root mean squares that are averaged over the processes (ranks), and
checkpoints that cannot be loaded.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from hippynn.experiment.lightning_trainer import HippynnLightningModule
from torch import distributed

from hippynn_mf.errors import UserError
from hippynn_mf.training.global_loss import GlobalLoss
from hippynn_mf.training.loop import EpochCallback, Training, load_controller

log = logging.getLogger(__name__)

STATE = "hippynn_mf"  # what a checkpoint holds beside Lightning's own
TRACKED = ("best_model", "best_metric_values", "epoch_metric_values", "epoch_best_metric_values")


class NamedGraph(torch.nn.Module):
    """A model whose parameters come first under names, and in an order, that no graph decides."""

    def __init__(self, parameters: torch.nn.ModuleDict, graph: torch.nn.Module) -> None:
        super().__init__()
        self.named = parameters
        self.graph = graph

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of the graph."""
        return self.graph(*inputs)


class DataParallelModule(HippynnLightningModule):
    """hippynn's Lightning module with metrics of all ranks, and checkpoints that can be loaded.

    A checkpoint holds numbers and names only, and is loaded with `weights_only=True`. Its
    `state_dict` is that of `Model.parameters`. It belongs to the end of an epoch.
    """

    def __init__(
        self,
        training: Training,
        *,
        facts: dict[str, Any],
        checkpoint: Path,
        callbacks: list[EpochCallback],
    ) -> None:
        controller, evaluator = training.controller, training.modules.evaluator
        super().__init__(
            model=NamedGraph(training.model.parameters, training.modules.model),
            loss=GlobalLoss(training.modules.loss),
            eval_loss=GlobalLoss(evaluator.loss),
            eval_names=evaluator.loss_names,
            stopping_key=controller.stopping_key,
            optimizer_list=[controller.optimizer],
            scheduler_list=controller.scheduler_list,
            controller=controller,
            metric_tracker=training.tracker,
            inputs=evaluator.db_info["inputs"],
            targets=evaluator.db_info["targets"],
            n_outputs=evaluator.n_outputs,
        )
        self.random_state = training.database.random_state
        self.average = training.average
        self.averaged = ExitStack()  # closed, the weights are those that are trained
        self.checkpoint = checkpoint
        self.epoch_callbacks = callbacks
        self.metrics: dict[str, float] = {}
        names = {parameter: name for name, parameter in self.model.named.named_parameters()}
        (group,) = self.optimizer_list[0].param_groups
        # What must be the same on all ranks, and in a training that is continued.
        self.facts = facts | {
            "parameters": [[names[p], *p.shape] for p in group["params"]],
            "errors": [self.loss.names, self.eval_loss.names],
        }

    def save_hyperparameters(self, *args: Any, **kwargs: Any) -> None:
        """Save none: those of hippynn are objects, which would be pickled."""

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The parameters under the names of `Model.parameters`."""
        return self.model.named.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load parameters under the names of `Model.parameters`."""
        return self.model.named.load_state_dict(*args, **kwargs)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizer. Its schedule stays with hippynn's controller, as on one device."""
        return self.optimizer_list

    def setup(self, stage: str) -> None:
        """Refuse ranks that are not about to train the same model on the same data."""
        self.metric_tracker.quiet = not self.trainer.is_global_zero
        _refuse_different_ranks(self.facts)

    def on_train_start(self) -> None:
        """Refuse ranks at different places; end a training at once that was continued too far."""
        place = {"epoch": self.current_epoch, "seed": self.random_state.get_state().tolist()}
        _refuse_different_ranks(place)
        if self.average is not None:
            self.average.to_device_of_parameters()
        self.trainer.should_stop = self.controller.current_epoch >= self.controller.max_epochs

    def on_train_epoch_start(self) -> None:
        """Note the time, and log the rate."""
        self.started = time.perf_counter()
        (rate,) = {group["lr"] for group in self.optimizer_list[0].param_groups}
        log.info("Epoch %d, learning rate %g", self.current_epoch, rate)

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the average of the weights, which are the same on all ranks."""
        if self.average is not None:
            self.average.update()

    def on_validation_start(self) -> None:
        """Measure the averaged weights, if there are any."""
        if self.average is not None:
            self.averaged.enter_context(self.average.in_place())

    def on_validation_end(self) -> None:
        """Note the metrics and what is best, and go on with the weights that are trained."""
        super().on_validation_end()
        self.averaged.close()

    def last_state(self) -> dict[str, torch.Tensor]:
        """The parameters of now, averaged where an average is asked for."""
        with ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.in_place())
            return copy.deepcopy(self.state_dict())

    def _eval_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        with torch.enable_grad():  # for the forces
            predictions = self.model(*batch[: self.n_inputs])
        predictions = [prediction.detach() for prediction in predictions]
        self.eval_step_outputs.append(self.eval_loss.sums(*predictions, *batch[-self.n_targets :]))

    def _eval_epoch_end(self, prefix: str) -> None:
        sums = torch.stack(self.eval_step_outputs).sum(dim=0)
        self.eval_step_outputs.clear()
        values = [value.item() for value in self.eval_loss.from_sums(sums)]
        # The last bit may differ between ranks, and must not make them part company.
        values = self.trainer.strategy.broadcast(values)
        self.metrics = dict(zip(self.eval_names, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise UserError(
                f"Training diverged in epoch {self.current_epoch + 1}: a validation metric is not "
                "finite. Lower learning_rate, or look for absurd labels."
            )

    def _eval_end(self, prefix: str, when: str | int | None = None) -> None:
        epoch, tracker = self.current_epoch, self.metric_tracker
        evaluation = {"valid": self.metrics}
        better_metrics, better, stopping = tracker.register_metrics(evaluation, when=epoch)
        tracker.evaluation_print_better(evaluation, better_metrics, _print=self.print)
        if better:
            tracker.best_model = copy.deepcopy(self.state_dict())
        if not self.controller.push_epoch(epoch, better, stopping, _print=self.print):
            self.trainer.should_stop = True
        tracker.epoch_times.append(time.perf_counter() - self.started)
        if self.trainer.is_global_zero:
            for callback in self.epoch_callbacks:
                callback(epoch, better)

    def on_train_epoch_end(self) -> None:
        """Replace the checkpoint."""
        partial = self.checkpoint.with_name(f".{self.checkpoint.name}.partial")
        self.trainer.save_checkpoint(partial)
        if self.trainer.is_global_zero:
            os.replace(partial, self.checkpoint)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of schedule, metrics and batch order, and what they belong to."""
        checkpoint[STATE] = {
            "facts": self.facts,
            "controller": self.controller.state_dict(),
            "tracker": {name: getattr(self.metric_tracker, name) for name in TRACKED},
            "random_state": self.random_state.get_state(),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up that state; a UserError if the checkpoint is of another training."""
        if STATE not in checkpoint:
            raise UserError(f"This checkpoint is not one of hippynn_mf: it has no {STATE!r}.")
        state = checkpoint[STATE]
        _refuse_differences(state["facts"], self.facts, "from that of the checkpoint")
        load_controller(self.controller, state["controller"])
        for name in TRACKED:
            setattr(self.metric_tracker, name, state["tracker"][name])
        self.random_state.set_state(state["random_state"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """Raise UserError: a checkpoint holds no graph."""
        raise UserError(
            "A checkpoint holds parameters and state, no graph. Continue with "
            "train_distributed(…, resume=True), or load its parameters: model.parameters."
            'load_state_dict(torch.load(path, weights_only=True)["state_dict"]).'
        )


def _refuse_different_ranks(facts: dict[str, Any]) -> None:
    """Raise UserError on every rank if one of them has other facts. A collective."""
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, facts)
    for other in gathered[1:]:
        _refuse_differences(gathered[0], other, "between the processes")


def _refuse_differences(first: dict[str, Any], second: dict[str, Any], where: str) -> None:
    """Raise UserError naming what differs."""
    different = [name for name in first if first[name] != second[name]]
    if different:
        shown = " and ".join(f"{facts[different[0]]!r:.200}" for facts in (first, second))
        raise UserError(
            f"The training differs {where} in: {', '.join(different)} ({shown}). Build the same "
            "model and database, with the same hyperparameters and seed, wherever it is trained."
        )
