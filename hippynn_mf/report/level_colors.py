"""One colour per level of theory, the same in every figure."""

from __future__ import annotations

from collections.abc import Iterable

from hippynn_mf.levels import Level

# Okabe and Ito's palette: told apart also with red-green blindness, and on grey prints.
PAPER_COLORS = {"DZ": "#0072b2", "TZ": "#009e73", "MP2": "#e69f00", "CC": "#d55e00"}
OTHER_COLORS = ("#cc79a7", "#56b4e9", "#7f7f7f", "#8c510a", "#5e3c99")


def level_color(level: Level, among: Iterable[Level] = ()) -> str:
    """Colour of a level as `#rrggbb`.

    Levels of the user's own get the other colours in the order of their ranks among the levels
    with which they are drawn, from the first again after the fifth.
    """
    if level.label in PAPER_COLORS:
        return PAPER_COLORS[level.label]
    known = {each.id: each for each in [*among, level]}
    others = [each for each in known.values() if each.label not in PAPER_COLORS]
    place = sorted(others, key=lambda each: each.rank).index(known[level.id])
    return OTHER_COLORS[place % len(OTHER_COLORS)]
