"""Keep what is worth keeping of a campaign, in a few files: settings, metrics, ensembles.

    python scripts/keep_results.py results experiments/results
    python scripts/make_documents.py experiments/results

The first command writes `campaign.json` (what all runs share), `runs.jsonl` (a line per run, with
the validation errors of the epoch that it kept: what to choose models by) and `ensembles.jsonl`;
the second makes tables and figures of them. Figures that need predictions or epochs are drawn here,
for the experiments in `--figures`.

Parameters, predictions and logs stay behind. Of the data files only the names are kept, not where
they lie on this machine; runs are compared by the files' SHA-256.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hippynn_mf.report.ensemble import find_ensembles
from hippynn_mf.report.experiment_figures import KINDS
from hippynn_mf.report.kept import write_kept
from hippynn_mf.report.results import Results, read_results
from hippynn_mf.report.saving import save_with_numbers


def ensembles_of(results: Results) -> list[dict[str, object]]:
    """Records of all experiments, of each split; a UserError where predictions are missing."""
    return [
        record.content()
        for split_seed in results.split_seeds
        for chosen in [results.only(split_seed=split_seed)]
        for record in find_ensembles(chosen, list(chosen.by_name)).values()
    ]


def main(
    results: Annotated[Path, typer.Argument(help="Folder of a campaign.", exists=True)],
    kept: Annotated[Path, typer.Argument(help="Folder to write into.")],
    figures: Annotated[
        str, typer.Option(help="KIND:EXPERIMENT, comma-separated, as spread:MF-DZ/EF-CC/E.")
    ] = "",
) -> None:
    """Keep settings, metrics and ensembles of a campaign, of which every run must be finished."""
    read = read_results(results)
    unfinished = [run.where for run in read.runs if run.metrics is None]
    if unfinished:
        missing = ", ".join(unfinished)
        raise SystemExit(f"keep_results: not finished: {missing}. Continue the campaign first.")
    ensembles = ensembles_of(read)
    write_kept(kept, read.finished, ensembles)
    for text in filter(None, figures.split(",")):
        kind, _, name = text.strip().partition(":")
        members = read.members(name)
        path = kept / "figures" / f"{kind}-{members[0].settings.slug}.png"
        save_with_numbers(*KINDS[kind].make(members), path)
    typer.echo(f"{len(read.finished)} runs and {len(ensembles)} ensembles kept in {kept}")


if __name__ == "__main__":
    typer.run(main)
