"""Read the committed tables of results, for the sentences that quote them.

A document of `hippynn-mf tables` is Markdown: sections with a heading, and in each of them one
table or several, whose cells are rounded as people read them. Numbers in the documentation are
looked up here by section, model and column, so that a sentence holds the number of its table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEAN_PREDICTION = "mean prediction"


@dataclass(frozen=True)
class Table:
    """One table as text: its header, and its rows with the first cell as the name."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, *parts: str, without: Sequence[str] = ()) -> int:
        """The only column whose heading has all `parts` and nothing of `without`."""
        found = [
            place
            for place, heading in enumerate(self.header)
            if all(part in heading for part in parts) and not any(w in heading for w in without)
        ]
        if len(found) != 1:
            raise LookupError(f"{len(found)} columns with {parts} in {self.header}")
        return found[0]

    def row(self, name: str) -> tuple[str, ...]:
        """The only row with this first cell."""
        (found,) = (row for row in self.rows if row[0] == name)
        return found

    def cell(self, name: str, *parts: str, without: Sequence[str] = (), after: str = "") -> str:
        """A cell; with `after`, that of the first column of this heading right of it."""
        place = self.column(*parts, without=without)
        if after:
            place = self.header.index(after, place)
        return self.row(name)[place]


@dataclass(frozen=True)
class Section:
    """A section of a document: its tables, and the notes below them."""

    title: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...]

    @property
    def markdown(self) -> str:
        """The first table, as it is committed."""
        lines = [self.tables[0].header, ["---"] * len(self.tables[0].header), *self.tables[0].rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    @property
    def zero(self) -> dict[str, str]:
        """Column → error of predicting zero, as the notes say it."""
        pattern = re.compile(r"- (.*): predicting zero has an RMSE of (\S+) ")
        return {found[1]: found[2] for note in self.notes if (found := pattern.match(note))}


def read_document(path: Path) -> list[Section]:
    """The sections of a document of `hippynn-mf tables`."""
    sections = []
    for text in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, body = text.split("\n", 1)
        blocks = re.findall(r"(?:^\|.*\n)+", body, flags=re.MULTILINE)
        tables = tuple(_read_table(block) for block in blocks)
        notes = tuple(line for line in body.splitlines() if line.startswith("- "))
        sections.append(Section(title, tables, notes))
    return sections


def find_section(sections: Sequence[Section], *parts: str) -> Section:
    """The only section whose title has all `parts`."""
    found = [section for section in sections if all(part in section.title for part in parts)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} sections with {parts}: {[s.title for s in sections]}")
    return found[0]


def _read_table(text: str) -> Table:
    lines = [tuple(map(str.strip, line.strip("|").split("|"))) for line in text.splitlines()]
    return Table(lines[0], tuple(lines[2:]))
