"""Which runs a document lacks. An average over whatever has finished is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hippynn_mf.errors import UserError
from hippynn_mf.results import Results


@dataclass(frozen=True)
class MissingRun:
    """A run that is not finished; `seed` is None where no run says which seeds there should be."""

    name: str
    seed: int | None
    unfinished: bool

    def __str__(self) -> str:
        seed = "any seed" if self.seed is None else f"seed {self.seed}"
        return f"{self.name}, {seed}" + (" (unfinished)" if self.unfinished else "")


@dataclass(frozen=True)
class Written:
    """What was written below a folder, and the documents that were not, with what they lack."""

    out: Path
    paths: list[Path] = field(default_factory=list)
    lacking: dict[str, list[MissingRun]] = field(default_factory=dict)

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
        seeds = sorted({run.seed for run in missing if run.seed is not None}) or [0]
        return (
            f"Not written, because of runs that are not finished: {', '.join(documents)}. Train "
            f"them with 'hippynn-mf reproduce --out {self.out} --experiments {','.join(names)} "
            f"--seeds {','.join(map(str, seeds))}' and the options of the other runs, or write "
            "what is there with --partial."
        )

    def require(self) -> list[Path]:
        """The paths; a UserError with the refusal if there is one."""
        if self.refusal:
            raise UserError(self.refusal)
        return self.paths


def missing_runs(
    results: Results, names: Sequence[str], seeds: Sequence[int] | None = None
) -> list[MissingRun]:
    """The runs of these experiments that are not finished.

    Every experiment needs the same seeds: `seeds`, or those that any of them has, finished or not.
    """
    needed: Sequence[int | None] = sorted(
        set(seeds or ())
        if seeds is not None
        else {
            seed
            for name in names
            for seed in (*results.seeds(name), *results.unfinished.get(name, ()))
        }
    )
    return [
        MissingRun(name, seed, seed in results.unfinished.get(name, ()))
        for name in names
        for seed in needed or [None]
        if seed not in results.seeds(name)
    ]
