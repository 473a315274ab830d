"""HDF5 files of others: nothing in them may lead to another file, or claim what is not there.

An HDF5 file can name files anywhere on the machine that reads it: external links, external storage,
and virtual data sets. HDF5 follows them silently, past the SHA-256 by which a run knows its data.
So every object of a file is visited before any is used.
"""

from __future__ import annotations

from pathlib import Path

import h5py
from h5py import h5d, h5g, h5l, h5o

from hippynn_mf.errors import UserError

# A small file can claim a large array that it does not store: bytes, and claimed to stored.
LARGEST_UNSTORED = 2**28
LARGEST_RATIO = 2000  # gzip reaches 1032
MOST_OBJECTS = 10**7  # ANI-1x has 75,000, COMP6 up to 16,000 in a file
DEEPEST = 32  # groups in groups; the layouts that are read have two


def refuse_links(file: h5py.File, path: Path) -> None:
    """Raise UserError unless everything in an open file is stored in this file.

    Refused are external links, external storage, virtual data sets, soft links that lead nowhere,
    and arrays that are far larger than what is stored of them. Soft links inside the file are what
    they lead to, which is visited under its own name.
    """
    status = path.stat()
    stamp = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
    if stamp not in _sound:
        _visit(file, str(path))
        _sound.add(stamp)


_sound: set[tuple[int, ...]] = set()  # files that were visited; 65 µs an object, ANI-1x 5 s


def _visit(file: h5py.File, path: str) -> None:
    waiting: list[tuple[h5g.GroupID, int]] = [(file["/"].id, 0)]
    seen = {h5o.get_info(waiting[0][0]).addr}  # a group may have several names
    n_objects = 0
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            n_objects += 1
            if n_objects > MOST_OBJECTS:
                raise UserError(f"{path} has more than {MOST_OBJECTS:,} objects. Split the file.")
            _check_name(group, name, path)
            kind = group.links.get_info(name).type
            if kind != h5l.TYPE_HARD:
                _check_link(group, name, kind, path)
                continue
            info = h5o.get_info(group, name)
            if info.type == h5o.TYPE_DATASET:
                _check_dataset(h5d.open(group, name), group, name, path)
            elif info.type == h5o.TYPE_GROUP and info.addr not in seen:
                if depth == DEEPEST:
                    raise UserError(f"{path} has groups more than {DEEPEST} deep; no layout has.")
                seen.add(info.addr)
                waiting.append((h5g.open(group, name), depth + 1))


def _check_name(group: h5g.GroupID, name: bytes, path: str) -> None:
    """Raise UserError for a name that is no text: h5py hands it out as bytes."""
    try:
        name.decode()
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: the name of {_shown(group, name)} is no text (UTF-8). The file is damaged, "
            "or was written with another encoding; rename it."
        ) from None


def _check_link(group: h5g.GroupID, name: bytes, kind: int, path: str) -> None:
    if kind == h5l.TYPE_SOFT:
        if _is_there(group, name):
            return
        target = group.links.get_val(name).decode(errors="replace")
        found = f"is a soft link to {target!r}, which is not there"
    elif kind == h5l.TYPE_EXTERNAL:
        file_name, target = (part.decode(errors="replace") for part in group.links.get_val(name))
        found = f"is an external link, to {target!r} in {file_name!r}"
    else:
        found = "is a link of a kind that is not known"
    raise _refusal(_shown(group, name), found, path)


def _is_there(group: h5g.GroupID, name: bytes) -> bool:
    """Whether a soft link leads to an object; not, if it leads through a circle of links."""
    try:
        return bool(h5o.exists_by_name(group, name))
    except (KeyError, RuntimeError, ValueError, OSError):
        return False


def _check_dataset(dataset: h5d.DatasetID, group: h5g.GroupID, name: bytes, path: str) -> None:
    properties = dataset.get_create_plist()
    if properties.get_layout() == h5d.VIRTUAL:
        raise _refusal(
            _shown(group, name), "is a virtual data set, whose values are in other files", path
        )
    if properties.get_external_count():
        file_name = properties.get_external(0)[0].decode(errors="replace")
        raise _refusal(_shown(group, name), f"has external storage, in {file_name!r}", path)
    space = dataset.get_space()
    if space.get_simple_extent_ndims() < 1:
        return
    n_bytes = space.get_simple_extent_npoints() * dataset.get_type().get_size()
    if n_bytes > LARGEST_UNSTORED:
        stored = dataset.get_storage_size()
        if n_bytes > LARGEST_RATIO * max(stored, 1):
            raise UserError(
                f"{path}: {_shown(group, name)} says that it has {n_bytes:,} bytes, of which "
                f"{stored:,} are stored. The file is damaged or was made to fill memory; it is not "
                "read."
            )


def _shown(group: h5g.GroupID, name: bytes) -> str:
    of_group = (h5py.h5i.get_name(group) or b"").decode(errors="replace").rstrip("/")
    return f"{of_group}/{name.decode(errors='replace')}"


def _refusal(name: str, found: str, path: str) -> UserError:
    return UserError(
        f"{path}: {name} {found}. Only files that hold all of their data are read, for what they "
        "lead to is not part of their SHA-256, and may be any file of this machine. Copy the data "
        "into one file."
    )
