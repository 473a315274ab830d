"""Write the numbers of README and documentation from the committed results.

    python scripts/make_doc_blocks.py            # rewrites the blocks that differ, and names them
    python scripts/make_doc_blocks.py --check    # only says which differ

A block stands between two comments, which readers do not see:

    <!-- generated: scripts/make_doc_blocks.py NAME -->
    <!-- end -->

What is between them is made here, from tables below `experiments/`, from `scripts/benchmarks/` and
from the embedded data. A sentence that says more than its numbers ("surely lower") is checked where
it is made: if the results no longer say so, nothing is written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from doc_blocks import BLOCKS

TOP = Path(__file__).parent.parent
PATTERN = re.compile(
    r"(?P<start><!-- generated: scripts/make_doc_blocks\.py (?P<name>[a-z0-9-]+) -->\n)"
    r"(?P<body>.*?)(?P<end><!-- end -->)",
    flags=re.DOTALL,
)


def documented_files() -> list[Path]:
    """The files that may hold blocks."""
    pages = (path for path in (TOP / "docs").rglob("*.md") if "_build" not in path.parts)
    return [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted(pages)]


def refresh(text: str) -> tuple[str, list[str]]:
    """A text with its blocks made anew, and the names of those that differ."""
    different = []

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise LookupError(f"No block {name!r}; known: {', '.join(sorted(BLOCKS))}.")
        body = f"\n{BLOCKS[name]().rstrip()}\n\n"
        if body != match["body"]:
            different.append(name)
        return match["start"] + body + match["end"]

    return PATTERN.sub(made, text), different


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing.")] = False,
) -> None:
    """Write every block again."""
    stale = False
    for path in documented_files():
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        fresh, different = refresh(text)
        for name in different:
            typer.echo(f"{path.relative_to(TOP)}: {name}")
        stale = stale or bool(different)
        if different and not check:
            path.write_text(fresh, encoding="utf-8")
    if check and stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
