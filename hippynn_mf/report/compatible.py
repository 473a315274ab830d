"""Which runs can share a table: those of one data set, one recipe, and levels that are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.levels import KNOWN_LEVELS, Levels
from hippynn_mf.report.runs import Run
from hippynn_mf.runs.same_run import remedy_of_untested


def run_key(run: Run) -> tuple[str, int, int]:
    """Experiment, seed and split seed, which tell runs apart."""
    return run.name, run.seed, run.settings.split_seed


def common_levels(runs: Sequence[Run]) -> Levels:
    """The levels that any run knows; a UserError if two differ under one name."""
    known = KNOWN_LEVELS
    for run in runs:
        with errors_about(f"{run.where} cannot share a table with the other runs"):
            known = known.including(run.settings.known)
    return known


def refuse_duplicates(runs: Sequence[Run]) -> None:
    """Raise UserError for a run that is there twice."""
    counts = Counter(run_key(run) for run in runs)
    for (name, seed, split), count in counts.items():
        if count > 1:
            where = [r.where for r in runs if run_key(r) == (name, seed, split)]
            raise UserError(
                f"{name}, seed {seed} is there {count} times: {', '.join(where)}. Remove all "
                "but one; an average would count it twice."
            )


def refuse_mixtures(runs: Sequence[Run]) -> None:
    """Raise UserError unless all runs are of one data set and one recipe, as a table needs it."""
    fields_of_rows = {"name", "strategy", "slug", "labels", "seed", "split_seed"}
    for run in runs[1:]:
        first = runs[0]
        # What strategies stand for is what their rows are compared in.
        strategies = [compared.settings.experiment.strategy for compared in (run, first)]
        theirs = {f"hyperparameters.{name}" for s in strategies for name in s.overrides}
        differences = [
            text
            for text in run.settings.differences(first.settings)
            if text.split(":")[0].split(".")[0] not in fields_of_rows
            and text.split(":")[0] not in theirs
        ]
        if differences:
            raise UserError(
                f"{run.where} and {first.where} cannot share a table: {'; '.join(differences)}. "
                f"{_remedy(first, run)}Keep them in different folders."
            )


def _remedy(first: Run, run: Run) -> str:
    """How a run is tested on what only another was tested on, without training."""
    for one, other in ((first, run), (run, first)):
        missing = [t for t in other.settings.tests if one.settings.test(t.name) is None]
        if missing and one.folder is not None:
            return remedy_of_untested(one.folder, missing) + " "
    return ""
