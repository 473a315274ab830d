"""Texts of the command line, and the values of a request that they stand for."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hippynn_mf.errors import UserError, shown, unknown_name_message
from hippynn_mf.runs.request_fields import COMP6, Flag
from hippynn_mf.runs.weights import parse_weights

logger = logging.getLogger(__name__)

RUN_FILE_SUFFIX = ".toml"
# Experiments are no paths, although they have slashes.
EXPERIMENT = re.compile(r"[A-Z]+-.*/(E|EFS?)")
KEY = re.compile(r"[^=]+\.[a-z]+=")


def parameter_name(flag: Flag) -> str:
    """The name of a flag as a parameter, as `label_fraction`."""
    return flag.names[0].lstrip("-").replace("-", "_")


def split_words(words: Sequence[object]) -> tuple[Path | None, list[str], list[str]]:
    """Arguments apart: the run file if there is one, names, and LEVEL=FILE of --train."""
    run_files: list[Path] = []
    names: list[str] = []
    files: list[str] = []
    for word in map(str, words):
        path = Path(word)
        if word.endswith(RUN_FILE_SUFFIX):
            run_files.append(path)
        elif "=" in word and not path.exists():
            files.append(word)
        elif path.is_file() and not EXPERIMENT.fullmatch(word):
            raise UserError(
                f"{word} is a file, but no run file, whose name ends in {RUN_FILE_SUFFIX}. "
                f"Training data are named by --data {word}."
            )
        else:
            names.append(word)
    if len(run_files) > 1:
        raise UserError(f"One run file at a time; found {' and '.join(map(str, run_files))}.")
    return (run_files[0] if run_files else None), names, files


def split_files(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of models and folders, and LEVEL=FILE of --train."""
    is_file = ["=" in word and not Path(word).exists() for word in words]
    names = [word for word, known in zip(words, is_file, strict=True) if not known]
    return names, [word for word, known in zip(words, is_file, strict=True) if known]


def read_values(
    flags: Mapping[str, Any], names: Sequence[str] = (), files: Sequence[str] = ()
) -> dict[str, Any]:
    """Values of the fields that options and arguments name; of no others.

    Raises UserError for texts of another form.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    values: dict[str, Any] = {
        name: given.pop(name)
        for name in (*("strategy", "preset", "rows", "split", "split_seed", "device", "out"),)
        if name in given
    }
    if "key" in given:  # more of which may follow, as of --train
        given["key"] = [*given["key"], *(text for text in files if KEY.match(text))]
        files = [text for text in files if not KEY.match(text)]
    experiments = [*names]
    if "experiments" in given:
        experiments += parse_names(given.pop("experiments"), "--experiments")
    tests = _parse_tests(given.pop("test", []), given)
    readers: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "label": ("labels", _parse_labels),
        "set": ("hyperparameters", parse_overrides),
        "label_fraction": ("label_fractions", parse_fractions),
        "weight": ("weights", parse_weights),
        "key": ("keys", parse_keys),
        "units": ("units", parse_units),
        "seeds": ("seeds", parse_seeds),
        "split_seeds": ("split_seeds", parse_seeds),
        "valid_file": ("valid", Path),
        "levels": ("levels", parse_levels),
    }
    for name, (field, read) in readers.items():
        if name in given:
            values[field] = read(given.pop(name))
    data = _parse_data(given.pop("data", None), given.pop("train", None), files)
    # What no reader takes is a field as it is; an unknown one is refused with the request.
    values |= given
    parsed = {"experiments": tuple(experiments), "data": data, "tests": tests}
    return values | {name: value for name, value in parsed.items() if value}


def parse_names(text: str, option: str) -> list[str]:
    """Names with commas between, each once; UserError names the option."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(f"{option} expects names with commas between; found {text!r}.")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{option} names {', '.join(repeated)} twice: {text!r}.")
    return names


def parse_levels(text: str | Path) -> Path | tuple[str, ...]:
    """A file that declares levels, or their labels with commas between, the least accurate first.

    What is no file, and looks like none, is labels.
    """
    path = Path(text)
    if path.exists() or path.suffix:
        return path
    return tuple(parse_names(str(text), "--levels"))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds from numbers with commas between."""
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--seeds expects whole numbers as 0,1,2; found {shown(text)}.") from None
    if any(seed < 0 for seed in seeds):
        raise UserError(f"Seeds are not negative; found {text!r}.")
    return seeds


def parse_overrides(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Hyperparameters from NAME=VALUE, values as JSON or else as text; of a name twice the last."""
    overrides: dict[str, Any] = {}
    for pair in pairs or []:
        name, separator, text = pair.partition("=")
        if not separator:
            raise UserError(
                f"--set expects NAME=VALUE, found {pair!r}. 'hippynn-mf settings' lists the names."
            )
        if name in overrides:
            logger.warning("--set names %s more than once; the last, %s, counts.", name, text)
        try:
            overrides[name] = json.loads(text)
        except ValueError:
            overrides[name] = text
    return overrides


def parse_fractions(pairs: Sequence[str]) -> dict[str, float]:
    """Fractions of labels from LEVEL=FRACTION."""
    fractions: dict[str, float] = {}
    for pair in pairs:
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


def parse_keys(pairs: Sequence[str]) -> dict[str, dict[str, str]]:
    """Names in files from LEVEL.KIND=NAME, by level and kind."""
    from hippynn_mf.data.formats.kinds import PROPERTIES

    keys: dict[str, dict[str, str]] = {}
    for pair in pairs:
        left, _, name = pair.partition("=")
        level, _, kind = left.rpartition(".")
        if not level or not kind or not name:
            raise UserError(
                f"--key expects LEVEL.KIND=NAME, as DFT.energy=dft_energy; found {pair!r}."
            )
        if kind not in PROPERTIES:
            raise UserError(f"--key {pair}: {unknown_name_message('kind', kind, PROPERTIES)}")
        before = keys.setdefault(level, {}).setdefault(kind, name)
        if before != name:
            raise UserError(
                f"--key names the {kind} of {level} twice, as {before} and as {name}. A label has "
                "one key."
            )
    return keys


def parse_units(pairs: Sequence[str]) -> dict[str, str | dict[str, str]]:
    """Units of files from KIND=UNIT, or of a level from LEVEL.KIND=UNIT."""
    units: dict[str, Any] = {}
    for pair in pairs:
        left, _, unit = pair.partition("=")
        level, _, kind = left.rpartition(".")
        if not kind or not unit:
            raise UserError(
                f"--units expects KIND=UNIT, as energy=kcal/mol or forces=hartree/bohr; found "
                f"{pair!r}."
            )
        of_level = units.setdefault(level, {}) if level else units
        if of_level.setdefault(kind, unit) != unit:
            raise UserError(f"--units names {left} twice, as {of_level[kind]} and as {unit}.")
    from hippynn_mf.data.formats.declared import Declared

    Declared.of(units=units)  # what is wrong is said with the option at hand
    return units


def parse_level_files(texts: Sequence[str]) -> dict[str, Path]:
    """Level → file from texts as `DZ=a.xyz`; UserError for anything else."""
    files: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise UserError(f"LEVEL=FILE was expected, as DZ=dz.xyz; found {text!r}.")
        if name in files:
            raise UserError(f"Level {name} has two files, {files[name]} and {path}.")
        files[name] = Path(path)
    return files


def parse_source(texts: Sequence[str]) -> Path | dict[str, Path]:
    """Data from one file, or LEVEL=FILE for every level."""
    if len(texts) == 1 and ("=" not in texts[0] or Path(texts[0]).exists()):
        return Path(texts[0])
    if not all("=" in text for text in texts):
        raise UserError(f"One file, or LEVEL=FILE for each level, was expected: {' '.join(texts)}.")
    return parse_level_files(texts)


def _parse_labels(pairs: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or name in labels:
            raise UserError(f"--label expects LEVEL=E, EF or EFS, each level once; found {pair!r}.")
        labels[name] = value
    return labels


def _parse_data(
    data: str | None, train: Sequence[str] | None, more: Sequence[str]
) -> Path | dict[str, Path] | None:
    """The training data from --data, or from --train and the files that follow it."""
    if train is None:
        if more:
            raise UserError(f"Unexpected: {' '.join(more)}. Files of levels follow --train.")
        return None if data is None else Path(data)
    if data is not None:
        raise UserError("--data and --train both name the training data. Leave one out.")
    return parse_level_files([*train, *more])


def _parse_tests(texts: Sequence[str], given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Tests from NAME=FILE or NAME=LEVEL:FILE, and from the options of COMP6, which are removed."""
    tests: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, separator, rest = text.partition("=")
        if not separator or not rest:
            raise UserError(f"--test expects NAME=FILE or NAME=LEVEL:FILE; found {text!r}.")
        level, colon, file = rest.partition(":")
        is_of_level = (
            bool(colon) and not Path(rest).exists() and "/" not in level and len(level) > 1
        )
        before = tests.get(name, {}).get("path", {})
        if before and not (is_of_level and isinstance(before, dict) and level not in before):
            raise UserError(f"--test names {name} twice: {text!r}. Tests have different names.")
        tests[name] = {"path": {**before, level: Path(file)} if is_of_level else Path(rest)}
    comp6 = {
        key: given.pop(option)
        for option, key in (
            ("comp6", "path"),
            ("comp6_keys", "keys"),
            ("energy_cut", "energy_cut_kcal_per_mol"),
        )
        if option in given
    }
    if comp6 and COMP6 in tests:
        raise UserError("--comp6 and --test comp6=FILE are the same test. Leave one out.")
    return tests | ({COMP6: comp6} if comp6 else {})
