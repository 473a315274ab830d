"""What can be asked for, in words for people: made from `Request` and `Hyperparameters`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hippynn_mf.hyperparameters import PRESETS, Hyperparameters
from hippynn_mf.runs.request import Request
from hippynn_mf.runs.request_fields import DeclaredLevel, Flag, RequestedTest
from hippynn_mf.runs.wrong_keys import models_in

WIDTH = 92


@dataclass(frozen=True)
class SettingRow:
    """A setting: its name, what it may be, its defaults by preset or alone, and its meaning."""

    name: str
    kind: str
    defaults: dict[str, Any]
    description: str
    flags: tuple[str, ...] = ()


def hyperparameter_rows() -> list[SettingRow]:
    """Every hyperparameter with its value in each preset."""
    presets = {name: preset.model_dump(mode="json") for name, preset in PRESETS.items()}
    return [
        SettingRow(row.name, row.kind, {p: presets[p][row.name] for p in presets}, row.description)
        for row in field_rows(Hyperparameters)
    ]


def field_rows(model: type[BaseModel]) -> list[SettingRow]:
    """Every field of a model."""
    schema = model.model_json_schema()
    rows = []
    for name, field in model.model_fields.items():
        flags = tuple("/".join(flag.names) for flag in field.metadata if isinstance(flag, Flag))
        defaults = {} if field.is_required() or not _says(field.default) else {"": field.default}
        inner = " of tables" if models_in(field.annotation) else ""
        kind = _kind(schema["properties"][name]) + inner
        description = field.description or ""
        rows.append(SettingRow(name, kind, defaults, description, flags))
    return rows


def format_hyperparameters(rows: Sequence[SettingRow]) -> str:
    """Hyperparameters as text, one after another."""
    lines = [
        "Hyperparameters, for --set NAME=VALUE or [hyperparameters] of a run file. Lengths are in "
        "Å, energies in kcal/mol.",
        "",
    ]
    for row in rows:
        quick, others = row.defaults["quick"], list(row.defaults.items())
        of_presets = ", ".join(f"{name} {value}" for name, value in others)
        default = f"{quick}" if all(value == quick for _, value in others) else of_presets
        lines.append(f"{row.name}  ({row.kind}; {default})")
        lines += textwrap.wrap(row.description, WIDTH, initial_indent="    ",
                               subsequent_indent="    ")  # fmt: skip
    return "\n".join(lines)


def settings_page() -> str:
    """The settings page of the documentation, as Markdown."""
    lines = [
        "| key of a run file | option | default | meaning |",
        "|---|---|---|---|",
        *(_markdown(row) for row in field_rows(Request)),
        "",
        "A test, `[tests.NAME]`:",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *(_markdown(row, with_flags=False) for row in field_rows(RequestedTest)),
        "",
        "A level of your own, `[[levels]]`, of which all but the label may be left out:",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
        *(_markdown(row, with_flags=False) for row in field_rows(DeclaredLevel)),
        "",
        "Hyperparameters, `[hyperparameters]` or `--set NAME=VALUE`:",
        "",
        f"| name | {' | '.join(PRESETS)} | meaning |",
        f"|---|{'---|' * len(PRESETS)}---|",
    ]
    for row in hyperparameter_rows():
        values = " | ".join(f"`{value}`" for value in row.defaults.values())
        lines.append(f"| `{row.name}` | {values} | {_cell(row.description)} |")
    return "\n".join(lines) + "\n"


def _markdown(row: SettingRow, *, with_flags: bool = True) -> str:
    text, _, default = row.description.partition(" (default: ")
    default = default.removesuffix(")") or ", ".join(f"`{d}`" for d in row.defaults.values())
    flags = [", ".join(f"`{flag}`" for flag in row.flags)] if with_flags else []
    return "| " + " | ".join([f"`{row.name}`", *flags, default, _cell(text)]) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _says(default: object) -> bool:
    return default is not None and default != () and default != {}


def _kind(entry: dict[str, Any]) -> str:
    """What a field may be, from its JSON schema."""
    if "enum" in entry:
        return " or ".join(map(str, entry["enum"]))
    names = {"integer": "whole number", "string": "text", "array": "list", "object": "table",
             "boolean": "true or false"}  # fmt: skip
    options = [o for o in entry.get("anyOf", entry.get("oneOf", [])) if o.get("type") != "null"]
    if options:
        return " or ".join(dict.fromkeys(_kind(option) for option in options))
    kind = entry.get("type", "")
    return names.get(kind, kind)
