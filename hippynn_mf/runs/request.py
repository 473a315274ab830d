"""From what a user asks for to the settings of every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES, MINI_COMP6, MINI_COMP6_KEYS
from hippynn_mf.data.formats.ani1x import Rows
from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, read_key_map
from hippynn_mf.data.formats.sources import DataPath
from hippynn_mf.data.fractions import resolve_fractions
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.hyperparameters import Hyperparameters, get_hyperparameters
from hippynn_mf.labels import join_labels
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import Level, Levels, known_levels
from hippynn_mf.runs.experiment import Experiment
from hippynn_mf.runs.settings import DataSource, RunSettings, TestSource

ENERGY_CUT_KCAL_PER_MOL = 100.0  # the paper's, above a molecule's minimum


def build_settings(
    experiments: Sequence[Experiment],
    seeds: Sequence[int],
    *,
    data: DataPath | None = None,
    comp6: Path | None = None,
    comp6_keys: Path | None = None,
    energy_cut_kcal_per_mol: float = ENERGY_CUT_KCAL_PER_MOL,
    test_file: DataPath | None = None,
    preset: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    rows: str = "common",
    common_levels: Sequence[Level] | None = None,
    split_seed: int = 0,
    label_fractions: Mapping[str, float] | None = None,
    device: str = "auto",
) -> list[RunSettings]:
    """Settings of every experiment with every seed, seeds outermost.

    Args:
        experiments: what to train.
        seeds: each changes weights and batch order only.
        data: a file in the ANI-1x layout or extended XYZ, or one extended XYZ file for each level;
            None for the embedded data with its COMP6 and test files.
        comp6: a file or folder in the COMP6 layout.
        comp6_keys: a key map for `comp6`; None for the public layout.
        energy_cut_kcal_per_mol: COMP6 conformers above their minimum that count.
        test_file: further data as `data`, that are evaluated on and never trained on.
        preset, overrides: hyperparameters.
        rows, split_seed, device: as the command line's.
        label_fractions: level → fraction of its labels to train and validate on.
        common_levels: those of all experiments; None for each experiment's own.

    Raises:
        UserError: for anything unknown, missing or asked for twice.
    """
    if rows not in get_args(Rows):
        raise UserError(unknown_name_message("choice of rows", rows, get_args(Rows)))
    if comp6_keys is not None and comp6 is None:
        raise UserError("A COMP6 key map was given without a COMP6 file; add --comp6.")
    names = {"seed": [str(seed) for seed in seeds], "experiment": [e.name for e in experiments]}
    for what, items in names.items():
        repeated = sorted({item for item in items if items.count(item) > 1})
        if repeated:
            raise UserError(f"Asked for twice: {what} {', '.join(repeated)}.")
    if data is None and comp6 is None:
        comp6, comp6_keys = MINI_COMP6, MINI_COMP6_KEYS
    if data is None and test_file is None:
        test_file = MINI_CC_FORCES
    known = Levels(known_levels())
    labels = join_labels(*(experiment.resolved_labels for experiment in experiments))
    fractions = resolve_fractions(label_fractions or {}, labels)
    hyperparameters = get_hyperparameters(preset, overrides)
    data_source = DataSource.of(MINI_ANI1X if data is None else data, levels=known)
    tests: list[TestSource] = []
    if comp6 is not None:
        keys = PUBLIC_KEYS if comp6_keys is None else read_key_map(comp6_keys, levels=known)
        if not any(keys.values()):
            raise UserError(f"The key map {comp6_keys} names no key of {comp6}; name at least one.")
        cut = energy_cut_kcal_per_mol
        tests.append(TestSource.of("comp6", comp6, keys=keys, energy_cut=cut, levels=known))
    if test_file is not None:
        name = "cc-forces" if test_file == MINI_CC_FORCES else "test_file"
        tests.append(TestSource.of(name, test_file, levels=known))
    return [
        RunSettings(
            name=experiment.name,
            strategy=experiment.strategy.prefix,
            slug=experiment.slug,
            labels={level.id: value.value for level, value in experiment.resolved_labels.items()},
            levels=tuple(LevelRecord.of(level) for level in known),
            common_levels=tuple(
                level.id
                for level in (experiment.common_levels if common_levels is None else common_levels)
            ),
            seed=seed,
            split_seed=split_seed,
            label_fractions={level.id: fraction for level, fraction in fractions.items()},
            rows=rows,
            preset=preset,
            hyperparameters=of_strategy(experiment, hyperparameters, overrides or {}),
            data=data_source,
            tests=tuple(tests),
            device=device,
        )
        for seed in seeds
        for experiment in experiments
    ]


def of_strategy(
    experiment: Experiment, hyperparameters: Hyperparameters, asked: Mapping[str, Any]
) -> Hyperparameters:
    """The hyperparameters with those that the experiment's strategy stands for.

    Raises UserError if another value of one was `asked` for.
    """
    strategy = experiment.strategy
    for name, value in strategy.overrides.items():
        if name in asked and asked[name] != value:
            raise UserError(
                f"{experiment.name} stands for {name}={value}; found --set {name}={asked[name]}. "
                "Leave it out, or choose another experiment."
            )
    return hyperparameters.model_copy(update=dict(strategy.overrides))
