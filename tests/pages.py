"""Code blocks of the documentation, to run what readers copy."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def blocks_of(page: str, heading: str, language: str = "python") -> list[str]:
    """The code of a section, block by block: `heading` is its title, without `## `."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


def run_block(page: str, script: str) -> dict:
    """Run code of a page in this process; returns the names that it made."""
    names: dict = {}
    exec(compile(script, page, "exec"), names)
    return names
