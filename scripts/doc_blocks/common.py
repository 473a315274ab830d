"""What all blocks use: where results are, and words that hold only if the results bear them."""

from __future__ import annotations

import importlib
import json
import re
import sys
import textwrap
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from doc_blocks.tables import Section, find_section, read_document

TOP = Path(__file__).parents[2]
RESULTS = TOP / "experiments" / "results"
STRATEGIES = TOP / "experiments" / "strategies"
WHOLE, FEW = STRATEGIES / "results", STRATEGIES / "results-30"
XTB, XTB_FEW = STRATEGIES / "results-xtb", STRATEGIES / "results-xtb-30"
BENCHMARKS = TOP / "scripts" / "benchmarks"

Block = Callable[[], str]
BLOCKS: dict[str, Block] = {}


def block(function: Block) -> Block:
    """Make a function the source of the block of its name."""
    BLOCKS[function.__name__.replace("_", "-")] = function
    return function


def sentences(text: str) -> str:
    """Text as a paragraph, with lines that break between words only."""
    words = " ".join(text.split())
    return textwrap.fill(words, 110, break_long_words=False, break_on_hyphens=False)


@lru_cache
def document(folder: Path, name: str) -> list[Section]:
    """The sections of a committed document."""
    return read_document(folder / "tables" / f"{name}.md")


def section(folder: Path, name: str, *parts: str) -> Section:
    """A section of a committed document."""
    return find_section(document(folder, name), *parts)


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a benchmark."""
    found: list[dict[str, Any]] = json.loads((BENCHMARKS / f"{name}.json").read_text())["rows"]
    return found


def script(name: str) -> Any:
    """Another script of this folder."""
    folder = str(Path(__file__).parents[1])
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def numbers(text: str) -> list[float]:
    """The numbers in a cell."""
    return [float(n.replace("−", "-")) for n in re.findall(r"[−-]?\d+(?:\.\d+)?", text)]


def mean(cell: str) -> str:
    """The mean of a cell `mean ± half width`."""
    return cell.split(" ")[0]


def size(cell: str) -> str:
    """A difference without its sign."""
    return cell.lstrip("+−")


def lower_by(cell: str) -> str:
    """An improvement whose whole interval is above zero, `49.5 % [36.4, 59.8]`."""
    _, low, _ = numbers(cell)
    if low <= 0:
        raise ValueError(f"{cell} is no sure improvement")
    value, interval = cell.split(" ", 1)
    return f"{value} % {interval}"


def higher_by(cell: str) -> str:
    """An improvement whose whole interval is below zero, as the size of the loss."""
    value, low, high = numbers(cell)
    if high >= 0:
        raise ValueError(f"{cell} is no sure loss")
    return f"{-value:.1f} % [{-high:.1f}, {-low:.1f}]"


def surely(cell: str, sign: int) -> str:
    """The size of a difference whose interval is on one side of zero."""
    value, half_width = numbers(cell)
    if sign * value <= half_width:
        raise ValueError(f"{cell} is not surely of sign {sign}")
    return size(cell)


def unsure(cell: str) -> str:
    """The size of a difference whose interval contains zero."""
    value, half_width = numbers(cell)
    if abs(value) > half_width:
        raise ValueError(f"{cell} is sure")
    return size(cell)
