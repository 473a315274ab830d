"""Files of structures: anything that ASE reads, and extended XYZ with the labels of predictions.

Files are Python's work and prediction is torch's, which share one interpreter badly. So a large
file has a process of its own, which reads and writes while this one predicts; it costs a second to
start, and does not import torch. Small files are read and written in between.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ase import Atoms
from ase.io import iread
from loky import ProcessPoolExecutor
from loky.process_executor import BrokenProcessPool

from hippynn_mf.data.formats.ase_databases import DATABASES, database_images
from hippynn_mf.data.formats.xyz_file import write_structures
from hippynn_mf.errors import UserError, comes_from, one_line
from hippynn_mf.files import require_file, writing
from hippynn_mf.levels import Level
from hippynn_mf.potentials.batch import Batch, in_batches, neutral
from hippynn_mf.potentials.counting import expected_structures
from hippynn_mf.potentials.predicted_labels import PredictedLabels, add_labels

LARGE_FILE = 2**22  # bytes, some thousand small molecules: twice what pays for a process


def read_structures(path: Path) -> Iterator[Atoms]:
    """Structures of a file in any format of ASE, one after another.

    Raises UserError if the file is missing or no regular file, ASE cannot read it, or reads fewer
    structures than it holds, as far as its format tells.
    """
    file = _on_disk(path)
    require_file(file, "a file of structures")
    part = None if file == path else str(path).rpartition("@")[2]
    n = 0
    try:
        expected = expected_structures(file, part)
        for atoms in _images(file, part):
            for key, value in atoms.info.items():
                if isinstance(value, str) and "\n" in value:
                    raise UserError(
                        f"{key}={value!r} has a line break, which extended XYZ cannot hold. "
                        "Remove it."
                    )
            yield atoms
            n += 1
        if expected is not None and n != expected:
            raise UserError(
                f"ASE reads {n} structures, and the file holds {expected}. Write it as extended "
                "XYZ, or split it."
            )
    except Exception as error:  # of ASE's readers, each in its own way
        if not comes_from(error, "ase"):
            raise
        raise UserError(
            f"ASE cannot read it ({type(error).__name__}: {one_line(error)}). It may be damaged, "
            "or of a format that 'ase info --formats' does not list."
        ) from error


def _images(file: Path, part: str | None) -> Iterator[Atoms]:
    """All structures of a file, or a part as `0:10`; databases are not written to."""
    if (name := DATABASES.get(file.suffix.lower())) is not None:
        return database_images(file, name, part)
    exact = part is None
    images: Iterator[Atoms] = iread(
        file if exact else f"{file}@{part}", do_not_split_by_at_sign=exact
    )
    return images


def _on_disk(path: Path) -> Path:
    """The file itself where ASE's own `file.xyz@0:10` is meant; UserError if there is none."""
    for file in (path, Path(str(path).rpartition("@")[0] or path)):
        if file.exists():
            return file
    raise UserError(f"No file {path}. Check the path; relative paths start at {Path.cwd()}.")


class Labelling:
    """Structures of a file on their way to another one, where they get labels.

    Raises UserError as `read_structures` does, and for a full disk.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        levels: Sequence[Level],
        main: Level | None,
        batch_size: int,
    ) -> None:
        self.target, self.levels, self.main = target, levels, main
        self.batches = in_batches(neutral(read_structures(source)), batch_size)
        self.waiting: deque[list[Atoms]] = deque()  # read, and not yet labelled

    def read(self) -> Batch | None:
        """The next batch of structures; None at the end."""
        structures = next(self.batches, None)
        if structures is None:
            return None
        self.waiting.append(structures)
        return Batch.of(structures)

    def write(self, labels: PredictedLabels) -> None:
        """Append the first batch that waits, with its labels, to the target."""
        structures = self.waiting.popleft()
        add_labels(structures, labels, self.levels, self.main)
        with writing(self.target), self.target.open("a", encoding="utf-8") as stream:
            write_structures(stream, structures)


@contextmanager
def labelled_file(
    source: Path, target: Path, levels: Sequence[Level], main: Level | None, batch_size: int
) -> Iterator[tuple[Iterator[Batch], Callable[[PredictedLabels], None]]]:
    """The batches of `source`, and a function that takes the labels of each before the next.

    The labelled structures are in `target` when the batches are at an end. Errors as of
    `Labelling`; UserError also if the process of a large file is ended from outside.
    """
    with writing(target):
        target.write_bytes(b"")
    if _on_disk(source).stat().st_size < LARGE_FILE:
        labelling = Labelling(source, target, levels, main, batch_size)
        yield iter(labelling.read, None), labelling.write
        return
    executor = ProcessPoolExecutor(
        max_workers=1, initializer=_open, initargs=(source, target, levels, main, batch_size)
    )
    try:
        written = executor.submit(int)  # of the batch before
        batches = _read_ahead(executor)

        def write(labels: PredictedLabels) -> None:
            nonlocal written
            written.result()
            written = executor.submit(_write, labels)

        yield batches, write
        written.result()
    except BrokenProcessPool:
        raise UserError(
            "The process that reads and writes ended unexpectedly. If memory ran out, make room, "
            "or split the file."
        ) from None
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def _read_ahead(executor: ProcessPoolExecutor) -> Iterator[Batch]:
    """The batches; the next one is read while its predecessor is worked on."""
    coming = executor.submit(_read)
    while (batch := coming.result()) is not None:
        coming = executor.submit(_read)
        yield batch


# What the process of a large file does, one call after another, on a file of its own.

_labelling: Labelling


def _open(
    source: Path, target: Path, levels: Sequence[Level], main: Level | None, batch_size: int
) -> None:
    global _labelling
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the process that ends this one
    _labelling = Labelling(source, target, levels, main, batch_size)


def _read() -> Batch | None:
    return _labelling.read()


def _write(labels: PredictedLabels) -> None:
    _labelling.write(labels)
