"""Run files: what a user asks for, as TOML with the fields of `Request`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import KeyAlreadyPresent, ParseError

from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.files import exists, read_text
from hippynn_mf.hyperparameters import Hyperparameters, get_hyperparameters
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.wrong_keys import known_keys, unknown_key

SUFFIX = ".toml"
SCHEMA = Path(__file__).with_name("run-file.schema.json")


def read_run_file(path: Path, *, replaced: Collection[str] = ()) -> Request:
    """The request of a run file; paths in it start at its folder.

    Of the fields in `replaced` files need not exist. Raises UserError for anything that is not
    right, naming file, table and key.
    """
    values = _read_toml(path)
    with errors_about(path):
        request = Request.of(values, folder=path.parent)
        _check_hyperparameters(request)
        for key, file in _files(request):
            if key.split(".")[0] not in replaced and not file.exists():
                home = " '~' stands for itself there." if "~" in str(file) else ""
                raise UserError(
                    f"{key}: there is no file {file}. Paths in a run file start at its folder, "
                    f"{path.absolute().parent}.{home}"
                )
    return request


def merged(request: Request, changes: Mapping[str, Any]) -> Request:
    """A request with other values, of tables those that are named.

    `experiments` take the place of `labels`, and the other way round.
    """
    values = {name: getattr(request, name) for name in request.model_fields_set}
    if "experiments" in changes:
        values = {n: v for n, v in values.items() if n not in ("labels", "strategy")}
    elif "labels" in changes:
        values.pop("experiments", None)
    for name, value in changes.items():
        if name in ("hyperparameters", "label_fractions"):
            values[name] = {**values.get(name, {}), **value}
        elif name == "weights":
            before = {
                level: w.model_dump(exclude_none=True) for level, w in request.weights.items()
            }
            values[name] = before | {level: before.get(level, {}) | w for level, w in value.items()}
        elif name in ("keys", "units"):
            values[name] = _merged_tables(values.get(name, {}), value)
        elif name == "tests":
            values[name] = _merged_tests(values.get(name, {}), value)
        else:
            values[name] = value
    return Request.of(values)


def json_schema() -> dict[str, Any]:
    """The JSON schema of run files, with which editors complete and check them."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema = Request.model_json_schema()
    schema["title"], schema["description"] = "hippynn-mf run file", str(Request.__doc__)
    return head | schema


def schema_text() -> str:
    """The schema as it is committed beside this module."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _read_toml(path: Path) -> dict[str, Any]:
    if not exists(path):
        raise UserError(
            f"No run file {path}. 'hippynn-mf new {path} DATA' writes one from data files."
        )
    text = read_text(path, "a run file (TOML)")
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers of too many digits
        raise UserError(f"{path} is not TOML: {_repeated(text) or error}.") from None
    if not values:
        raise UserError(
            f"{path} asks for nothing. It should name experiments, as "
            'experiments = ["MF-DZ/EF-CC/E"], or [labels].'
        )
    return values


def _repeated(text: str) -> str | None:
    """The key or table that is there twice, which tomllib does not name."""
    try:
        tomlkit.parse(text)
    except (KeyAlreadyPresent, ParseError) as error:
        if isinstance(error, KeyAlreadyPresent) or "exist" in str(error):
            found = str(error).removesuffix(" col 0").rstrip(".").replace(". at line", ", in line")
            return f"{found}; keep one"
    except (ValueError, RecursionError):
        pass
    return None


def _check_hyperparameters(request: Request) -> None:
    known = list(Hyperparameters.model_fields)
    for name in request.hyperparameters:
        if name not in known:
            raise UserError(unknown_key("hyperparameters", name, known, dict(known_keys(Request))))
    with errors_about("[hyperparameters]"):
        get_hyperparameters(request.chosen_preset, request.hyperparameters)


def _files(request: Request) -> Iterator[tuple[str, Path]]:
    """Every file that is read, with the key that names it."""
    named: dict[str, Any] = {"data": request.data, "levels": request.levels}
    for name, test in request.tests.items():
        named |= {f"tests.{name}.path": test.path, f"tests.{name}.keys": test.keys}
    for key, value in named.items():
        items = value.items() if isinstance(value, Mapping) else [("", value)]
        for level, file in items:
            if isinstance(file, Path):
                yield f"{key}.{level}".rstrip("."), file


def _merged_tables(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table of values and tables with changes in either."""
    merged: dict[str, Any] = dict(before)
    for name, value in changes.items():
        old = merged.get(name)
        is_table = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[name] = {**old, **value} if is_table else value  # type: ignore[dict-item]
    return merged


def _merged_tests(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    tests = {name: test.model_dump(exclude_unset=True) for name, test in before.items()}
    for name, change in changes.items():
        tests[name] = {**tests.get(name, {}), **change}
    return tests
