"""The data set that ships with the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "embedded"

MINI_ANI1X = FOLDER / "mini-ani1x.h5"
MINI_COMP6 = FOLDER / "mini-comp6.h5"
MINI_COMP6_KEYS = FOLDER / "mini-comp6.keys.json"
MINI_CC_FORCES = FOLDER / "mini-cc-forces.h5"  # of conformers that nothing is trained on
