"""Time and memory of reading labels from a file of the size of ANI-1x, up to the hippynn database.

    python scripts/benchmark_reading.py FOLDER
    python scripts/benchmark_reading.py FOLDER --full

The files are those of `make_synthetic_ani1x.py`, made in the folder unless they are there: 0.7 GB,
and with `--full` 3.3 GB more. Each figure is the median of `--repeats` fresh processes that read a
file for MF-DZ/EF-CC/E, with the file in the operating system's cache: it is read once before. Time
leaves out the start of Python and imports. `splits` is the time of `load_splits`, `database` and
everything else that of `load_database`; its peak memory is that of the process, libraries
included.

Where the processor time of `load_splits` goes, in the same fresh process, is in `reading_cpu_s`
(the file, the draw of splits), `matching_cpu_s` (finding and joining copies of conformers) and
`checks_cpu_s` (the gate of labels): at a million conformers the last two together take at most a
third of the first. What the
machine can do is `plain_cpu_s`, of a process that reads the same arrays with h5py and does nothing
with them.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import h5py
import torch
import typer
from benchmarking import RESULTS, OutOption, label_set, start, write
from make_synthetic_ani1x import N_FULL, write_file
from tqdm import tqdm

from hippynn_mf.data import database as database_module
from hippynn_mf.data import drawing, loading
from hippynn_mf.data.database import load_database
from hippynn_mf.data.loading import load_splits
from hippynn_mf.errors import UserError
from hippynn_mf.labels import parse_labels
from hippynn_mf.levels import PAPER_LEVELS

LABELS = "DZ/EF + CC/E"
SIZES = "10000,100000,1000000"
ROWS = ("common", "all")
STAGES = {
    "whole": [(database_module, "load_splits")],
    "matching": [(drawing, "find_first"), (loading, "join_agreeing")],
    "checks": [(loading, "pass_gate")],
}


def measure_here(path: Path, rows: Any) -> dict[str, float]:
    """Read a file in this process: seconds, CPU seconds, and peaks of memory in MiB."""
    libraries = _peak_mib()
    labels = parse_labels(label_set(LABELS))
    stages: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, places in STAGES.items():
            for module, function in places:
                stack.enter_context(_timed(module, function, name, stages))
        before, begin = time.process_time(), time.perf_counter()
        database = load_database(path, labels, rows=rows)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - before
    peak = _peak_mib()
    plain = plain_reading(path)
    arrays = [array for split in database.splits.values() for array in split.values()]
    kept = sum(len(split["species"]) for split in database.splits.values())
    del database
    begin = time.perf_counter()
    load_splits(path, labels, common_levels=PAPER_LEVELS, rows=rows, split_seed=0)
    return {
        "n_kept": kept,
        "splits_s": time.perf_counter() - begin,
        "database_s": seconds,
        "database_cpu_s": cpu,
        "reading_cpu_s": stages["whole"] - stages["matching"] - stages["checks"],
        "matching_cpu_s": stages["matching"],
        "checks_cpu_s": stages["checks"],
        "plain_cpu_s": plain,
        "libraries_mib": libraries,
        "peak_mib": peak,
        "arrays_mib": sum(array.nbytes for array in arrays) / 2**20,
    }


def plain_reading(path: Path) -> float:
    """CPU seconds of reading, group by group, what these labels need of a file."""
    before = time.process_time()
    with h5py.File(path) as file:
        for group in file.values():
            for name in ("coordinates", "wb97x_dz.energy", "wb97x_dz.forces", "ccsd(t)_cbs.energy"):
                group[name][()]
    return time.process_time() - before


@contextmanager
def _timed(module: ModuleType, function: str, name: str, stages: Counter[str]) -> Iterator[None]:
    """Add the processor seconds of a module's function to a stage, for as long as this lasts."""
    inner = getattr(module, function)

    def outer(*args: Any, **options: Any) -> Any:
        begin = time.process_time()
        try:
            return inner(*args, **options)
        finally:
            stages[name] += time.process_time() - begin

    setattr(module, function, outer)
    try:
        yield
    finally:
        setattr(module, function, inner)


def _peak_mib() -> float:
    """Largest resident memory of this process so far, as Linux counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(path: Path, rows: str, repeats: int) -> dict[str, Any]:
    """Medians over processes of their own, each with the file in the cache."""
    found = []
    for _ in range(repeats):
        with path.open("rb") as stream:
            while stream.read(2**24):
                pass
        child = subprocess.run(
            [sys.executable, __file__, str(path.parent), "--child", json.dumps([str(path), rows])],
            capture_output=True,
            text=True,
        )
        if child.returncode:
            raise RuntimeError(f"{path.name}, {rows}: {child.stderr[-2000:]}")
        found.append(json.loads(child.stdout.splitlines()[-1]))
    medians = {key: statistics.median(each[key] for each in found) for key in found[0]}
    return {"rows": rows, "file_mib": path.stat().st_size / 2**20, "repeats": repeats, **medians}


def make_missing(folder: Path, sizes: Sequence[int]) -> dict[int, Path]:
    """The synthetic file of each size, written unless it is there."""
    files = {size: folder / f"synthetic-{size}.h5" for size in sizes}
    folder.mkdir(parents=True, exist_ok=True)
    for size, path in files.items():
        if not path.exists():
            write_file(path, size, **({"n_whole": N_FULL} if size == N_FULL else {}))
    return files


def share_of_checks(row: Mapping[str, Any]) -> float:
    """Processor time of finding copies and of the checks, as a share of that of reading."""
    return float((row["matching_cpu_s"] + row["checks_cpu_s"]) / row["reading_cpu_s"])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/data-at-scale.md."""
    lines = [
        "| conformers in the file | `--rows` | kept | CPU time | of it copies | of it checks "
        "| both / reading | plain reading | peak memory | its arrays |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['n_conformers']:,} ({row['file_mib']:,.0f} MiB) | {row['rows']} "
            f"| {row['n_kept']:,.0f} "
            f"| {row['database_cpu_s']:.1f} s | {row['matching_cpu_s']:.2f} s "
            f"| {row['checks_cpu_s']:.2f} s | {share_of_checks(row):.2f} "
            f"| {row['plain_cpu_s']:.1f} s "
            f"| {row['peak_mib']:,.0f} MiB "
            f"| {row['arrays_mib']:,.0f} MiB |"
        )
    return "\n".join(lines)


def main(
    folder: Annotated[Path, typer.Argument(help="Folder of the synthetic files.")],
    sizes: Annotated[str, typer.Option(help="Conformers of the files.")] = SIZES,
    full: Annotated[bool, typer.Option("--full", help="Also one as large as ANI-1x.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Processes for every figure.")] = 3,
    out: OutOption = RESULTS,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure; write `reading.json` and print the table of docs/data-at-scale.md."""
    if child:
        path, rows = json.loads(child)
        typer.echo(json.dumps(measure_here(Path(path), rows)))
        return
    try:
        numbers = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise UserError(f"--sizes {sizes!r}: expected numbers, as in {SIZES}.") from None
    files = make_missing(folder, [*numbers, N_FULL] if full else numbers)
    results = [
        {"n_conformers": size, "labels": LABELS} | measure(path, rows, repeats)
        for size, path in tqdm(files.items(), unit="file")
        for rows in ROWS
    ]
    write("reading", results, torch.device("cpu"), out)
    typer.echo(table(results))


if __name__ == "__main__":
    start(main)
