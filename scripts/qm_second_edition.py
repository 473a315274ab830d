"""The embedded data's second edition: its plan, and the job that computes it.

Molecules are in `qm_molecules.py`. What is finished is in `scripts/second_edition/`, one
append-only text file for each kind, and nowhere else: any kill loses only the conformer in
progress, and the same command continues from the text files alone. A conformer that fails is noted
in `failures.jsonl` and drawn again with the next seed, so that the counts of the plan hold.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from joblib import Parallel, delayed
from qm_conformers import source
from qm_costs import describe_hours
from qm_molecules import (
    CC_FORCE_MOLECULES,
    DIMERS,
    FULLY_LABELLED,
    TEST,
    TEST_FOUR_HEAVY,
    TRAINING,
)
from qm_records import append_line, read_lines, read_records, to_line
from qm_samples import Kind, Sample, compute_labels, read_sample, write_sample

log = logging.getLogger(__name__)

N_FULL, N_LOW = 12, 25  # promised for each training molecule
N_MORE_FULL, N_MORE_LOW = 30, 60  # as far as time allows, after everything else
N_DELTA_E = 4
N_MP2_GRADIENTS = 2
N_CC_FORCES = 2

MOST_ATTEMPTS = 5  # geometries of one conformer
MOST_FAILURES_IN_A_ROW = 10  # more is no matter of geometry


def plan_stages() -> dict[str, list[Sample]]:
    """Conformers by stage, in the order of computation."""
    return {
        "training": training_rounds(range(N_FULL), range(N_LOW)),
        "energy differences": rounds("delta_e", TEST, N_DELTA_E),
        "MP2 gradients": rounds("comp6", TEST_FOUR_HEAVY, N_MP2_GRADIENTS),
        "CC forces": rounds("cc_forces", CC_FORCE_MOLECULES, N_CC_FORCES),
        "more training": training_rounds(range(N_FULL, N_MORE_FULL), range(N_LOW, N_MORE_LOW)),
    }


def plan_samples() -> list[Sample]:
    """Every conformer, in the order of computation, each kind interleaved over its molecules."""
    return [sample for samples in plan_stages().values() for sample in samples]


def rounds(kind: Kind, molecules: dict[str, str] | tuple[str, ...], n: int) -> list[Sample]:
    """Conformers of one kind, one of each molecule at a time."""
    return [Sample(kind, name, index) for index in range(n) for name in molecules]


def training_rounds(full: range, low: range) -> list[Sample]:
    """Conformers with every label, one of each molecule at a time, and the others in proportion."""
    samples = []
    for done, index in enumerate(full, start=1):
        samples += [Sample("full", name, index) for name in [*FULLY_LABELLED, *DIMERS]]
        due = low[(done - 1) * len(low) // len(full) : done * len(low) // len(full)]
        samples += [Sample("low", name, i) for i in due for name in [*TRAINING, *DIMERS]]
    return samples


def text_file(records: Path, kind: str) -> Path:
    """Where the finished conformers of a kind are."""
    return records / f"{kind}.jsonl"


def finished(records: Path) -> dict[str, dict]:
    """Records of the finished conformers of every kind, by name."""
    kinds = dict.fromkeys(sample.kind for sample in plan_samples())
    return {k: r for kind in kinds for k, r in read_records(text_file(records, kind)).items()}


def count_failures(records: Path) -> Counter[str]:
    """How often each conformer failed."""
    return Counter(failure["sample"] for failure in read_lines(text_file(records, "failures")))


def missing_samples(records: Path) -> list[Sample]:
    """Conformers to compute, in order, each at its next attempt; without those given up."""
    done, failures = finished(records), count_failures(records)
    return [
        Sample(sample.kind, sample.molecule, sample.index, failures[sample.name])
        for sample in plan_samples()
        if sample.name not in done and failures[sample.name] < MOST_ATTEMPTS
    ]


def compute(sample: Sample, work: Path) -> tuple[Sample, str | None]:
    """Compute one conformer into the work folder; with the reason if that failed."""
    start = time.process_time()  # of the processor: the job may be paused
    try:
        molecule = source(sample.molecule)
        positions = molecule.draw(sample.seed)
        # No densities of other conformers: labels shall not depend on what was computed before.
        labels = compute_labels(sample, molecule.numbers, positions, {})
    except Exception as error:  # whatever it is, the other conformers can be computed
        return sample, f"{type(error).__name__}: {error}"
    about = {
        "attempt": np.array(sample.attempt),
        "seconds": np.array(round(time.process_time() - start, 1)),
        "atomic_numbers": molecule.numbers,
        "coordinates": positions,
    }
    write_sample(sample.path(work), about | labels)
    return sample, None


def keep(sample: Sample, records: Path, work: Path) -> None:
    """Append a conformer of the work folder to its text file, and remove it there."""
    line = to_line(sample.name, read_sample(sample.path(work)))
    append_line(text_file(records, sample.kind), line)
    sample.path(work).unlink()


def collect(records: Path, work: Path) -> None:
    """Append what a killed job left in the work folder, unless the text files have it."""
    done = finished(records)
    for sample in plan_samples():
        if sample.name in done:
            sample.path(work).unlink(missing_ok=True)
        elif sample.path(work).exists():
            keep(sample, records, work)


def results(samples: list[Sample], work: Path, workers: int) -> Iterator[tuple[Sample, str | None]]:
    """Compute samples, in this process if there is one worker."""
    if workers == 1:
        return (compute(sample, work) for sample in samples)
    jobs = (delayed(compute)(sample, work) for sample in samples)
    parallel = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
    return parallel(jobs)


def run(records: Path, work: Path, *, workers: int = 1, limit: int | None = None) -> None:
    """Compute what is missing, in the order of the plan: all of it, or at most `limit`."""
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "lock", timeout=0):  # a second job would compute the same
        collect(records, work)
        while samples := missing_samples(records)[:limit]:
            compute_all(samples, records, work, workers)
            if limit is not None:
                return
        done = finished(records)
        given_up = [sample.name for sample in plan_samples() if sample.name not in done]
        log.info("Finished; given up: %s", ", ".join(given_up) or "none")


def compute_all(samples: list[Sample], records: Path, work: Path, workers: int) -> None:
    """Compute samples once, and append each to its text file or to that of the failures."""
    n_plan, n_done, in_a_row = len(plan_samples()), len(finished(records)), 0
    for sample, failure in results(samples, work, workers):
        if failure is None:
            keep(sample, records, work)
            in_a_row, n_done = 0, n_done + 1
            log.info("%s: %d of %d", sample.name, n_done, n_plan)
            continue
        log.warning("%s failed: %s", sample.name, failure)
        note = {"sample": sample.name, "attempt": sample.attempt, "reason": failure}
        append_line(text_file(records, "failures"), json.dumps(note))
        in_a_row += 1
        if in_a_row > MOST_FAILURES_IN_A_ROW:
            raise RuntimeError(f"{in_a_row} conformers failed in a row, the last: {failure}")


def describe_plan(records: Path) -> str:
    """Table of the plan: conformers and hours by stage and kind."""
    return describe_hours(plan_stages(), finished(records))
