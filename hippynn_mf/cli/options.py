"""Options that several commands have, and what their words stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hippynn_mf.cli.texts import KEY, parse_keys, parse_levels, parse_source, parse_units
from hippynn_mf.errors import UserError
from hippynn_mf.runs.request import Request

if TYPE_CHECKING:
    from hippynn_mf.data.formats.sources import DataPath
    from hippynn_mf.engine import Engine
    from hippynn_mf.levels import Levels
    from hippynn_mf.runs.experiment import Experiment


class MetricChoice(StrEnum):
    """Errors that tables can show."""

    rmse = "rmse"
    mae = "mae"


class EngineChoice(StrEnum):
    """What executes the runs of a campaign."""

    parsl = "parsl"
    pool = "pool"


EngineOption = Annotated[
    EngineChoice, typer.Option(help="parsl; or pool, Python's own, where Parsl does not run.")
]
SiteOption = Annotated[
    Path | None,
    typer.Option(help="Python file that defines a Parsl `config`. (default: this machine)"),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(help="Runs at a time. (default: one per GPU, or per core)", min=1),
]
LevelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME,...",
        help="Levels of your own: their labels, the least accurate first, as PBE,CCSDT; or a JSON "
        "file that declares them, as scripts/xtb_levels.json.",
    ),
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="LEVEL.KIND=NAME", help="What a name in the files stands for, as "
                 "DFT.energy=dft_energy; kinds are energy, forces and gradient; repeatable."),
]  # fmt: skip
UnitsOption = Annotated[
    list[str] | None,
    typer.Option("--units", metavar="KIND=UNIT", help="Units of the files, as energy=kcal/mol, "
                 "positions=bohr, forces=hartree/bohr, CC.energy=hartree; repeatable."),
]  # fmt: skip
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one, NAME=VALUE; repeatable.")
]
OnlySeedsOption = Annotated[
    str | None,
    typer.Option(help="Seeds, comma-separated. (default: all that any row has)"),
]
PartialOption = Annotated[
    bool, typer.Option("--partial", help="Write what is there, and name what is missing.")
]
OnlyExperimentsOption = Annotated[
    str | None,
    typer.Option(
        "--experiments",
        help="Names, or table1 or strategies, comma-separated. (default: all)",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, an interrupt ends the command with a line that says how it continues."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("hippynn-mf: interrupted. The same command continues.", err=True)
        raise typer.Exit(130) from None


def known_levels_of(text: str | None) -> Levels:
    """The levels that are known with those of --levels."""
    return Request.of({} if text is None else {"levels": parse_levels(text)}).known


def told_source(
    texts: Sequence[str], keys: Sequence[str] | None, units: Sequence[str] | None
) -> DataPath:
    """Data from one file, or LEVEL=FILE for every level, with what is declared of them."""
    from hippynn_mf.data.formats.sources import with_declared

    more = [text for text in texts if keys and KEY.match(text)]
    source = parse_source([text for text in texts if text not in more])
    return with_declared(source, parse_keys([*(keys or []), *more]), parse_units(units or []))


def parse_experiments(names: Sequence[str], levels: Levels | None = None) -> list[Experiment]:
    """Experiments from names, or names of groups."""
    from hippynn_mf.levels import KNOWN_LEVELS
    from hippynn_mf.paper.table1 import GROUPS, get_experiment

    known_levels = KNOWN_LEVELS if levels is None else levels
    named = [get_experiment(name, levels=known_levels) for name in names if name not in GROUPS]
    known = {experiment.name for experiment in named}
    for name in names:  # groups share experiments, which are meant once
        for experiment in GROUPS[name]() if name in GROUPS else ():
            if experiment.name not in known:
                named.append(experiment)
                known.add(experiment.name)
    return named


def make_engine(kind: EngineChoice, site: Path | None, workers: int | None, device: str) -> Engine:
    """The engine that was asked for; what does not go together is a UserError."""
    from hippynn_mf.campaign.engines import LocalPool, ParslSite, read_site
    from hippynn_mf.starting import available_cores

    if site is not None:
        if kind is not EngineChoice.parsl or workers is not None:
            raise UserError("--site says where and how to run; leave --engine and --workers out.")
        read_site(site)
        return ParslSite(site)
    from hippynn_mf.network.device import choose_device

    target = choose_device(device)
    gpus = _gpus() if target.type == "cuda" and target.index is None else ()
    if kind is EngineChoice.pool:
        return LocalPool(workers or (1 if target.type == "cuda" else available_cores()))
    if workers is None:
        workers = max(1, len(gpus)) if target.type == "cuda" else available_cores()
    if gpus and workers > len(gpus):
        raise UserError(
            f"{workers} workers for {len(gpus)} GPUs: every run has a GPU of its own. Ask for at "
            "most so many, or describe another plan in a --site."
        )
    return ParslSite(n_workers=workers, gpus=gpus)


def _gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES gives them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(","))[: torch.cuda.device_count()]
    return tuple(map(str, range(torch.cuda.device_count())))
