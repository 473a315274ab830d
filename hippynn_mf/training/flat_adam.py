"""Adam on one vector of all parameters: a few operations for a step, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam


class FlatAdam(torch.optim.Adam):
    """Adam with torch's fused kernel on one vector, of which the parameters become views.

    The numbers, and the state in checkpoints, are those of `torch.optim.Adam(parameters)`. The
    parameters stay on their device: move them before. A parameter without a gradient counts as one
    whose gradient is zero, which is the same while it has never had another. Parameters that are
    named in `first` are the first of the vector, in this order; the state knows nothing of it.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, first: Sequence[Tensor] = ()
    ) -> None:
        self.views = list(parameters)
        places = {id(parameter): place for place, parameter in enumerate(self.views)}
        front = [places[id(p)] for p in first if id(p) in places]
        self.order = list(dict.fromkeys([*front, *range(len(self.views))]))
        flat = torch.nn.Parameter(self._join([p.detach() for p in self.views]))
        flat.grad = torch.zeros_like(flat)
        self.gradients = self._split(flat.grad)
        for parameter, values in zip(self.views, self._split(flat.detach()), strict=True):
            parameter.data = values
        self._flat, self._flat_gradient = flat, flat.grad
        super().__init__([flat], lr=lr, fused=True)
        self.zero_grad()

    @property
    def vector(self) -> torch.nn.Parameter:
        """All parameters, of which a model may be a function as well as of the views."""
        return self._flat

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        """Tensors of the shapes of the parameters as one vector."""
        return torch.cat([parts[place].flatten() for place in self.order])

    def _split(self, flat: Tensor) -> list[Tensor]:
        """Views of a vector in the shapes of the parameters."""
        parts = torch.split(flat, [self.views[place].numel() for place in self.order])
        by_place = dict(zip(self.order, parts, strict=True))
        return [by_place[place].view(p.shape) for place, p in enumerate(self.views)]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set all gradients to zero; they stay where they are, whatever `set_to_none` says."""
        self._flat_gradient.zero_()
        for parameter, gradient in zip(self.views, self.gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all parameters, by the gradients that they have."""
        for parameter, gradient in zip(self.views, self.gradients, strict=True):
            if parameter.grad is gradient:
                continue
            if parameter.grad is None:  # of whom somebody else has set it
                gradient.zero_()
            else:
                gradient.copy_(parameter.grad)
        (group,) = self.param_groups
        state = self.state[self._flat]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(self._flat)
            state["exp_avg_sq"] = torch.zeros_like(self._flat)
        # Not Adam's own `step`, which loads torch's compiler to tell it to stay away.
        adam(
            [self._flat],
            [self._flat_gradient],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The state as that of an Adam of the single parameters."""
        state = super().state_dict()
        (group,) = state["param_groups"]
        group["params"] = list(range(len(self.views)))
        if not state["state"]:
            return state
        (of_all,) = state["state"].values()
        first, second = (self._split(of_all[name]) for name in ("exp_avg", "exp_avg_sq"))
        # Views of one vector: torch writes them at once, and an Adam counts with each of its own.
        steps = of_all["step"].repeat(len(self.views)).unbind()
        state["state"] = {
            k: {"step": steps[k], "exp_avg": first[k], "exp_avg_sq": second[k]}
            for k in group["params"]
        }
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of an Adam of the single parameters; ValueError for others."""
        (group,) = state_dict["param_groups"]
        found = state_dict["state"]
        if len(group["params"]) != len(self.views):
            raise ValueError(f"{len(group['params'])} parameters instead of {len(self.views)}")
        whole = {}
        if found:
            parts = [found[k] for k in group["params"]]
            names = ("exp_avg", "exp_avg_sq")
            whole[0] = {n: self._join([part[n] for part in parts]) for n in names}
            whole[0]["step"] = parts[0]["step"]
        super().load_state_dict({"state": whole, "param_groups": [{**group, "params": [0]}]})
