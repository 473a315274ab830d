"""What 100 energies of a further level bring to a finished model, for docs/extending.md.

    seeds=100,101,102; few="--label-fraction CC=0.093"
    hippynn-mf train MF-DZ/EF-TZ/EF --preset robust --seeds $seeds --out parents
    run=parents/runs/mf_dz_ef_tz_ef
    hippynn-mf extend $run/seed-* --label CC=E $few --out added
    hippynn-mf extend $run/seed-* --label CC=E $few --replay --out replayed
    hippynn-mf extend $run/seed-* --label CC=E $few --replay --weight CC.energy=0.1 --out lighter
    hippynn-mf train SF-CC/E --preset robust $few --seeds $seeds --out alone
    hippynn-mf train MF-DZ/EF-TZ/EF-CC/E --preset robust $few --seeds $seeds --out together
    python scripts/study_extension.py . --out scripts/benchmarks/extension.json

All on the embedded data, with the same split, and so with the same 100 labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from hippynn_mf.evaluation.schema import validate_metrics
from hippynn_mf.files import write_json
from hippynn_mf.levels import CC, DZ, TZ
from hippynn_mf.runs.folder import RunFolder, find_runs

TARGET = Path(__file__).parent / "benchmarks" / "extension.json"
CAMPAIGNS = ("parents", "added", "replayed", "lighter", "alone", "together")
# Title → test set, level, and the field of its error.
ERRORS = {
    "energy, held-out CC": ("heldout", CC, "energy_rmse_kcal_per_mol"),
    "ΔE, COMP6 CC": ("comp6", CC, "delta_e_rmse_kcal_per_mol"),
    "force, cc-forces CC": ("cc-forces", CC, "force_rmse_kcal_per_mol_per_angstrom"),
    "energy, held-out TZ": ("heldout", TZ, "energy_rmse_kcal_per_mol"),
    "force, held-out DZ": ("heldout", DZ, "force_rmse_kcal_per_mol_per_angstrom"),
}


def main(
    where: Annotated[Path, typer.Argument(help="Folder of the six folders of runs.")],
    out: Annotated[Path, typer.Option(help="JSON to write.")] = TARGET,
) -> None:
    """Write the errors of every run, its time, and what became of the parent's levels."""
    finished = {
        name: [run for run in find_runs(where / name) if run.is_finished] for name in CAMPAIGNS
    }
    rows = {name: [_row(run) for run in runs] for name, runs in finished.items()}
    folder = finished["added"][0]
    write_json(out, {"n_labels": _n_labels(folder), "runs": rows})
    typer.echo(out)


def _row(folder: RunFolder) -> dict[str, Any]:
    metrics = validate_metrics(folder.read_metrics(), folder.file("metrics.json"))
    found: dict[str, float | None] = {}
    for title, (name, level, field) in ERRORS.items():
        entry = metrics.sets[name].get(level.id, {}).get(level.id)
        found[title] = None if entry is None else getattr(entry, field)
    verdicts: dict[str, int] = {}
    for of_set in (metrics.parent or {}).values():
        for of_level in of_set.values():
            for change in of_level.values():
                verdicts[change.verdict] = verdicts.get(change.verdict, 0) + 1
    assert metrics.training is not None
    valid = folder.read_epochs()[-1]["valid"]
    return {
        "seed": folder.read_settings().seed,
        "errors": found,
        "valid_cc_energy_rmse": valid.get(f"energy_rmse.{CC.id}"),
        "cpu_s": metrics.training.cpu_s,
        "changes": verdicts,
    }


def _n_labels(folder: RunFolder) -> int:
    """Labels of the new level that train and validate."""
    from hippynn_mf.runs.preflight import load_inputs

    parts = load_inputs([folder.read_settings()])
    return int(sum(np.count_nonzero(parts[name].has_energy(CC)) for name in ("train", "valid")))


if __name__ == "__main__":
    typer.run(main)
