"""What is wrong with a request, in words: table and key, and the nearest known ones."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from hippynn_mf.errors import unknown_name_message

# Which form of a field was taken to be meant, which pydantic puts into the place of an error.
FORMS = {"file", "table", "records", "[key]"}
FORM_WORDS = {
    "file": "a path in quotes",
    "table": "a table",
    "records": "tables in double brackets as [[levels]]",
}
N_SHOWN = 3
# In the words of TOML, where pydantic's are Python's.
EXPECTED = {
    "path_type": "a path in quotes was expected",
    "string_type": "a text in quotes was expected",
    "tuple_type": "a list in [brackets] was expected",
    "dict_type": "a table was expected",
    "model_type": "a table was expected",
    "int_type": "a whole number was expected",
    "float_type": "a number was expected",
    "float_parsing": "a number was expected",
    "bool_type": "true or false was expected",
}


def describe_problems(error: ValidationError, model: type[BaseModel]) -> str:
    """Every problem in one line of text, the first ones first."""
    # What is misspelt explains what is missing.
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    texts = [_describe(problem, model) for problem in problems[:N_SHOWN]]
    if len(problems) > N_SHOWN:
        texts.append(f"{len(problems) - N_SHOWN} more")
    return " ".join(texts)


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every table that a run file may have, "" being its top, and the keys of each."""
    yield prefix, list(model.model_fields)
    for name, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield from known_keys(inner, f"{prefix}.{name}".lstrip("."))


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field may hold, in a list, in a table, or as one of several forms."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if typing.get_origin(annotation) is typing.Literal:
        return []
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def unknown_key(place: str, key: str, known: list[str], tables: Mapping[str, list[str]]) -> str:
    """Message for a key that its table does not have, which tells where it belongs."""
    where = f"[{place}] has no key" if place else "there is no key"
    message = unknown_name_message("key", key, known).removeprefix(f"Unknown key {key!r}.").strip()
    for table, keys in tables.items():
        if table != place and key in keys:
            if not table:
                home = "stands at the top of the file, before the first [table]"
            else:
                home = f"belongs into [{table}]"
            return f"{where} {key!r}; {key} {home}. {message}"
    return f"{where} {key!r}. {message}"


def _describe(problem: Any, model: type[BaseModel]) -> str:
    *table, key = [part for part in problem["loc"] if part not in FORMS] or [""]
    place = ".".join(str(part) for part in table if not isinstance(part, int))
    if problem["type"] == "extra_forbidden":
        return unknown_key(place, str(key), _keys_at(table, model), _all_tables(model))
    path = ".".join(str(part + 1 if isinstance(part, int) else part) for part in (*table, key))
    if problem["type"] == "literal_error":
        expected = str(problem["ctx"]["expected"])
        known = [text for text in expected.split("'") if text.strip(" ,") not in ("", "or")]
        return unknown_name_message(f"value of {path}", str(problem["input"]), known)
    if "[key]" in problem["loc"]:
        return f"[{place}]: {key!r} is no name for an entry: {_message(problem)}."
    if not path:  # of several fields together
        return _message(problem)
    if problem["type"] == "missing":
        return f"[{place}] lacks the key {key!r}."
    return f"{path} = {_shown(problem['input'])}: {_message(problem)}."


def _message(problem: Any) -> str:
    if problem["type"] == "union_tag_invalid":
        tags = str(problem["ctx"]["expected_tags"]).replace("'", "").split(", ")
        return f"{' or '.join(FORM_WORDS[tag] for tag in tags)} was expected"
    message = EXPECTED.get(problem["type"], problem["msg"])
    return str(message).removeprefix("Value error, ")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _keys_at(table: list[Any], model: type[BaseModel]) -> list[str]:
    """The keys of a table, given by names on the way to it; names of the user's own are skipped."""
    for part in table:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        inner = models_in(field.annotation) if field is not None else []
        model = inner[0] if inner else model
    return list(model.model_fields)


def _all_tables(model: type[BaseModel]) -> dict[str, list[str]]:
    from hippynn_mf.hyperparameters import Hyperparameters

    return dict(known_keys(model)) | {"hyperparameters": list(Hyperparameters.model_fields)}
