"""Run folders made by hand, without training; commands as a user types them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hippynn_mf.cli.main import main
from hippynn_mf.files import write_json
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import PAPER_LEVELS, Level, Levels
from hippynn_mf.report.format2 import DataSource, RunSettings, TestSource
from hippynn_mf.report.runs import FORMAT
from hippynn_mf.runs.experiment import PART, Experiment
from hippynn_mf.runs.folder import RunFolder

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


COMP6 = TestSource(
    name="comp6",
    path=Path("/data/comp6.h5"),
    sha256="fedcba9876543210" * 4,
    keys={"wb97x_dz": {"energy": "energies", "gradient": "forces"}},
    energy_cut_kcal_per_mol=100.0,
)


def spelt_experiment(name: str, levels: tuple[Level, ...] = ()) -> Experiment:
    """The experiment that a name spells with the paper's levels and these."""
    prefix, *_ = name.partition("-")
    known = Levels((*PAPER_LEVELS, *levels))
    labels: Any = {known.get(level): labels for level, labels in re.findall(PART, name)}
    return Experiment(row=0, labels=labels, prefix=prefix)


def make_settings(
    name: str, seed: int = 0, *, levels: tuple[Level, ...] = (), **changes: Any
) -> RunSettings:
    """Settings of a run on files that need not exist; `levels` are known beside the paper's."""
    experiment = spelt_experiment(name, levels)
    values: dict[str, Any] = {
        "name": experiment.name,
        "strategy": experiment.strategy.prefix,
        "slug": experiment.slug,
        "labels": {level.id: str(p) for level, p in experiment.resolved_labels.items()},
        "levels": tuple(LevelRecord.of(level) for level in (*PAPER_LEVELS, *levels)),
        "common_levels": [level.id for level in experiment.common_levels],
        "seed": seed,
        "split_seed": 0,
        "rows": "common",
        "preset": "quick",
        "hyperparameters": get_hyperparameters("quick"),
        "data": DataSource(path=Path("/data/made.h5"), sha256="0123456789abcdef" * 4),
        "tests": (COMP6,),
        "device": "cpu",
    }
    return RunSettings(**(values | changes))


def heldout_errors(
    energy: float | None = None, force: float | None = None, label_rms: float = 30.0
) -> dict[str, Any]:
    """Errors on a set of structures against a level; MAEs are half the RMSEs."""
    errors: dict[str, Any] = {
        "n_structures": 7,
        "energy_rmse_kcal_per_mol": energy,
        "energy_mae_kcal_per_mol": energy and energy / 2,
    }
    if energy is None:
        errors["energy_reason"] = "no planted energies"
    else:
        errors["n_energies"] = 7
    return errors | _force_errors(force, label_rms)


def comp6_errors(
    force: float | None = None, delta_e: float | None = None, label_rms: float = 30.0
) -> dict[str, Any]:
    """Errors on a set of conformers against a level; MAEs are half the RMSEs."""
    errors: dict[str, Any] = {
        "n_structures": 4,
        "cut_by": None,
        "delta_e_rmse_kcal_per_mol": delta_e,
        "delta_e_mae_kcal_per_mol": delta_e and delta_e / 2,
    }
    if delta_e is None:
        errors["delta_e_reason"] = "no planted conformers"
    else:
        errors |= {"n_pairs": 6, "delta_e_label_rms_kcal_per_mol": 8.0}
    return errors | _force_errors(force, label_rms)


def _force_errors(force: float | None, label_rms: float) -> dict[str, Any]:
    errors: dict[str, Any] = {
        "force_rmse_kcal_per_mol_per_angstrom": force,
        "force_mae_kcal_per_mol_per_angstrom": force and force / 2,
    }
    if force is None:
        return errors | {"force_reason": "no planted forces"}
    name = "force_label_rms_kcal_per_mol_per_angstrom"
    return errors | {name: label_rms, "n_force_components": 9}


def run_metrics(
    heldout: dict[str, Any] | None = None,
    comp6: dict[str, Any] | None = None,
    others: dict[str, dict[str, Any]] | None = None,
    **sets: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Metrics of a run, by default of nothing.

    Held-out errors and those on COMP6 are given by level, of its own head; `others` are held-out
    ones by head and reference, and `sets` all of a set, by head and reference.
    """
    own = {"heldout": heldout, "comp6": comp6}
    for name, errors in own.items():
        heads = sets.setdefault(name, {})
        for level, entry in (errors or {}).items():
            heads.setdefault(level, {})[level] = entry
    for head, references in (others or {}).items():
        sets["heldout"].setdefault(head, {}).update(references)
    return {"format": 2, "sets": sets, "training": None, "inference": None}


def make_run(
    out: Path,
    name: str,
    seed: int,
    metrics: dict[str, Any] | None,
    facts: dict[str, Any] | None = None,
    **changes: Any,
) -> RunFolder:
    """Write a run folder; unfinished if `metrics` is None."""
    settings = make_settings(name, seed, **changes)
    folder = RunFolder(out / "runs" / settings.slug / f"seed-{settings.seed}")
    write_run(folder, settings, metrics, facts)
    return folder


def write_run(
    folder: RunFolder,
    settings: RunSettings,
    metrics: dict[str, Any] | None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write settings and metrics into a folder."""
    folder.path.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "settings": settings.model_dump(mode="json"), **(facts or {})}
    write_json(folder.file("experiment.json"), content)
    if metrics is not None:
        write_json(folder.file("metrics.json"), metrics)


def exit_code(*arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
