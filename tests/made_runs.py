"""Run folders made by hand, without training; commands as a user types them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hippynn_mf.cli import main
from hippynn_mf.experiment import get_experiment
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.runs import Comp6Source, DataSource, RunFolder, RunSettings

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
