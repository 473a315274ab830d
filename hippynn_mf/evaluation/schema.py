"""What `metrics.json` may hold: every field, its unit, and what has to be there together.

An error is a number, or null with the reason beside it. Unknown fields, numbers that are not
finite or negative, and an error without what it was computed from are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from hippynn_mf.errors import UserError
from hippynn_mf.schema import Strict, validate_json

Error = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
UNCHANGED = 1e-5  # kcal/mol, and per Å: what rounding does to an error
HELDOUT = "heldout"  # the set of the structures of the data that are kept apart
CONVERT = "'python scripts/convert_runs.py DIR' converts all runs of a folder, in place."


class SetErrors(Strict):
    """Errors of one head against one level on a set: kcal/mol, forces in kcal/mol/Å.

    Those of the stress, in GPa and in eV/Å³, are there where the set has a stress. A set without an
    energy cut has errors of energies; one with a cut has those of energy differences of conformers
    (`delta_e`), and `cut_by`, the level by whose energies conformers are cut (null: by none).
    `label_rms` is the size of the labels: the error of predicting zero.
    """

    n_structures: Count  # that count, with or without a label
    cut_by: str | None = None
    energy_rmse_kcal_per_mol: Error | None = None
    energy_mae_kcal_per_mol: Error | None = None
    n_energies: Count = 0
    energy_reason: str | None = None
    delta_e_rmse_kcal_per_mol: Error | None = None
    delta_e_mae_kcal_per_mol: Error | None = None
    delta_e_label_rms_kcal_per_mol: Error | None = None
    n_pairs: Count = 0
    delta_e_reason: str | None = None
    force_rmse_kcal_per_mol_per_angstrom: Error | None
    force_mae_kcal_per_mol_per_angstrom: Error | None
    force_label_rms_kcal_per_mol_per_angstrom: Error | None = None
    n_force_components: Count = 0
    force_reason: str | None = None
    stress_rmse_gpa: Error | None = None
    stress_mae_gpa: Error | None = None
    stress_label_rms_gpa: Error | None = None
    stress_rmse_ev_per_angstrom3: Error | None = None
    stress_mae_ev_per_angstrom3: Error | None = None
    stress_label_rms_ev_per_angstrom3: Error | None = None
    n_stress_components: Count = 0

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        kinds = {"energy": set(OF_ENERGIES), "delta_e": set(OF_DIFFERENCES)}
        kind, other = ("delta_e", "energy") if self.has_cut else ("energy", "delta_e")
        if strange := kinds[other] & self.model_fields_set:
            raise ValueError(
                f"{', '.join(sorted(strange))}: a set has cut_by and delta_e, or energy"
            )
        wanted = {f"{kind}_rmse_kcal_per_mol", f"{kind}_mae_kcal_per_mol"}
        if missing := wanted - self.model_fields_set:
            raise ValueError(f"{', '.join(sorted(missing))}: required")
        return self

    @model_validator(mode="after")
    def _errors_are_whole(self) -> Self:
        if self.has_cut:
            _require_whole(
                "delta_e",
                self.delta_e_rmse_kcal_per_mol,
                self.delta_e_mae_kcal_per_mol,
                self.n_pairs,
                self.delta_e_reason,
            )
        else:
            _require_whole(
                "energy",
                self.energy_rmse_kcal_per_mol,
                self.energy_mae_kcal_per_mol,
                self.n_energies,
                self.energy_reason,
            )
        _require_whole(
            "force",
            self.force_rmse_kcal_per_mol_per_angstrom,
            self.force_mae_kcal_per_mol_per_angstrom,
            self.n_force_components,
            self.force_reason,
        )
        if "n_stress_components" in self.model_fields_set:
            _require_whole(
                "stress",
                self.stress_rmse_gpa,
                self.stress_mae_gpa,
                self.n_stress_components,
                None,
            )
        return self

    @property
    def has_cut(self) -> bool:
        """Whether conformers are cut by energy, and energies are differences."""
        return "cut_by" in self.model_fields_set


OF_ENERGIES = (
    "energy_rmse_kcal_per_mol",
    "energy_mae_kcal_per_mol",
    "n_energies",
    "energy_reason",
)
OF_DIFFERENCES = (
    "delta_e_rmse_kcal_per_mol",
    "delta_e_mae_kcal_per_mol",
    "delta_e_label_rms_kcal_per_mol",
    "n_pairs",
    "delta_e_reason",
)


class TrainingCost(Strict):
    """How long a run trained, all phases together; `cpu_s` is the time of its processor cores.

    `kept_epoch`, from 1, is the one of the last phase that the rule `kept_by` chose; both are None
    of runs from before there were other rules than `best_energy`.
    """

    wall_s: Annotated[float, Field(ge=0)]
    n_epochs: Count
    cpu_s: Annotated[float, Field(ge=0)] | None = None
    kept_by: str | None = None
    kept_epoch: Annotated[int, Field(gt=0)] | None = None


class InferenceCost(Strict):
    """Processor time of a level's energies and forces, where the device is a CPU."""

    level: str
    cpu_ms_per_structure: Annotated[float, Field(gt=0)]


SetsErrors = dict[str, dict[str, dict[str, SetErrors]]]


class ErrorChange(Strict):
    """The RMSE of a level before and now, and the 95 % interval of the difference, now − before.

    In kcal/mol, of forces in kcal/mol/Å; see `worsening.py`. Of fewer than three structures there
    is no interval.
    """

    before: Error
    now: Error
    low: float | None
    high: float | None
    n_structures: Annotated[int, Field(gt=0)]

    @property
    def verdict(
        self,
    ) -> Literal["unchanged", "worse", "better", "no sure change", "too few structures"]:
        """Worse or better, if the interval of the difference is on one side of zero."""
        if max(abs(self.now - self.before), self.high or 0, -(self.low or 0)) < UNCHANGED:
            return "unchanged"
        if self.low is None or self.high is None:
            return "too few structures"
        if self.low > 0:
            return "worse"
        return "better" if self.high < 0 else "no sure change"


# Set → level id → quantity (energy, delta_e or force) → change.
Changes = dict[str, dict[str, dict[str, ErrorChange]]]


def plain_changes(changes: Changes) -> dict[str, Any]:
    """Changes as JSON."""
    return {
        name: {
            level_id: {quantity: each.model_dump() for quantity, each in of_level.items()}
            for level_id, of_level in of_set.items()
        }
        for name, of_set in changes.items()
    }


class RunMetrics(Strict):
    """The content of `metrics.json`: `sets.<set>.<head>.<reference>`, heads and levels by id.

    The sets are `heldout`, then the test sets of the run in their order; in each, every head is
    compared with every level of the set. `predictions_sha256` is that of the `predictions.npz`
    that the errors were computed with. `warnings` say of which errors little can be expected.
    `parent` is there of extensions: how the errors of the parent's levels have changed.
    """

    format: Literal[2]
    sets: SetsErrors
    training: TrainingCost | None = None
    inference: InferenceCost | None = None
    predictions_sha256: str | None = None
    warnings: list[str] = Field([])
    parent: Changes | None = None


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
    if isinstance(content, Mapping) and "sets" not in content and "heldout" in content:
        raise UserError(f"{source} has format 1. {CONVERT}")
    return validate_json(RunMetrics, content, source, "delete it and train the run again")
