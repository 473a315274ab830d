"""What `metrics.json` may hold: every field, its unit, and what has to be there together.

An error is a number, or null with the reason beside it. Unknown fields, numbers that are not
finite or negative, and an error without what it was computed from are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from hippynn_mf.schema import Strict, validate_json

Error = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


class ForceErrors(Strict):
    """Errors of forces over all components (kcal/mol/Å), and the size of the labels themselves."""

    force_rmse_kcal_per_mol_per_angstrom: Error | None
    force_mae_kcal_per_mol_per_angstrom: Error | None
    force_label_rms_kcal_per_mol_per_angstrom: Error | None = None
    n_force_components: Count = 0
    force_reason: str | None = None

    @model_validator(mode="after")
    def _forces_are_whole(self) -> Self:
        _require_whole(
            "force",
            self.force_rmse_kcal_per_mol_per_angstrom,
            self.force_mae_kcal_per_mol_per_angstrom,
            self.n_force_components,
            self.force_reason,
        )
        return self


class HeldoutErrors(ForceErrors):
    """Errors on the held-out structures, or on those of the test file, against one level."""

    energy_rmse_kcal_per_mol: Error | None
    energy_mae_kcal_per_mol: Error | None
    n_energies: Count = 0
    energy_reason: str | None = None

    @model_validator(mode="after")
    def _energies_are_whole(self) -> Self:
        _require_whole(
            "energy",
            self.energy_rmse_kcal_per_mol,
            self.energy_mae_kcal_per_mol,
            self.n_energies,
            self.energy_reason,
        )
        return self


class Comp6Errors(ForceErrors):
    """Errors on COMP6 against one level: which head predicts, and which conformers count."""

    predicted_by: str
    cut_by: str | None
    n_conformers: Count
    delta_e_rmse_kcal_per_mol: Error | None
    delta_e_mae_kcal_per_mol: Error | None
    delta_e_label_rms_kcal_per_mol: Error | None = None
    n_pairs: Count = 0
    delta_e_reason: str | None = None

    @model_validator(mode="after")
    def _differences_are_whole(self) -> Self:
        _require_whole(
            "delta_e",
            self.delta_e_rmse_kcal_per_mol,
            self.delta_e_mae_kcal_per_mol,
            self.n_pairs,
            self.delta_e_reason,
        )
        return self


class Training(Strict):
    """How long a run trained, all phases together; `cpu_s` is the time of its processor cores."""

    wall_s: Annotated[float, Field(ge=0)]
    n_epochs: Count
    cpu_s: Annotated[float, Field(ge=0)] | None = None


class Inference(Strict):
    """Processor time of a level's energies and forces, where the device is a CPU."""

    level: str
    cpu_ms_per_structure: Annotated[float, Field(gt=0)]


class RunMetrics(Strict):
    """The content of `metrics.json`: errors by level id.

    `heldout.<level>` are errors of every head against its own level, `cross.<head>.<reference>`
    against every level of the file, `comp6.<reference>` those on COMP6 (null without COMP6), and
    `test_file.<head>.<reference>` those on another file that is never trained on (null or absent
    without one).
    """

    heldout: dict[str, HeldoutErrors]
    cross: dict[str, dict[str, HeldoutErrors]]
    comp6: dict[str, Comp6Errors] | None
    test_file: dict[str, dict[str, HeldoutErrors]] | None = None
    training: Training | None = None
    inference: Inference | None = None


def _require_whole(
    what: str, rmse: float | None, mae: float | None, n: int, reason: str | None
) -> None:
    """Both errors are numbers from n > 0 labels, or both are null for a reason."""
    if (rmse is None) != (mae is None):
        raise ValueError(f"{what}: RMSE and MAE are either both numbers or both null")
    if rmse is None and not reason:
        raise ValueError(f"{what}: null needs {what}_reason")
    if rmse is not None and reason:
        raise ValueError(f"{what}: a number has no {what}_reason")
    if rmse is not None and n == 0:
        raise ValueError(f"{what}: a number needs the count of what it was computed from")
    if rmse is not None and mae is not None and mae > rmse * (1 + 1e-6):
        raise ValueError(f"{what}: an MAE of {mae} above the RMSE of {rmse} is impossible")


def validate_metrics(content: Mapping[str, Any], source: object) -> RunMetrics:
    """The metrics, checked. Raises UserError that names `source`, every wrong field and its value.

    `source` is the file that the metrics are read from or written to.
    """
    return validate_json(RunMetrics, content, source, "delete it and train the run again")
