"""Which interaction is used: `auto` is the compiled one where there is one, else the fast one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hippynn_mf.errors import UserError
from hippynn_mf.network.hipnn import NOT_A_CPU


@dataclass(frozen=True)
class InteractionUsed:
    """The interaction of a training: `fast`, `compiled`, `traced` or `stock`.

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

    Raises UserError where `compiled` or `traced` is asked for and cannot be had. `dtype` is torch's
    default one unless given.
    """
    if asked == "traced" and (reason := _why_no_compiler(device)) is not None:
        raise UserError(
            f"interaction=traced is not possible here: {reason}. Take interaction=auto or fast, "
            "the same function of the same parameters."
        )
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


def _why_no_compiler(device: torch.device) -> str | None:
    """Why torch's compiler cannot work for a device, by what it needs there; None if it can."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "torch compiles with Triton, which is missing"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:  # of which kind depends on the platform
        return "torch compiles with a C++ compiler, and finds none; install one (g++), or set CXX"
    return None
