"""Where labels come from, in one line of text that travels with every structure.

It has no quotes and no line breaks, so that files with it are read as fast as those without.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from hippynn_mf.data.formats.extxyz_keys import PROVENANCE

HASH = 16  # characters of a SHA-256


def provenance_key(name: str) -> str:
    """The key of a level's labels, or of the structures themselves (`positions`)."""
    return f"{PROVENANCE}{name}"


def provenance_text(identity: Mapping[str, Any], **more: Any) -> str:
    """One line: calculator with arguments, versions and hashes, then `more`, then the date."""
    identity = {**identity}
    name, arguments = identity.pop("calculator"), identity.pop("arguments")
    given = ", ".join(f"{key}={value}" for key, value in arguments.items())
    parts = [f"{name} ({given})" if given else name]
    said = {key: value for key, value in {**identity, **more}.items() if value is not None}
    parts += [f"{key} {_short(key, value)}" for key, value in said.items()]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return plain_text("; ".join([*parts, today]))


def _short(key: str, value: Any) -> Any:
    return value[:HASH] if key.endswith("sha256") else value


def plain_text(text: str) -> str:
    """A text that extended XYZ holds between double quotes."""
    return " ".join(text.replace('"', "'").replace("\\", "/").split())
