"""The blocks of README and documentation by name; see `make_doc_blocks.py`."""

from doc_blocks import checks, extension, kept_epoch, machine, periodic, strategies, table1, targets
from doc_blocks.common import BLOCKS

__all__ = [
    "BLOCKS",
    "checks",
    "extension",
    "kept_epoch",
    "machine",
    "periodic",
    "strategies",
    "table1",
    "targets",
]
