"""Which interaction is used: `auto` is the compiled one where there is one, else the fast one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hippynn_mf.errors import UserError
from hippynn_mf.network.hipnn import NOT_A_CPU


@dataclass(frozen=True)
class InteractionUsed:
    """The interaction of a training: `fast`, `compiled` or `stock`.

    `why_fast` says why `auto` is not compiled, None where that was not the question.
    """

    name: str
    why_fast: str | None = None

    def __str__(self) -> str:
        """As the log has it."""
        return self.name if self.why_fast is None else f"{self.name} (compiled: {self.why_fast})"


def choose_interaction(
    asked: str, device: torch.device, dtype: torch.dtype | None = None
) -> InteractionUsed:
    """What a hyperparameter `interaction` comes to on a device; it may compile, and says so.

    Raises UserError where `compiled` is asked for and cannot be had. `dtype` is torch's default one
    unless given.
    """
    if asked not in ("auto", "compiled"):
        return InteractionUsed(asked)
    reason = _why_not_compiled(device, dtype or torch.get_default_dtype())
    if reason is None:
        return InteractionUsed("compiled")
    if asked == "compiled":
        raise UserError(
            f"interaction=compiled is not possible here: {reason}. Take interaction=auto or fast, "
            "the same function of the same parameters."
        )
    return InteractionUsed("fast", reason)


def _why_not_compiled(device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type != "cpu":
        return NOT_A_CPU + device.type
    # Not loaded by processes that have no such network.
    from hippynn_mf.network.compiled.preparing import why_not_compiled

    return why_not_compiled(dtype)
