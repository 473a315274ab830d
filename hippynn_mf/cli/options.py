"""Options that commands share, and what is made of their texts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hippynn_mf.campaign.engines import Engine, LocalPool, ParslSite, available_cores, read_site
from hippynn_mf.data.embedded import MINI_ANI1X
from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.data.formats.sources import DataPath, parse_level_files
from hippynn_mf.errors import UserError
from hippynn_mf.level_records import declare_levels
from hippynn_mf.levels import Level, Levels, known_levels
from hippynn_mf.paper.table1 import GROUPS, get_experiment, table1
from hippynn_mf.runs.experiment import Experiment


class MetricChoice(StrEnum):
    """Errors that tables can show."""

    rmse = "rmse"
    mae = "mae"


class EngineChoice(StrEnum):
    """What executes the runs of a campaign."""

    parsl = "parsl"
    pool = "pool"


OutOption = Annotated[
    Path, typer.Option(help="Folder of runs, tables and figures.", file_okay=False)
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        help="File in the ANI-1x layout, or extended XYZ (.xyz). (default: the embedded data)"
    ),
]
TrainOption = Annotated[
    list[str] | None,
    typer.Option(
        "--train",
        metavar="LEVEL=FILE...",
        help="Instead of --data: extended XYZ files of one level each, DZ=a.xyz CC=b.xyz.",
    ),
]
MoreFiles = Annotated[  # an option has one value: the others arrive as arguments
    list[str] | None, typer.Argument(metavar="[LEVEL=FILE]...", help="More files for --train.")
]
LevelsOption = Annotated[
    Path | None,
    typer.Option(
        help="JSON file that declares levels of your own, as scripts/xtb_levels.json.",
        dir_okay=False,
    ),
]
Comp6Option = Annotated[
    Path | None,
    typer.Option(help="File or folder in the COMP6 layout. (default: embedded, with its data)"),
]
Comp6KeysOption = Annotated[
    Path | None,
    typer.Option(help="JSON key map of --comp6. (default: the public layout)", dir_okay=False),
]
TestFileOption = Annotated[
    Path | None,
    typer.Option(
        help="File in the ANI-1x layout that is never trained on, for further errors. "
        "(default: with the embedded data, mini-cc-forces.h5)"
    ),
]
CutOption = Annotated[
    float, typer.Option(help="COMP6 conformers up to so far above their minimum, kcal/mol.", min=0)
]
PresetOption = Annotated[str, typer.Option(help="Hyperparameters: quick or paper.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one, NAME=VALUE; repeatable.")
]
RowsOption = Annotated[
    str,
    typer.Option(
        help="common: structures with the energies of all four levels, with --levels of all in the "
        "data; all: with any label."
    ),
]
SplitSeedOption = Annotated[
    int, typer.Option(help="Chooses test and validation structures.", min=0)
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
        help=f"Names, or {' or '.join(GROUPS)}, comma-separated. (default: all)",
    ),
]
FractionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label-fraction",
        metavar="LEVEL=FRACTION",
        help="Train and validate on a fraction of a level's labels, as CC=0.3; repeatable.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def declare(levels: Path | None) -> None:
    """Make the levels of --levels known, before anything names them."""
    if levels is not None:
        declare_levels(levels)


def common_levels_of(levels: Path | None, data: DataPath | None) -> list[Level] | None:
    """Whose energies common structures have: with --levels, all known levels of the data.

    So all experiments on the same data have the same structures, whichever levels they train on.
    None without --levels, for those of each experiment, which are the paper's.
    """
    return None if levels is None else list(labels_in_file(MINI_ANI1X if data is None else data))


def parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    """Hyperparameters from NAME=VALUE, values as JSON or else as text."""
    overrides: dict[str, Any] = {}
    for pair in pairs or []:
        name, separator, text = pair.partition("=")
        if not separator:
            raise UserError(f"--set expects NAME=VALUE, found {pair!r}.")
        try:
            overrides[name] = json.loads(text)
        except ValueError:
            overrides[name] = text
    return overrides


def parse_fractions(pairs: list[str] | None) -> dict[str, float]:
    """Fractions of labels from LEVEL=FRACTION."""
    fractions: dict[str, float] = {}
    for pair in pairs or []:
        name, _, text = pair.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not name or value != value:
            raise UserError(f"--label-fraction expects LEVEL=FRACTION, as CC=0.3; found {pair!r}.")
        if name in fractions:
            raise UserError(f"--label-fraction names {name} twice.")
        fractions[name] = value
    return fractions


def split_files(texts: Sequence[object]) -> tuple[list[str], list[str]]:
    """What stands among arguments as LEVEL=FILE belongs to --train; the others, and those."""
    names = [str(text) for text in texts]
    files = [name for name in names if "=" in name and not Path(name).exists()]
    return [name for name in names if name not in files], files


def parse_data(data: Path | None, train: list[str] | None, more: list[str]) -> DataPath | None:
    """The training data from --data, or from --train and the files that follow it."""
    if train is None:
        if more:
            raise UserError(f"Unexpected: {' '.join(more)}. Files of levels follow --train.")
        return data
    if data is not None:
        raise UserError("--data and --train both name the training data. Leave one out.")
    return parse_level_files([*train, *more])


def parse_seeds(text: str) -> list[int]:
    """Seeds from numbers with commas between."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--seeds expects whole numbers as 0,1,2; found {text!r}.") from None
    if any(seed < 0 for seed in seeds):
        raise UserError(f"Seeds are not negative; found {text!r}.")
    return seeds


def parse_experiments(names: str | None) -> list[Experiment]:
    """Experiments from names, or names of groups, with commas between; Table 1 for None."""
    if names is None:
        return list(table1())
    chosen = [name.strip() for name in names.split(",")]
    named = [
        get_experiment(name, levels=Levels(known_levels())) for name in chosen if name not in GROUPS
    ]
    known = {experiment.name for experiment in named}
    for name in chosen:  # groups share experiments, which are meant once
        for experiment in GROUPS[name]() if name in GROUPS else ():
            if experiment.name not in known:
                named.append(experiment)
                known.add(experiment.name)
    return named


def make_engine(kind: EngineChoice, site: Path | None, workers: int | None, device: str) -> Engine:
    """The engine that was asked for; what does not go together is a UserError."""
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
