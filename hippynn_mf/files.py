"""Files that a reader sees complete or not at all, and what reading and writing can run into.

Whatever a file system or a damaged file does becomes one `FileError` that names the file and what
to do. `reading` and `writing` are the two places where that happens; the other functions here are
made of them.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hippynn_mf.errors import UserError, one_line

# What numpy raises for damaged headers, which are Python's text, and data.
DAMAGED_ARRAY = (
    *(ValueError, TypeError, KeyError, EOFError, RuntimeError, SyntaxError, RecursionError),
    *(OverflowError, AttributeError, MemoryError, tokenize.TokenError),
)
LARGEST_TEXT = 2**26  # bytes of a JSON, TOML or log file; runs write some hundred kB
GZIP = b"\x1f\x8b"  # how files begin that gzip wrote
LARGEST_RATIO = 100  # of what a zip file says it holds to its size; ours are not compressed


class FileError(UserError, OSError):
    """A file cannot be read or written; `errno` is that of the operating system, if it spoke."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make what the operating system says of reading a file a FileError that names it."""
    try:
        yield
    except FileError:
        raise
    except FileNotFoundError as error:
        raise _file_error(
            error, f"No file {path}. Check the path; relative paths start at {Path.cwd()}."
        ) from None
    except UnicodeDecodeError as error:
        remedy = "Copy it again, or convert it."
        if _starts_with(path, GZIP):
            remedy = "It is compressed: unpack it first, with gunzip."
        raise FileError(
            f"{path} is not a text file in UTF-8 ({error.reason} at byte {error.start}). {remedy}"
        ) from None
    except OSError as error:
        raise _file_error(error, f"{path} cannot be read: {_reason(error)}") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make what the operating system says of writing a file a FileError that names it."""
    try:
        yield
    except (FileError, TimeoutError):  # the latter of locks, which others hold
        raise
    except OSError as error:
        folder = path.absolute().parent
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"The disk of {folder} is full. Make room, and run the same command again."
        elif isinstance(error, FileNotFoundError) and not folder.is_dir():
            text = f"There is no folder {path.parent}. Make it first."
        elif isinstance(error, FileNotFoundError):  # of what the block should have written
            raise
        else:
            text = f"{path} cannot be written: {_reason(error)}"
        raise _file_error(error, text) from None


def _starts_with(path: Path, start: bytes) -> bool:
    with suppress(OSError), path.open("rb") as stream:
        return stream.read(len(start)) == start
    return False


def _file_error(error: OSError, text: str) -> FileError:
    found = FileError(text)
    found.errno = error.errno
    return found


def _reason(error: OSError) -> str:
    """What an operating system's error means for a user, as sentences."""
    reasons = {
        errno.EACCES: "permission denied. Check the rights of the file and of its folder.",
        errno.EPERM: "the operation is not permitted. Check the rights of the file.",
        errno.EROFS: "the file system is read-only. Choose another place.",
        errno.EISDIR: "it is a folder; name a file.",
        errno.ENOTDIR: "a part of its path is a file and no folder. Check the path.",
        errno.EEXIST: "a file is in the place of a folder. Choose another path.",
        errno.ENOTEMPTY: "a folder is in its place. Choose another name.",
        errno.ELOOP: "its links lead in a circle. Name the file itself.",
        errno.ENAMETOOLONG: "the name is too long. Choose a shorter one.",
    }
    if error.errno in reasons:
        return reasons[error.errno]
    return f"{error.strerror or error}. Try again, or use a copy at another place."


def require_file(path: Path, what: str = "a file") -> None:
    """Raise FileError unless there is a regular file: pipes and devices may never end."""
    if "\0" in str(path):
        raise FileError(f"{str(path)!r} is no path: it has a zero byte.")
    with reading(path):
        mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise FileError(f"{path} is a folder; {what} was expected.")
    if not stat.S_ISREG(mode):
        raise FileError(
            f"{path} is no regular file but a pipe, a device or a socket; {what} was expected. "
            "Write its content into a file first."
        )


def exists(path: Path) -> bool:
    """Whether there is something at a path; a FileError if nobody may look."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        raise _file_error(error, f"{path} cannot be read: {_reason(error)}") from None
    return True


def refuse_output(path: Path, force: bool, read: object = None) -> None:
    """Raise UserError if a file to write exists, unless it is to be replaced, or has no folder.

    What is `read` is never replaced.
    """
    if read is not None and path.exists() and Path(str(read)).exists() and path.samefile(str(read)):
        raise UserError(f"{path} is what is read; name another file to write.")
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it.")
    if path.exists() and not force:
        raise UserError(f"{path} exists. Choose another name, or replace it with --force.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"There is no folder {path.parent}. Make it first.")


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, unless they are there; the folder."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replace_when_complete(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds.

    A failing block leaves `path` as it was and removes the temporary file. Raises FileError for
    what the operating system does not allow.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with writing(path):
            yield partial
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text, complete or not at all."""
    with replace_when_complete(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_text(path: Path, what: str = "a text file") -> str:
    """The text of a regular file of at most `LARGEST_TEXT` bytes."""
    require_file(path, what)
    with reading(path):
        if (size := path.stat().st_size) > LARGEST_TEXT:
            raise FileError(
                f"{path} has {size:,} bytes; {what} has at most {LARGEST_TEXT:,}. Is it the right "
                "file?"
            )
        return path.read_text(encoding="utf-8-sig")  # some editors begin with a mark of the order


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays, complete or not at all; `read_npz` reads them without pickle."""
    with replace_when_complete(path) as partial, partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_npz(
    path: Path, remedy: str = "Restore the file.", *, unread: list[str] | None = None
) -> dict[str, np.ndarray]:
    """All arrays of a file of arrays, without pickle; a damaged one is a FileError.

    Arrays of Python objects are such damage, or, where `unread` is given, left out and named there.
    """
    require_file(path, "a file of arrays (.npz)")
    with reading(path):
        try:
            with zipfile.ZipFile(path) as members:
                claimed = sum(member.file_size for member in members.infolist())
                if claimed > LARGEST_RATIO * path.stat().st_size:
                    raise ValueError(f"it says that it holds {claimed:,} bytes")
                if wrong := members.testzip():  # numpy does not look at the checksums
                    raise ValueError(f"{wrong} does not have its checksum")
            with np.load(path, allow_pickle=False) as arrays:
                if unread is not None:
                    unread += [name for name in arrays.files if _has_objects(path, name)]
                return {name: arrays[name] for name in arrays.files if name not in (unread or ())}
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise FileError(f"{path} is damaged ({one_line(error)}). {remedy}") from None
        except (*DAMAGED_ARRAY, zipfile.BadZipFile, zlib.error) as error:
            raise FileError(f"{path} is damaged ({one_line(error)}). {remedy}") from None


def map_npy(path: Path) -> np.ndarray:
    """An array file, mapped into memory, without pickle; a damaged one is a FileError."""
    require_file(path, "an array (.npy)")
    with reading(path):
        try:
            return np.load(path, allow_pickle=False, mmap_mode="r")
        except DAMAGED_ARRAY as error:
            found = str(error)
            if "bject" in found or "pickle" in found:
                raise FileError(
                    f"{path} holds Python objects, which are not loaded, for loading them runs "
                    "code. Write the array again as numbers."
                ) from None
            raise FileError(f"{path} is damaged ({found}). Copy it again.") from None


def _has_objects(path: Path, name: str) -> bool:
    """Whether an array of a file is one of Python objects, by its header."""
    with zipfile.ZipFile(path) as members:
        member = name if name in members.namelist() else f"{name}.npy"
        with members.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            _, _, dtype = read(stream)
            return bool(dtype.hasobject)


def parse_json(text: str, source: object) -> Any:
    """What a JSON text says; damaged or deeply nested text and repeated keys are a UserError."""
    try:
        return json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError:
        raise UserError(f"{source} is nested too deeply for what hippynn_mf writes.") from None
    except ValueError as error:
        raise UserError(f"{source} is not valid JSON ({error}).") from None


def _without_repetition(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of a key that is there twice, readers would see the last value only."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} is there twice; keep one")
        content[key] = value
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a regular file; a missing, large or damaged file is a UserError."""
    if not exists(path):
        raise FileError(f"No {path.name} in {path.parent}.")
    content = parse_json(read_text(path, "a JSON file"), path)
    if not isinstance(content, dict):
        raise UserError(f"{path} should hold a JSON object.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, complete or not at all; NaN is not JSON and raises ValueError."""
    write_text(path, json_text(content))


def json_text(content: dict[str, Any]) -> str:
    """JSON as it is written; NaN is not JSON and raises ValueError."""
    return json.dumps(content, indent=2, allow_nan=False) + os.linesep
