"""Multi-fidelity learning for interatomic potentials, on LANL's hippynn.

One network with one energy head per level of theory; see the README for the ten-line plugin.
"""

import warnings

with warnings.catch_warnings():
    # hippynn 0.1.3 builds a sparse tensor while it is imported, and torch warns about that.
    warnings.filterwarnings("ignore", message="Sparse invariant checks")
    import hippynn  # noqa: F401

from hippynn_mf.errors import UserError
from hippynn_mf.labels import Properties, parse_labels
from hippynn_mf.levels import Level, get_level, known_levels, register_level
from hippynn_mf.losses import LossWeights, build_loss, build_metrics
from hippynn_mf.nodes import Head, Heads, build_heads
from hippynn_mf.pretraining import initialize_heads

__all__ = [
    "Head",
    "Heads",
    "Level",
    "LossWeights",
    "Properties",
    "UserError",
    "build_heads",
    "build_loss",
    "build_metrics",
    "get_level",
    "initialize_heads",
    "known_levels",
    "parse_labels",
    "register_level",
]
