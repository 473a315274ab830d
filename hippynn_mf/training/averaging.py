"""An exponential moving average of a model's weights, beside the weights that are trained.

After a step with n steps before it, the average w̄ moves towards the weights w,
w̄ ← d w̄ + (1 − d) w with d = min(decay, n/(n + 1)): the plain mean of all weights after a step, as
long as they are fewer than 1/(1 − decay), 100 with 0.99. Weights before the first step never count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a module's trainable parameters; call `update` after every step."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_steps = 0
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, *_: Any) -> None:
        """Move the average towards the weights of now; a batch callback of hippynn's loop."""
        decay = min(self.decay, self.n_steps / (self.n_steps + 1))
        self.n_steps += 1
        torch._foreach_lerp_(
            list(self.values.values()), list(self.parameters.values()), 1.0 - decay
        )

    def to_device_of_parameters(self) -> None:
        """Follow the module to its device."""
        self.values = {n: v.to(self.parameters[n].device) for n, v in self.values.items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The module has the averaged weights for a while."""
        trained = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(trained)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: numbers and tensors alone."""
        return {"n_steps": self.n_steps, "values": dict(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state; a KeyError for other parameters."""
        self.n_steps = int(state["n_steps"])
        for name, value in self.values.items():
            value.copy_(state["values"][name])

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])


class EvaluatesAverage:
    """hippynn's evaluator, which measures the averaged weights."""

    def __init__(self, evaluator: Any, average: WeightAverage) -> None:
        self._evaluator = evaluator
        self._average = average

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evaluator, name)

    def evaluate(self, *arguments: Any, **keywords: Any) -> Any:
        """What the evaluator says of the averaged weights."""
        with self._average.in_place():
            return self._evaluator.evaluate(*arguments, **keywords)
