"""Which epoch of a training a run keeps, as its recorded epochs tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hippynn_mf.hyperparameters import KeptEpoch


def kept_number(epochs: Sequence[Mapping[str, Any]], rule: KeptEpoch) -> int | None:
    """Which of the recorded epochs of a phase, from 1, a rule keeps; None of none."""
    if rule == "last":
        return len(epochs) or None
    best = [number for number, epoch in enumerate(epochs, start=1) if epoch.get("best")]
    return best[-1] if best else None
