"""From what a user asks for to the settings of every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES, MINI_COMP6, MINI_COMP6_KEYS
from hippynn_mf.data.formats.ani1x import labels_in_file
from hippynn_mf.data.formats.comp6 import PUBLIC_KEYS, KeyMap, check_key_map, read_key_map
from hippynn_mf.data.formats.declared import KeyTable, UnitTable
from hippynn_mf.data.formats.held_elements import elements_in
from hippynn_mf.data.formats.sources import DataPath
from hippynn_mf.data.fractions import resolve_fractions
from hippynn_mf.errors import UserError
from hippynn_mf.evaluation.layouts import find_layout
from hippynn_mf.hyperparameters import Hyperparameters, get_hyperparameters
from hippynn_mf.labels import has_stress, join_labels, labels_by_id
from hippynn_mf.level_records import LevelRecord
from hippynn_mf.levels import Levels
from hippynn_mf.runs.experiment import Experiment, parse_experiment
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.request_fields import COMP6, ENERGY_CUT_KCAL_PER_MOL, RequestedTest
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.sources import DataSource, TestSource
from hippynn_mf.runs.weights import refuse_untrained, resolve_weights

# Presets whose species are those of the paper, whatever the data hold.
OWN_SPECIES = ("quick", "paper")

# The tests that the embedded data have.
EMBEDDED_TESTS: Mapping[str, RequestedTest] = {
    "comp6": RequestedTest(
        path=MINI_COMP6, keys=MINI_COMP6_KEYS, energy_cut_kcal_per_mol=ENERGY_CUT_KCAL_PER_MOL
    ),
    "cc-forces": RequestedTest(path=MINI_CC_FORCES),
}


def build_settings(
    request: Request,
    experiments: Sequence[Experiment] | None = None,
    *,
    levels: Levels | None = None,
) -> list[RunSettings]:
    """Settings of every experiment with every seed, split seeds outermost, then seeds.

    `experiments` are those of the request, where its names were looked up among known ones; without
    them every name must spell its experiment. `levels` are the known ones, by default those of the
    request. Raises UserError for anything unknown, missing or asked for twice.
    """
    levels = request.known if levels is None else levels
    request.check_levels(levels)
    if experiments is None:
        experiments = [parse_experiment(name, levels=levels) for name in request.experiment_names]
    names = [experiment.name for experiment in experiments]
    if not names:
        raise UserError("Nothing is asked for: name experiments, or labels.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"Asked for twice: experiment {', '.join(repeated)}.")
    labels = join_labels(*(experiment.resolved_labels for experiment in experiments))
    if request.ignore_cell and has_stress(labels):
        named = ", ".join(level.label for level, wanted in labels.items() if wanted.stress)
        raise UserError(
            f"--ignore-cell reads structures as molecules, which have no stress, and the stress of "
            f"{named} is to be trained on. Leave one of them out."
        )
    fractions = resolve_fractions(request.label_fractions, labels, levels=levels)
    weights = resolve_weights(request.weights, labels, levels=levels)
    preset = request.chosen_preset
    hyperparameters = get_hyperparameters(preset, request.hyperparameters)
    for experiment in experiments:
        refuse_untrained(experiment.resolved_labels, weights, hyperparameters, experiment.name)
    data: DataPath = MINI_ANI1X if request.data is None else request.data
    keys, units = request.keys, request.units
    source = DataSource.of(data, levels=levels, keys=keys, units=units)
    tests = requested_sources(request, levels)
    valid = (
        None
        if request.valid is None
        else DataSource.of(request.valid, levels=levels, keys=keys, units=units)
    )
    if preset not in OWN_SPECIES and "species" not in request.hyperparameters:
        files = [*tests, *([] if valid is None else [valid]), source]
        held = [elements_in(each.data, levels=levels) for each in files]  # the data last: are kept
        if any(held):  # else whoever reads the files says what is wrong
            species = (0, *sorted(frozenset[int]().union(*held)))
            hyperparameters = hyperparameters.model_copy(update={"species": species})
    # With levels of one's own, all experiments on the same data have the same common structures.
    common = None if request.levels is None else tuple(labels_in_file(source.data, levels=levels))
    return [
        RunSettings(
            name=experiment.name,
            strategy=experiment.strategy.prefix,
            slug=experiment.slug,
            labels=labels_by_id(experiment.resolved_labels),
            levels=tuple(LevelRecord.of(level) for level in levels),
            common_levels=tuple(level.id for level in common or experiment.common_levels),
            seed=seed,
            split_seed=split_seed,
            split=request.split,
            valid=valid,
            label_fractions={level.id: fraction for level, fraction in fractions.items()},
            rows=request.chosen_rows,
            accept_outliers=request.accept_outliers,
            accept_charged=request.accept_charged,
            ignore_cell=request.ignore_cell,
            weights=weights,
            preset=preset,
            hyperparameters=strategy_hyperparameters(
                experiment, hyperparameters, request.hyperparameters
            ),
            data=source,
            tests=tests,
            device=request.device,
        )
        for split_seed in request.split_seeds or (request.split_seed,)
        for seed in request.seeds
        for experiment in experiments
    ]


def strategy_hyperparameters(
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


def requested_tests(request: Request) -> dict[str, RequestedTest]:
    """The tests of a request with those of the embedded data, from which its own take what is left.

    Raises UserError for a test without a file.
    """
    tests = dict(EMBEDDED_TESTS) if request.data is None else {}
    for name, test in request.tests.items():
        before = tests.get(name)
        tests[name] = before.model_copy(update=_said(test)) if before and not test.path else test
        if tests[name].path is None:
            remedy = "add --comp6 FILE" if name == "comp6" else f"add --test {name}=FILE"
            raise UserError(f"The test {name} has no file; {remedy}, or path in [tests.{name}].")
    return tests


def _said(test: RequestedTest) -> dict[str, Any]:
    return {name: getattr(test, name) for name in test.model_fields_set}


def requested_sources(request: Request, levels: Levels) -> tuple[TestSource, ...]:
    """The source of every test of a request."""
    keys, units = (request.keys, request.units) if request.data is not None else ({}, {})
    return tuple(
        requested_source(name, test, levels, keys=keys, units=units)
        for name, test in requested_tests(request).items()
    )


def requested_source(
    name: str,
    test: RequestedTest,
    levels: Levels,
    *,
    keys: KeyTable | None = None,
    units: UnitTable | None = None,
) -> TestSource:
    """The source of a test with its file; a UserError for what cannot be a test.

    Of a test that is not in the COMP6 layout and declares neither keys nor units, they are those
    of the data, `keys` and `units`.
    """
    if test.path is None:
        raise UserError(f"The test {name} has no file.")
    own: KeyMap | None = PUBLIC_KEYS if name == COMP6 else None
    if isinstance(test.keys, Path):
        own = read_key_map(test.keys, levels=levels)
    elif test.keys is not None:
        own = check_key_map(test.keys, f"[tests.{name}.keys]", levels=levels)
    if own is not None and not any(own.values()):
        raise UserError(f"The key map {test.keys} names no key of {test.path}; name at least one.")
    of_test: UnitTable = test.units
    if own is None and not of_test and find_layout(test.path) != "comp6":
        own, of_test = keys or None, units or {}
    cut = test.energy_cut_kcal_per_mol
    return TestSource.of(name, test.path, keys=own, units=of_test, energy_cut=cut, levels=levels)
