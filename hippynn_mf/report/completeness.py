"""Which runs a document lacks. An average over whatever has finished is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hippynn_mf.report.results import Results


@dataclass(frozen=True)
class MissingRuns:
    """The seeds that an experiment lacks, and those among them that have begun.

    `seeds` is empty if no run says which seeds there should be.
    """

    name: str
    seeds: tuple[int, ...]
    unfinished: tuple[int, ...]

    def __str__(self) -> str:
        if not self.seeds:
            return f"{self.name}, any seed"
        text = f"{self.name}, seed{'s' if len(self.seeds) > 1 else ''} {_join(self.seeds)}"
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
        """What was not written, every missing run, and the remedy; None if nothing is missing."""
        if not self.lacking:
            return None
        documents = [
            f"{document} ({'; '.join(map(str, runs))})" for document, runs in self.lacking.items()
        ]
        missing = [run for runs in self.lacking.values() for run in runs]
        names = dict.fromkeys(run.name for run in missing)
        seeds = sorted({seed for run in missing for seed in run.seeds}) or [0]
        return (
            f"Not written, because of runs that are not finished: {', '.join(documents)}. Train "
            f"them with 'hippynn-mf reproduce --out {self.out} --experiments {','.join(names)} "
            f"--seeds {','.join(map(str, seeds))}' and the options of the other runs. To write "
            f"what is there: 'hippynn-mf tables {self.out} --partial', and the same with figures."
        )


def missing_runs(
    results: Results, names: Sequence[str], seeds: Sequence[int] | None = None
) -> list[MissingRuns]:
    """What these experiments lack, in their order; empty if all runs are finished.

    Every experiment needs the same seeds: `seeds`, or those that any of them has, finished or not.
    Raises UserError for runs with several split seeds.
    """
    results.require_one_split()
    if seeds is None:
        seeds = [s for n in names for s in (*results.seeds(n), *results.unfinished.get(n, ()))]
    needed = sorted(set(seeds))
    missing = []
    for name in names:
        lacking = [seed for seed in needed if seed not in results.seeds(name)]
        if lacking or not needed:
            begun = [seed for seed in lacking if seed in results.unfinished.get(name, ())]
            missing.append(MissingRuns(name, tuple(lacking), tuple(begun)))
    return missing


def _join(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
