"""Write a run file from data files, with a comment on every line."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from ase.data import atomic_numbers

from hippynn_mf.data.formats.declared import Declared, DeclaredData
from hippynn_mf.data.formats.sources import DataPath, split_source
from hippynn_mf.data.info import describe_file
from hippynn_mf.errors import UserError
from hippynn_mf.files import replace_when_complete, write_text
from hippynn_mf.hyperparameters import PRESETS, Hyperparameters
from hippynn_mf.runs.request import OWN_DATA_PRESET, Request
from hippynn_mf.runs.run_file import SCHEMA, SUFFIX, read_run_file

WIDTH = 98
OTHERWISE = (
    *("labels", "strategy", "tests", "hyperparameters", "label_fractions", "weights"),
    *("keys", "units"),
)
EXAMPLES = {"keys": '{}.energy = "dft_energy"', "units": 'energy = "kcal/mol"'}
PRESET = OWN_DATA_PRESET
# What is shown of keys that are files, and have no default.
PATHS = {"levels": "levels.json", "valid": "valid.xyz"}

DeclaredIn = Path | tuple[str, ...] | None  # a file, or labels in their order


def write_run_file(
    path: Path, data: DataPath, levels: DeclaredIn = None, *, with_schema: bool = False
) -> None:
    """Write a run file that trains on data files; `levels` declares levels of the user's own.

    With `with_schema`, the JSON schema of run files lies beside it, which its first line names.

    Raises UserError for a file that exists, and for data that cannot be read.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"The name of a run file ends in {SUFFIX}; found {path.name}.")
    if path.exists():
        raise UserError(f"{path} exists. Choose another name, or remove it first.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"There is no folder {path.parent}. Make it first.")
    data, declared = split_source(data)
    known = Request.of({} if levels is None else {"levels": levels}).known
    text = (
        "\n".join(
            _lines(
                describe_file(DeclaredData(data, declared) if declared else data, levels=known),
                data,
                declared,
                levels,
                path.absolute().parent,
            )
        )
        + "\n"
    )
    if with_schema:
        text = f"#:schema {SCHEMA.name}\n{text}"
        write_text(path.with_name(SCHEMA.name), SCHEMA.read_text(encoding="utf-8"))
    with replace_when_complete(path) as partial:
        partial.write_text(text, encoding="utf-8")
    read_run_file(path)


def _lines(
    info: Mapping[str, Any],
    data: Path | Mapping[str, Path],
    declared: Declared,
    levels: DeclaredIn,
    folder: Path,
) -> Iterator[str]:
    yield from _comment("A run file of hippynn-mf: 'hippynn-mf train' or 'campaign' with its name.")
    yield from _comment("Lines that begin with # and a key are defaults. Paths start at the folder "
                        "of this file.")  # fmt: skip
    yield ""
    described = "; ".join(
        f"{entry['label']} has {entry['energy']} energies and {entry['forces']} forces"
        for entry in info["levels"].values()
    )
    yield from _comment(f"The data: {info['n_structures']} structures of "
                        f"{', '.join(info['elements'])}. {described}.")  # fmt: skip
    counts = f"Here {info['n_structures'] - info['n_unlabelled']} have any label."
    if len(info["levels"]) > 1:
        counts += f" {info['n_common']} have the energies of every level of the data."
    proposed = {
        "experiments": [_experiment(info)],
        "rows": "all",
        "levels": _relative(levels, folder) if isinstance(levels, Path) else levels,
        "data": _relative(data, folder) if isinstance(data, Path) else None,
        "out": "results",
        "seeds": [0],
        "preset": PRESET,
    }
    more = {"rows": counts, "experiments": "Others of these data are spelt alike."}
    for name, field in Request.model_fields.items():
        if name in OTHERWISE:
            continue  # tables, which come last; and another way to say the experiments
        if name == "data" and not isinstance(data, Path):
            continue
        yield ""
        yield from _comment(f"{field.description} {more.get(name, '')}")
        value = proposed.get(name)
        if value is not None:
            yield f"{name} = {_toml(value)}"
        elif name in PATHS:
            yield f"# {name} = {_toml(PATHS[name])}"
        else:
            yield f"# {name} = {_toml(field.default)}"
    yield from _tables(info, data, declared, folder)


def _tables(
    info: Mapping[str, Any], data: Path | Mapping[str, Path], declared: Declared, folder: Path
) -> Iterator[str]:
    first = next(iter(info["levels"].values()))["label"]
    if not isinstance(data, Path):
        yield ""
        yield from _comment("Training data: the file of each level.")
        yield "[data]"
        for level, file in data.items():
            yield f"{_key(level)} = {_toml(_relative(file, folder))}  # the labels of {level}"
    for name, lines in (
        ("keys", [f"{_key(level)}.{kind} = {_toml(key)}" for level, kind, key in declared.keys]),
        (
            "units",
            [
                f"{_key(level) + '.' if level else ''}{quantity} = {_toml(unit)}"
                for level, quantity, unit in declared.units
            ],
        ),
    ):
        yield ""
        yield from _comment(str(Request.model_fields[name].description))
        yield f"[{name}]"
        yield from lines or [f"# {EXAMPLES[name].format(_key(first))}"]
    yield ""
    yield from _comment(str(Request.model_fields["label_fractions"].description))
    yield "[label_fractions]"
    yield f"# {_key(first)} = 0.3  # between 0 and 1"
    yield ""
    yield from _comment(str(Request.model_fields["weights"].description))
    yield "[weights]"
    yield f"# {_key(first)}.energy = 2"
    yield ""
    yield from _comment(str(Request.model_fields["tests"].description))
    yield "# [tests.mine]"
    yield '# path = "mine.xyz"  # as the training data'
    yield ""
    yield from _comment("Hyperparameters: what differs from the preset. Lengths in Å, energies in "
                        "kcal/mol.")  # fmt: skip
    yield "[hyperparameters]"
    species = [0, *sorted(atomic_numbers[symbol] for symbol in info["elements"])]
    preset = PRESETS[PRESET].model_dump(mode="json") | {"species": species}
    for name, field in Hyperparameters.model_fields.items():
        yield from _comment(str(field.description))
        yield f"# {name} = {_toml(preset[name])}"


def _experiment(info: Mapping[str, Any]) -> str:
    """An experiment that the data can train: the lowest level, and the highest if there are two."""
    entries = [entry for entry in info["levels"].values() if entry["energy"]]
    if not entries:
        raise UserError(f"{info['file']} has no energy of any level, so nothing can be trained.")
    chosen = [entries[0], entries[-1]] if len(entries) > 1 else entries
    parts = [f"{entry['label']}/{'EF' if entry['forces'] else 'E'}" for entry in chosen]
    return "-".join(["MF" if len(chosen) > 1 else "SF", *parts])


def _relative(path: Path, folder: Path) -> str:
    """A path as it starts at the folder of the run file, or absolute where that is not shorter."""
    path = path.absolute()
    try:
        return path.relative_to(folder).as_posix()
    except ValueError:
        pass
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return path.as_posix()


def _comment(text: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    if isinstance(value, Path):
        value = value.as_posix()
    return tomlkit.item(list(value) if isinstance(value, tuple) else value).as_string()


def _key(name: str) -> str:
    return tomlkit.key(name).as_string()
