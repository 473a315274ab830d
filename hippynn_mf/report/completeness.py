"""Which runs a document lacks. An average over whatever has finished is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hippynn_mf.report.results import Results

N_SHOWN = 2  # missing runs of a document in a message


@dataclass(frozen=True)
class MissingRuns:
    """The seeds that an experiment lacks, and those among them that have begun.

    `seeds` is empty if no run says which seeds there should be. `split_seed` is there where runs
    have several.
    """

    name: str
    seeds: tuple[int, ...]
    unfinished: tuple[int, ...]
    split_seed: int | None = None

    def __str__(self) -> str:
        of_split = "" if self.split_seed is None else f" of split {self.split_seed}"
        if not self.seeds:
            return f"{self.name}, any seed{of_split}"
        text = f"{self.name}, seed{'s' if len(self.seeds) > 1 else ''} {_join(self.seeds)}"
        text += of_split
        return text + (f" (begun: {_join(self.unfinished)})" if self.unfinished else "")


@dataclass(frozen=True)
class Written:
    """What was written below a folder, and the documents that were not, with what they lack."""

    out: Path
    paths: list[Path] = field(default_factory=list)
    lacking: dict[str, list[MissingRuns]] = field(default_factory=dict)

    def __add__(self, other: Written) -> Written:
        """Both together."""
        return Written(self.out, self.paths + other.paths, self.lacking | other.lacking)

    @property
    def refusal(self) -> str | None:
        """What was not written, the first missing runs, and the remedy; None if nothing is."""
        if not self.lacking:
            return None
        documents = [f"{document} ({_first(runs)})" for document, runs in self.lacking.items()]
        missing = [run for runs in self.lacking.values() for run in runs]
        names = dict.fromkeys(run.name for run in missing)
        seeds = sorted({seed for run in missing for seed in run.seeds}) or [0]
        splits = sorted({run.split_seed for run in missing if run.split_seed is not None})
        of_splits = f"--split-seeds {_join(splits, ',')} " if splits else ""
        return (
            f"Not written, because of runs that are not finished: {', '.join(documents)}. Train "
            f"them with 'hippynn-mf reproduce --out {self.out} --experiments {','.join(names)} "
            f"--seeds {_join(seeds, ',')} {of_splits}".rstrip()
            + "' and the options of the other runs. To write "
            f"what is there: 'hippynn-mf tables {self.out} --partial', and the same with figures."
        )


def missing_runs(
    results: Results, names: Sequence[str], seeds: Sequence[int] | None = None
) -> list[MissingRuns]:
    """What these experiments lack, in their order; empty if all runs are finished.

    Every experiment needs the same seeds: `seeds`, or those that any of them has, finished or not;
    of results over splits, the same in every split. Raises UserError for others with several.
    """
    if seeds is None:
        seeds = [s for n in names for s in (*results.seeds(n), *results.unfinished.get(n, ()))]
    if results.over == "splits":
        return [
            replace(missing, split_seed=split_seed)
            for split_seed in results.split_seeds
            for missing in missing_runs(results.only(split_seed=split_seed), names, seeds)
        ]
    results.require_one_split()
    needed = sorted(set(seeds))
    missing = []
    for name in names:
        lacking = [seed for seed in needed if seed not in results.seeds(name)]
        if lacking or not needed:
            begun = [seed for seed in lacking if seed in results.unfinished.get(name, ())]
            missing.append(MissingRuns(name, tuple(lacking), tuple(begun)))
    return missing


def _first(runs: Sequence[MissingRuns]) -> str:
    """The first runs; all their names are in the remedy."""
    more = [f"{len(runs) - N_SHOWN} more"] if len(runs) > N_SHOWN else []
    return "; ".join([*map(str, runs[:N_SHOWN]), *more])


def _join(seeds: Iterable[int], separator: str = ", ") -> str:
    return separator.join(map(str, seeds))
