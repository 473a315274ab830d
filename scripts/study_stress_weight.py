"""Validation errors of campaigns with several weights of the stress, for the documentation.

    for w in 30 100 300; do
        hippynn-mf campaign --levels scripts/xtb_levels.json --data periodic.h5 \
            --experiments MF-GFN1/EFS-GFN2/E --label-fraction GFN2=0.5 --set max_epochs=40 \
            --set dist_hard_max=5.0 --set dist_soft_max=4.5 --set stress_weight=$w \
            --seeds 100,101,102 --out w$w
    done
    python scripts/study_stress_weight.py w30 w100 w300

The errors are means over the seeds of the last epoch's, on validation structures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hippynn_mf.files import write_json
from hippynn_mf.runs.folder import find_runs

TARGET = Path(__file__).parent / "benchmarks" / "stress_weight.json"
METRICS = (
    "energy_mae.gfn1_xtb",
    "force_mae.gfn1_xtb",
    "stress_mae.gfn1_xtb",
    "energy_mae.gfn2_xtb",
)


def main(
    campaigns: Annotated[list[Path], typer.Argument(help="Folders of campaigns.")],
    out: Annotated[Path, typer.Option(help="JSON to write.")] = TARGET,
) -> None:
    """Write the mean validation errors of every campaign."""
    rows = []
    for campaign in campaigns:
        folders = find_runs(campaign)
        errors = [
            [folder.read_epochs()[-1]["valid"][name] for name in METRICS] for folder in folders
        ]
        settings = [folder.read_settings() for folder in folders]
        (weight,) = {each.hyperparameters.stress_weight for each in settings}
        rows.append(
            {
                "stress_weight": weight,
                "seeds": sorted(each.seed for each in settings),
                "errors": np.mean(errors, axis=0).tolist(),
            }
        )
    write_json(out, {"metrics": list(METRICS), "mean_absolute_errors": rows})
    typer.echo(out)


if __name__ == "__main__":
    typer.run(main)
