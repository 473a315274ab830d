"""One colour per level of theory, the same in every figure."""

from __future__ import annotations

from hippynn_mf.levels import Level, known_levels

# Okabe and Ito's palette: told apart also with red-green blindness, and on grey prints.
PAPER_COLORS = {"DZ": "#0072b2", "TZ": "#009e73", "MP2": "#e69f00", "CC": "#d55e00"}
OTHER_COLORS = ("#cc79a7", "#56b4e9", "#7f7f7f", "#8c510a", "#5e3c99")


def level_color(level: Level) -> str:
    """Colour of a level as `#rrggbb`.

    Levels of the user's own get the other colours in the order of their ranks, from the first
    again after the fifth.
    """
    if level.label in PAPER_COLORS:
        return PAPER_COLORS[level.label]
    others = [known.id for known in known_levels() if known.label not in PAPER_COLORS]
    return OTHER_COLORS[others.index(level.id) % len(OTHER_COLORS)]
