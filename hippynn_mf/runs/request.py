"""What a user asks for: one model, from which everything that asks or tells is made.

The options of `train` and `campaign`, the keys of a run file and its JSON schema, and the settings
page of the documentation are the fields below with their descriptions; `build.py` makes the
settings of runs of a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, ValidationError, model_validator

from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.level_records import levels_of_records, read_levels
from hippynn_mf.levels import KNOWN_LEVELS, Level, Levels
from hippynn_mf.runs.request_fields import (
    ENERGY_CUT_KCAL_PER_MOL,
    DeclaredLevels,
    FileName,
    Files,
    Flag,
    Fraction,
    LevelName,
    Overrides,
    Seed,
    Tests,
)
from hippynn_mf.runs.weights import TermWeights
from hippynn_mf.runs.wrong_keys import describe_problems
from hippynn_mf.schema import StrictKeys

GROUP_NAMES = ("table1", "strategies")  # of experiments, which share their structures
HELDOUT = "heldout"  # the test set that every run has
EMBEDDED_PRESET, OWN_DATA_PRESET = "quick", "robust"  # where no preset is asked for
# What a campaign is asked for where nothing is said.
CAMPAIGN_DEFAULTS: Mapping[str, Any] = {"experiments": ("table1",), "seeds": (0, 1)}


class Request(StrictKeys):
    """Everything that can be asked of `train` and `campaign`, with its defaults."""

    experiments: Annotated[tuple[str, ...], Flag(("--experiments",), metavar="NAME,...")] = Field(
        (),
        description="What to train, as MF-DZ/EF-CC/E: a strategy, and levels with their labels, E "
        "for energies, EF also for forces, EFS also for the stress of crystals. Also the groups "
        "table1 and strategies. "
        "(default: of a campaign table1, all 17)",
    )
    labels: Annotated[
        dict[LevelName, Literal["E", "EF", "EFS"]],
        Flag(("--label",), metavar="LEVEL=E|EF|EFS", many=True),
    ] = Field(
        {},
        description="Instead of experiments: the labels to train on, by level: E for "
        "energies, EF also for forces, EFS also for the stress of crystals.",
    )
    strategy: Annotated[str | None, Flag(("--strategy",), metavar="NAME")] = Field(
        None,
        description="With labels: how several levels are learned, as MF, MFC, DELTA, TL or META. "
        "(default: SF for one level, MF for several)",
    )
    data: Annotated[
        Files | None,
        Flag(
            ("--data",),
            metavar="FILE",
            help="File or folder of any format that is read, as .xyz, .h5, .npz. (default: the "
            "embedded data)",
        ),
        Flag(
            ("--train",),
            metavar="LEVEL=FILE...",
            many=True,
            help="Instead of --data: files of one level each, DZ=a.xyz CC=b.npz.",
        ),
    ] = Field(
        None,
        description="Training data: a file or folder of any format that is read, or a table LEVEL "
        "= FILE of files of one level each. (default: the embedded data, with its tests)",
    )
    keys: Annotated[
        dict[LevelName, dict[str, str]],
        Flag(("--key",), metavar="LEVEL.KIND=NAME", many=True),
    ] = Field(
        {},
        description="What names in the files stand for, as DFT.energy=dft_energy; kinds are "
        "energy, forces, and gradient for the negative of forces; repeatable. Of tests that say "
        "nothing of their own, too. (default: the usual names of each format)",
    )
    units: Annotated[
        dict[str, str | dict[str, str]],
        Flag(("--units",), metavar="KIND=UNIT", many=True),
    ] = Field(
        {},
        description="Units of the files, as energy=kcal/mol, positions=bohr, forces=hartree/bohr, "
        "or of a level, CC.energy=hartree; repeatable. (default: those of each format; forces are "
        "in the unit of energies per that of positions)",
    )
    levels: Annotated[
        DeclaredLevels
        | None,
        Flag(("--levels",), metavar="FILE|NAME,...", help="Levels of your own: their labels, "
             "the least accurate first, as PBE,CCSDT; or a JSON file that declares them, as "
             "scripts/xtb_levels.json."),
    ] = Field(
        None,
        description="Levels of theory of your own: their labels in the order of their accuracy, as "
        '["PBE", "CCSDT"]; or tables [[levels]] with more about them; or a JSON file of either, as '
        "scripts/xtb_levels.json. (default: those of the paper)",
    )  # fmt: skip
    tests: Annotated[
        Tests,
        Flag(("--test",), metavar="NAME=FILE", many=True, help="Structures that are never trained "
             "on, for further errors; NAME=LEVEL:FILE for a file of one level; repeatable."),
        Flag(("--comp6",), metavar="FILE", kind=Path, help="File or folder in the COMP6 layout, "
             "the test comp6. (default: embedded, with its data)"),
        Flag(("--comp6-keys",), metavar="FILE", help="JSON key map of --comp6. (default: the "
             "public layout)", kind=Path, folder=False),
        Flag(("--energy-cut",), kind=float, least=0, help="Conformers of --comp6 up to so far "
             f"above their minimum, kcal/mol. (default: {ENERGY_CUT_KCAL_PER_MOL:g})"),
    ] = Field(
        {},
        description="Structures that are evaluated on and never trained on, by names of your own; "
        "comp6 is in the COMP6 layout. (default: with the embedded data comp6 and cc-forces)",
    )  # fmt: skip
    preset: Annotated[
        Literal["quick", "paper", "robust"] | None,
        Flag(("--preset",), metavar="quick|paper|robust"),
    ] = Field(
        None,
        description="Hyperparameters to start from: quick for the embedded data, robust for data "
        "of your own, paper for large data. (default: robust with data of your own, else quick; of "
        "reproduce quick)",
    )
    hyperparameters: Annotated[Overrides, Flag(("--set",), metavar="NAME=VALUE", many=True)] = (
        Field(
            {},
            description="Changes to the preset, as n_features=32, or species=[0,1,6,9] for "
            "elements of your own choice. 'hippynn-mf settings' lists all; repeatable.",
        )
    )
    weights: Annotated[
        dict[LevelName, TermWeights],
        Flag(("--weight",), metavar="LEVEL.TERM=WEIGHT", many=True),
    ] = Field(
        {},
        description="Weights in the loss by level, as DZ.forces=4; terms are energy, forces, "
        "stress and hierarchicality; repeatable. (default: energy_weight and so on of the "
        "hyperparameters)",
    )
    rows: Annotated[Literal["common", "all"] | None, Flag(("--rows",), metavar="common|all")] = (
        Field(
            None,
            description="all: structures with any label of an experiment; common: those with the "
            "energies of all four levels, with levels of your own of all in the data. (default: "
            "all with data of your own; common with the embedded data, the preset paper, and the "
            "groups table1 and strategies)",
        )
    )
    split_seed: Annotated[Seed, Flag(("--split-seed",), kind=int, least=0)] = Field(
        0, description="Chooses test and validation structures."
    )
    split_seeds: Annotated[tuple[Seed, ...], Flag(("--split-seeds",), metavar="K,...")] = Field(
        (),
        description="Instead of split_seed: every run with each of them, for tables of each.",
    )
    split: Annotated[Literal["conformer", "molecule"], Flag(("--split",), metavar="conformer|"
                     "molecule")] = Field(
        "conformer",
        description="What is drawn for test and validation: conformers, or whole molecules (the "
        "same elements and bonds), so that the tested ones are new.",
    )  # fmt: skip
    valid: Annotated[Files | None, Flag(("--valid-file",), metavar="FILE", help="Structures of "
                     "this file validate, in the formats of --data.")] = Field(
        None,
        description="Validation structures: a file in the formats of data. What would be drawn for "
        "validation trains. (default: a tenth of the data)",
    )  # fmt: skip
    label_fractions: Annotated[
        dict[LevelName, Fraction], Flag(("--label-fraction",), metavar="LEVEL=FRACTION", many=True)
    ] = Field(
        {},
        description="Train and validate on a fraction of a level's labels, as CC=0.3; repeatable. "
        "(default: all labels)",
    )
    accept_outliers: Annotated[bool, Strict(), Flag(("--accept-outliers",), kind=bool)] = Field(
        False,
        description="Train although more labels stand out, or more atoms clash, than the checks of "
        "the data let through, or bonds, balance, digits, distances or other levels speak against "
        "the labels.",
    )
    accept_charged: Annotated[bool, Strict(), Flag(("--accept-charged",), kind=bool)] = Field(
        False,
        description="Train although the file names charges or spins other than neutral singlets; "
        "a model does not know them.",
    )
    ignore_cell: Annotated[bool, Strict(), Flag(("--ignore-cell",), kind=bool)] = Field(
        False,
        description="Read periodic structures as molecules, without cell and stress. Those that "
        "see no image of themselves are molecules anyway.",
    )
    seeds: Annotated[tuple[Seed, ...], Flag(("--seeds", "--seed"), metavar="K,...")] = Field(
        (0,),
        description="A run for each: they change weights and batch order. (default: 0; of "
        "a campaign 0, 1)",
    )
    device: Annotated[str, Flag(("--device",), metavar="DEVICE")] = Field(
        "auto", description="auto, cpu, cuda or cuda:N."
    )
    out: Annotated[FileName, Flag(("--out",), kind=Path, folder=True)] = Field(
        Path("results"), description="Folder of runs, tables and figures."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Request:
        for what, names in (
            ("seed", list(map(str, self.seeds))),
            ("split seed", list(map(str, self.split_seeds))),
            ("experiment", list(self.experiments)),
        ):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"Asked for twice: {what} {', '.join(repeated)}.")
        if not self.seeds:
            raise ValueError("seeds is empty; name at least one, as [0].")
        if self.split_seeds and "split_seed" in self.model_fields_set:
            raise ValueError("split_seed and split_seeds both say the split. Leave one out.")
        if self.experiments and self.labels:
            raise ValueError("experiments and labels both say what to train. Leave one out.")
        if self.strategy is not None and not self.labels:
            raise ValueError("strategy goes with labels; a name of an experiment has its own.")
        if HELDOUT in self.tests:
            raise ValueError(f"{HELDOUT} is the test set of every run; choose another name.")
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any], *, folder: Path | None = None) -> Request:
        """A request from values as a run file has them; its paths start at `folder`.

        Raises UserError naming table and key, and the nearest known ones.
        """
        try:
            return cls.model_validate(dict(values), context={"folder": folder})
        except ValidationError as error:
            raise UserError(describe_problems(error, cls)) from None

    @property
    def known(self) -> Levels:
        """The levels of the paper, and those that this request declares."""
        if self.levels is None:
            return KNOWN_LEVELS
        if isinstance(self.levels, Path):
            return read_levels(self.levels)
        content = [each.model_dump(mode="json", exclude_unset=True) for each in self.levels]
        with errors_about("[[levels]]"):
            return KNOWN_LEVELS.including(levels_of_records(content, "[[levels]]"))

    @property
    def chosen_preset(self) -> str:
        """The preset that is asked for, or that of the data where none is."""
        return self.preset or (EMBEDDED_PRESET if self.data is None else OWN_DATA_PRESET)

    @property
    def chosen_rows(self) -> Literal["common", "all"]:
        """The rows that are asked for, or those of the data and experiments where none are."""
        if self.rows is not None:
            return self.rows
        is_of_paper = self.preset == "paper" or bool(set(self.experiments) & set(GROUP_NAMES))
        return "common" if self.data is None or is_of_paper else "all"

    @property
    def experiment_names(self) -> tuple[str, ...]:
        """The names of what is asked for; one made of `labels`, if that is how it was said."""
        if not self.labels:
            return self.experiments
        prefix = self.strategy or ("SF" if len(self.labels) == 1 else "MF")
        return ("-".join([prefix, *(f"{name}/{value}" for name, value in self.labels.items())]),)

    def level_names(self) -> Iterator[tuple[str, str]]:
        """Every name of a level that is a key, and the table where it stands."""
        tables: dict[str, object] = {
            "labels": self.labels,
            "data": self.data,
            "valid": self.valid,
            "keys": self.keys,
            "units": {name: value for name, value in self.units.items() if isinstance(value, dict)},
            "label_fractions": self.label_fractions,
            "weights": self.weights,
        }
        for name, test in self.tests.items():
            tables[f"tests.{name}.path"] = test.path
            tables[f"tests.{name}.keys"] = test.keys
        for place, table in tables.items():
            for level in table if isinstance(table, Mapping) else ():
                yield place, level

    def check_levels(self, levels: Levels) -> None:
        """Raise UserError for a key that is no level, or the same as another of its table."""
        seen: dict[tuple[str, Level], str] = {}
        for place, name in self.level_names():
            with errors_about(f"[{place}]"):
                level = levels.get(name)
                if (place, level) in seen:
                    raise UserError(f"level {level.id} is there twice, as {seen[place, level]} and "
                                    f"as {name}. Every level has one entry.")  # fmt: skip
            seen[place, level] = name
