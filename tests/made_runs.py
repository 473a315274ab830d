"""Run folders made by hand, without training; commands as a user types them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hippynn_mf.cli.main import main
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.runs import build
from hippynn_mf.runs.experiment import Experiment, get_experiment
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.settings import Comp6Source, DataSource, RunSettings

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
    """Settings of runs of these experiments; `overrides` and files of tests by short names."""
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
        **values,
    )
    return build.build_settings(request, experiments)


def make_settings(name: str, seed: int = 0, **changes: Any) -> RunSettings:
    """Settings of a run of Table 1 on files that need not exist."""
    experiment = get_experiment(name)
    values: dict[str, Any] = {
        "name": experiment.name,
        "slug": experiment.slug,
        "labels": dict(experiment.labels),
        "common_levels": [level.id for level in experiment.common_levels],
        "seed": seed,
        "split_seed": 0,
        "rows": "common",
        "preset": "quick",
        "hyperparameters": get_hyperparameters("quick"),
        "data": DataSource(path=Path("/data/made.h5"), sha256="0123456789abcdef" * 4),
        "comp6": Comp6Source(
            path=Path("/data/comp6.h5"),
            sha256="fedcba9876543210" * 4,
            keys={"wb97x_dz": {"energy": "energies", "gradient": "forces"}},
            energy_cut_kcal_per_mol=100.0,
        ),
        "device": "cpu",
    }
    return RunSettings(**(values | changes))


def heldout_errors(
    energy: float | None = None, force: float | None = None, label_rms: float = 30.0
) -> dict[str, Any]:
    """Held-out errors against a level; MAEs are half the RMSEs."""
    errors: dict[str, Any] = {
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
    """COMP6 errors against a level; MAEs are half the RMSEs."""
    errors: dict[str, Any] = {
        "predicted_by": "wb97x_dz",
        "cut_by": None,
        "n_conformers": 4,
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
) -> dict[str, Any]:
    """Metrics of a run, by default of nothing."""
    return {"heldout": heldout or {}, "cross": cross or {}, "comp6": comp6}


def make_run(
    out: Path, name: str, seed: int, metrics: dict[str, Any] | None, **changes: Any
) -> RunFolder:
    """Write a run folder; unfinished if `metrics` is None."""
    settings = make_settings(name, seed, **changes)
    folder = RunFolder.of(out, settings)
    folder.prepare(settings, facts={})
    if metrics is not None:
        folder.write_metrics(metrics)
    return folder


def exit_code(*arguments: object) -> int:
    """Run the command line in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
