"""Everything that run metrics are turned into as text, by one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hippynn_mf.paper.claims import write_claims
from hippynn_mf.paper.tables import write_complete_tables
from hippynn_mf.report.columns import Metric
from hippynn_mf.report.completeness import Written
from hippynn_mf.report.results import Results
from hippynn_mf.runs.experiment import Experiment


def write_documents(
    out: Path,
    results: Results,
    *,
    metric: Metric = "rmse",
    experiments: Sequence[Experiment] | None = None,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
) -> Written:
    """Write tables 2 to 4 and the low-level forces, and what they say about the paper's findings.

    Options as for `write_complete_tables`; the findings rest on RMSEs, and are not written for
    MAEs.
    """
    written = write_complete_tables(
        out, results, metric=metric, experiments=experiments, seeds=seeds, partial=partial
    )
    if metric == "rmse":
        written += write_claims(out, results, experiments=experiments, seeds=seeds, partial=partial)
    return written
