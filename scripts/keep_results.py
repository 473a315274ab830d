"""Copy what is worth keeping of a campaign: settings, metrics and documents, a few kilobytes a run.

`validation.json` holds the validation metrics of every run's best epoch: what to choose models by.

    python scripts/keep_results.py results experiments/results

Parameters, predictions and logs stay behind. Of the data files only the names are kept, not where
they lie on this machine; runs are compared by the files' SHA-256.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hippynn_mf.files import read_json, replace_when_complete, write_json
from hippynn_mf.runs.folder import RunFolder, find_runs
from hippynn_mf.runs.settings import SOURCES

KEPT = (
    "runs/*/seed-*/metrics.json",
    "runs/*/ensemble.json",
    "tables/*",
    "figures/figure3.*",
    "figures/cc-forces.*",
    "figures/spread-mf_dz_ef_cc_e.*",  # which docs/uncertainty.md shows
)


def best_validation_errors(runs: list[RunFolder]) -> dict[str, dict[str, dict[str, float]]]:
    """Validation metrics of the epoch that was kept: experiment → seed → metric → value."""
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for run in runs:
        settings = run.read_settings()
        best = [epoch for epoch in run.read_epochs() if epoch["best"]][-1]
        errors.setdefault(settings.name, {})[str(settings.seed)] = best["valid"]
    return errors


def main(
    results: Annotated[Path, typer.Argument(help="Folder of a campaign.", exists=True)],
    kept: Annotated[Path, typer.Argument(help="Folder to copy into.")],
) -> None:
    """Copy settings, metrics, tables and figure 3 of the finished runs."""
    runs = find_runs(results)
    unfinished = [str(run.path) for run in runs if not run.is_finished]
    if not runs or unfinished:
        missing = ", ".join(unfinished) or f"{results}/runs"
        raise SystemExit(f"keep_results: not finished: {missing}. Continue the campaign first.")
    for run in runs:
        content = read_json(run.file("experiment.json"))
        for name in SOURCES:
            source = content["settings"].get(name)  # older runs have no test file
            if source is None:
                continue
            path = source["path"]
            source["path"] = (
                {level: Path(each).name for level, each in path.items()}
                if isinstance(path, dict)
                else Path(path).name
            )
        target = kept / run.path.relative_to(results) / "experiment.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, content)
    write_json(kept / "validation.json", best_validation_errors(runs))
    paths = [path for pattern in KEPT for path in sorted(results.glob(pattern))]
    for path in paths:
        target = kept / path.relative_to(results)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_complete(target) as partial:
            partial.write_bytes(path.read_bytes())
    typer.echo(f"{len(runs)} runs and {len(paths)} files kept in {kept}")


if __name__ == "__main__":
    typer.run(main)
