"""Files of structures: anything that ASE reads, and extended XYZ with the labels of predictions.

Files are Python's work and prediction is torch's, which share one interpreter badly. So a large
file has a process of its own, which reads and writes while this one predicts; it costs a second to
start, and does not import torch. Small files are read and written in between.
"""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from ase import Atoms
from ase.io import iread

from hippynn_mf.data.formats.xyz_file import write_structures
from hippynn_mf.errors import UserError
from hippynn_mf.levels import Level
from hippynn_mf.potentials.batch import Batch, in_batches
from hippynn_mf.potentials.predicted_labels import PredictedLabels, add_labels

LARGE_FILE = 2**22  # bytes, some thousand small molecules: twice what pays for a process

PROGRAM = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from hippynn_mf.potentials.structure_files import serve
serve()
"""


def read_structures(path: Path) -> Iterator[Atoms]:
    """Structures of a file in any format of ASE, one after another.

    Raises UserError if the file is missing, or ASE cannot read it.
    """
    exact = _on_disk(path) == path
    try:
        for atoms in iread(path if exact else str(path), do_not_split_by_at_sign=exact):
            for key, value in atoms.info.items():
                if isinstance(value, str) and "\n" in value:
                    raise UserError(
                        f"{key}={value!r} has a line break, which extended XYZ cannot hold. "
                        "Remove it."
                    )
            yield atoms
    except UserError:
        raise
    except Exception as error:  # of ASE's readers, each in its own way
        raise UserError(
            f"ASE cannot read it ({type(error).__name__}: {error}). It may be damaged, or of a "
            "format that 'ase info --formats' does not list."
        ) from error


def _on_disk(path: Path) -> Path:
    """The file itself where ASE's own `file.xyz@0:10` is meant; UserError if there is none."""
    for file in (path, Path(str(path).rpartition("@")[0] or path)):
        if file.exists():
            return file
    raise UserError(f"No file {path}. Check the path; relative paths start at {Path.cwd()}.")


def write_labelled(
    source: Path,
    target: Path,
    levels: Sequence[Level],
    batch_size: int,
    receive: Callable[[], PredictedLabels],
) -> Generator[Batch, None, None]:
    """Yield the structures of `source` in batches, and write them to `target` with their labels.

    `receive` returns the labels of one batch after another. It is called only once the next batch
    has been read, and that one is yielded before anything is written: so whoever makes the labels
    has work meanwhile.

    Raises UserError as `read_structures` does, and for a full disk.
    """
    try:
        with target.open("w", encoding="utf-8") as stream:
            waiting: list[Atoms] = []
            for structures in in_batches(read_structures(source), batch_size):
                labels = receive() if waiting else None
                yield Batch.of(structures)
                if labels is not None:
                    add_labels(waiting, labels, levels)
                    write_structures(stream, waiting)
                waiting = structures
            if waiting:
                add_labels(waiting, receive(), levels)
                write_structures(stream, waiting)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"The disk of {target.parent} is full. Make room.") from None


@contextmanager
def labelled_file(
    source: Path, target: Path, levels: Sequence[Level], batch_size: int
) -> Iterator[tuple[Iterator[Batch], Callable[[PredictedLabels], None]]]:
    """The batches of `source`, and a function that takes the labels of each before the next.

    The labelled structures are in `target` when the batches are at an end. Errors as of
    `write_labelled`; UserError also if the process of a large file is ended from outside.
    """
    arguments = source, target, levels, batch_size
    if _on_disk(source).stat().st_size < LARGE_FILE:
        labels: deque[PredictedLabels] = deque()
        with closing(write_labelled(*arguments, labels.popleft)) as batches:
            yield batches, labels.append
    else:
        with _Process(arguments) as process:
            yield iter(process.receive, None), process.send


class _Process:
    """A process that runs `serve`.

    It is none of `multiprocessing`, which would run the user's script again and import torch.
    """

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for this process, which then ends that one
        )
        self.requests = cast(BinaryIO, self.process.stdin)
        self.replies = cast(BinaryIO, self.process.stdout)
        self.send(sys.path)
        self.send(arguments)

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # it has closed its files, or they are not wanted
        self.process.wait()
        self.replies.close()
        with suppress(OSError):  # what was not sent
            self.requests.close()

    def send(self, message: object) -> None:
        try:
            _dump(message, self.requests)
        except OSError:
            raise self._ended() from None

    def receive(self) -> Any:
        try:
            message = pickle.load(self.replies)
        except (EOFError, pickle.UnpicklingError):
            raise self._ended() from None
        if isinstance(message, Exception):
            raise message
        return message

    def _ended(self) -> UserError:
        return UserError(
            "The process that reads and writes ended unexpectedly (exit code "
            f"{self.process.wait()}). If memory ran out, make room, or split the file."
        )


def serve() -> None:
    """Run `write_labelled` for the process that started this one, over standard in- and output."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a reader prints is no reply
    requests = sys.stdin.buffer
    try:
        source, target, levels, batch_size = pickle.load(requests)
        receive = partial(pickle.load, requests)
        for batch in write_labelled(source, target, levels, batch_size, receive):
            _dump(batch, replies)
        _dump(None, replies)
    except (EOFError, BrokenPipeError):  # the other process is gone
        return
    except Exception as error:
        if not isinstance(error, UserError):
            error.add_note(traceback.format_exc())  # which pickle would lose
        _dump(error, replies)
    requests.read()  # until the other process, which may be sending, is through


def _dump(message: object, stream: BinaryIO) -> None:
    pickle.dump(message, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()
