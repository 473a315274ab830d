"""Which of the known layouts a file or folder of structures has."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Literal

import h5py

from hippynn_mf.data.formats.frame_formats import known_formats
from hippynn_mf.data.formats.hdf5 import open_hdf5
from hippynn_mf.data.formats.sources import DataPath, has_frames, split_source
from hippynn_mf.errors import UserError

N_LOOKED_AT = 3  # groups of a file

Layout = Literal["ani1x", "comp6", "frames"]


def find_layout(source: DataPath) -> Layout:
    """How a file or folder holds structures; a UserError if in no way that is known."""
    path, declared = split_source(source)
    if isinstance(path, Mapping) or declared or has_frames(path):
        return "frames"
    files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"The folder {path} holds no .h5 files.")
    with open_hdf5(files[0]) as file:
        groups = [
            item for item in islice(file.values(), N_LOOKED_AT) if isinstance(item, h5py.Group)
        ]
        first_names = ", ".join(islice(file, N_LOOKED_AT)) or "nothing"
        if any("atomic_numbers" in group for group in groups) and not path.is_dir():
            return "ani1x"
        for group in groups:
            members = islice(group.values(), 1)
            if any(isinstance(item, h5py.Group) and "species" in item for item in members):
                return "comp6"
    raise UserError(
        f"{path} has no layout that can be read. Test sets are files in the ANI-1x layout "
        "(formula/atomic_numbers), files or folders in the COMP6 layout (group/molecule/species), "
        f"or {known_formats(frames_only=True)}; found {first_names}."
    )
