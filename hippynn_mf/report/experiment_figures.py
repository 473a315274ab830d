"""Figures that each experiment of a folder has for itself: parity, spread, learning curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from tqdm import tqdm

from hippynn_mf.report.learning import make_learning_curves
from hippynn_mf.report.parity import make_parity
from hippynn_mf.report.results import Results
from hippynn_mf.report.runs import Run
from hippynn_mf.report.spread import FEWEST_SEEDS, make_spread
from hippynn_mf.schema import Strict


@dataclass(frozen=True)
class FigureKind:
    """A figure of an experiment: how it is made, the file and the seeds it needs of its runs.

    The file is one of the run, or one `of_phases`, of every phase of the run.
    """

    make: Callable[[Sequence[Run]], tuple[Figure, Strict]]
    file: str
    fewest_seeds: int = 1
    of_phases: bool = False

    def lacks(self, members: Sequence[Run]) -> str | None:
        """What the runs lack for it, None for nothing."""
        for run in members:
            if run.folder is None:
                return f"{self.file} of every run, which was not kept with {run.where}"
            for folder in run.phase_folders() if self.of_phases else [run.folder]:
                if not folder.file(self.file).exists():
                    return f"{self.file} of every run, which is missing: {folder.path}"
        if len(members) < self.fewest_seeds:
            return f"{self.fewest_seeds} or more seeds"
        return None


KINDS: Mapping[str, FigureKind] = {
    "parity": FigureKind(make_parity, "predictions.npz"),
    "spread": FigureKind(make_spread, "predictions.npz", FEWEST_SEEDS),
    "learning": FigureKind(make_learning_curves, "epochs.jsonl", of_phases=True),
}


def drawn_figures(results: Results, name: str) -> Iterator[tuple[str, Figure, Strict]]:
    """A kind of figure of every experiment that has what it needs: slug, figure, numbers."""
    for experiment in tqdm(results.by_name, desc=name, disable=None, leave=False):
        members = results.members(experiment)
        if KINDS[name].lacks(members) is None:
            yield members[0].settings.slug, *KINDS[name].make(members)


def lacking_text(results: Results, name: str) -> str | None:
    """Which experiments have no figure of a kind, and what the first of them lacks."""
    lacking = {}
    for experiment in results.by_name:
        lacks = KINDS[name].lacks(results.members(experiment))
        if lacks is not None:
            lacking[experiment] = lacks
    if not lacking:
        return None
    first = next(iter(lacking))
    return f"No {name} figure of {', '.join(lacking)}: {first} lacks {lacking[first]}."
