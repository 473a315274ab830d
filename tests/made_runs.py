"""Run folders made by hand, without training; commands as a user types them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hippynn_mf.cli.main import main
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.schema import validate_metrics
from hippynn_mf.files import write_json
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import labels_by_id
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import KNOWN_LEVELS, Level
from hippynn_mf.paper.choice import EMBEDDED_EDITIONS
from hippynn_mf.paper.table1 import get_experiment
from hippynn_mf.report.completeness import Written
from hippynn_mf.runs import build
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.sources import DataSource, TestSource

# A network that trains in seconds, and whose shortest distance no planted structure is below.
TINY = {
    "tensor_order": 0,
    "n_interaction_layers": 1,
    "n_atom_layers": 1,
    "n_features": 4,
    "n_sensitivities": 8,
    "dist_soft_min": 0.5,
    "max_epochs": 1,
}
# Tiny runs are faster without compiling kernels for each worker process.
NO_COMPILER = {"HIPPYNN_USE_CUSTOM_KERNELS": "false", "TORCHDYNAMO_DISABLE": "1"}
TINY_OPTIONS = [text for name, value in TINY.items() for text in ("--set", f"{name}={value}")]


def build_settings(
    experiments: Sequence[Experiment], seeds: Sequence[int], **values: Any
) -> list[RunSettings]:
    """Settings of runs of these experiments; `overrides` and files of tests by short names.

    With the preset `quick` where no other is asked for.
    """
    tests = {}
    if (comp6 := values.pop("comp6", None)) is not None:
        keys = values.pop("comp6_keys", None)
        tests["comp6"] = {"path": comp6} | ({} if keys is None else {"keys": keys})
    if (test_file := values.pop("test_file", None)) is not None:
        tests["mine"] = {"path": test_file}
    request = Request(
        experiments=[experiment.name for experiment in experiments],
        seeds=seeds,
        hyperparameters=values.pop("overrides", {}),
        tests=tests,
        **{"preset": "quick", **values},
    )
    return build.build_settings(request, experiments)


COMP6 = TestSource(
    name="comp6",
    path=Path("/data/comp6.h5"),
    sha256="fedcba9876543210" * 4,
    keys={"wb97x_dz": {"energy": "energies", "gradient": "forces"}},
    energy_cut_kcal_per_mol=100.0,
)
CC_FORCES = TestSource(name="cc-forces", path=Path("/data/cc-forces.h5"), sha256="7" * 64)


def spelt_experiment(name: str, levels: tuple[Level, ...] = ()) -> Experiment:
    """The experiment that a name spells with the known levels and these."""
    return get_experiment(name, levels=KNOWN_LEVELS.including(levels))


def make_settings(
    name: str, /, seed: int = 0, *, more_levels: tuple[Level, ...] = (), **changes: Any
) -> RunSettings:
    """Settings of a run on files that need not exist; `more_levels` are known beside the others."""
    experiment = spelt_experiment(name, more_levels)
    values: dict[str, Any] = {
        "name": experiment.name,
        "strategy": experiment.strategy.prefix,
        "slug": experiment.slug,
        "labels": labels_by_id(experiment.resolved_labels),
        "levels": tuple(LevelRecord.of(level) for level in (*KNOWN_LEVELS, *more_levels)),
        "common_levels": tuple(level.id for level in experiment.common_levels),
        "seed": seed,
        "split_seed": 0,
        "rows": "common",
        "preset": "quick",
        "hyperparameters": get_hyperparameters("quick"),
        "data": DataSource(path=Path("/data/made.h5"), sha256=EMBEDDED_EDITIONS[-1]),
        "tests": (COMP6,),
        "device": "cpu",
    }
    return RunSettings(**(values | changes))


def heldout_errors(
    energy: float | None = None, force: float | None = None, label_rms: float = 30.0
) -> dict[str, Any]:
    """Errors against a level on a set without a cut; MAEs are half the RMSEs."""
    errors: dict[str, Any] = {
        "n_structures": 7,
        "energy_rmse_kcal_per_mol": energy,
        "energy_mae_kcal_per_mol": energy and energy / 2,
        "force_rmse_kcal_per_mol_per_angstrom": force,
        "force_mae_kcal_per_mol_per_angstrom": force and force / 2,
    }
    if energy is None:
        errors["energy_reason"] = "no planted energies"
    else:
        errors["n_energies"] = 7
    return errors | _force_facts(force, label_rms)


def comp6_errors(
    force: float | None = None, delta_e: float | None = None, label_rms: float = 30.0
) -> dict[str, Any]:
    """Errors against a level on a set with a cut; MAEs are half the RMSEs."""
    errors: dict[str, Any] = {
        "n_structures": 4,
        "cut_by": None,
        "delta_e_rmse_kcal_per_mol": delta_e,
        "delta_e_mae_kcal_per_mol": delta_e and delta_e / 2,
        "force_rmse_kcal_per_mol_per_angstrom": force,
        "force_mae_kcal_per_mol_per_angstrom": force and force / 2,
    }
    if delta_e is None:
        errors["delta_e_reason"] = "no planted conformers"
    else:
        errors |= {"n_pairs": 6, "delta_e_label_rms_kcal_per_mol": 8.0}
    return errors | _force_facts(force, label_rms)


def _force_facts(force: float | None, label_rms: float) -> dict[str, Any]:
    if force is None:
        return {"force_reason": "no planted forces"}
    name = "force_label_rms_kcal_per_mol_per_angstrom"
    return {name: label_rms, "n_force_components": 9}


def run_metrics(
    heldout: dict[str, Any] | None = None,
    comp6: dict[str, Any] | None = None,
    cross: dict[str, Any] | None = None,
    **more: dict[str, Any],
) -> dict[str, Any]:
    """Metrics of a run, by default of nothing.

    `heldout` and `comp6` are by level, of its own head; `cross` and `more` sets are by head and
    reference.
    """
    of_heads = {level: {level: entry} for level, entry in (heldout or {}).items()}
    for head, errors in (cross or {}).items():
        of_heads[head] = errors | of_heads.get(head, {})
    sets = {"heldout": of_heads}
    if comp6 is not None:
        sets["comp6"] = {level: {level: entry} for level, entry in comp6.items()}
    return {"format": 2, "sets": sets | more, "training": None, "inference": None}


def make_run(
    out: Path,
    name: str,
    /,
    seed: int,
    metrics: dict[str, Any] | None,
    facts: dict[str, Any] | None = None,
    **changes: Any,
) -> RunFolder:
    """Write a run folder; unfinished if `metrics` is None."""
    settings = make_settings(name, seed, **changes)
    folder = RunFolder.of(out, settings)
    write_run(folder, settings, metrics, facts)
    return folder


def write_run(
    folder: RunFolder,
    settings: RunSettings,
    metrics: dict[str, Any] | None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write settings and metrics into a folder."""
    folder.prepare(settings, facts=facts or {})
    if metrics is not None:
        write_metrics(folder, metrics)


def write_metrics(folder: RunFolder, metrics: dict[str, Any]) -> None:
    """Finish a run with planted metrics, which have no predictions."""
    validate_metrics(metrics, folder.file("metrics.json"))
    write_json(folder.file("metrics.json"), metrics)


def require(written: Written) -> list[Path]:
    """What was written; a UserError with the refusal if there is one."""
    if written.refusal:
        raise UserError(written.refusal)
    return written.paths


def exit_code(*arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
