"""What the second edition costs: hours by kind, from the times of finished conformers.

A conformer that is not finished is taken to need a power of the number of its cc-pVTZ functions,
scaled by the finished ones of its kind, or by the one that was timed before the job began.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from qm_molecules import DIMERS, FIRST_COMP6, FIRST_TRAINING, SMILES
from qm_samples import DIFFERENTIATED, Kind, Sample
from rdkit import Chem

EXPONENT = 3.3  # between ethanol and isobutane with every label
FUNCTIONS_OF_HYDROGEN, FUNCTIONS_OF_HEAVY = 14, 30

# One conformer of each kind, and its seconds with one thread of a desktop processor.
TIMED: dict[Kind, tuple[Sample, float]] = {
    "full": (Sample("full", "ethanol", 1), 29.4),
    "low": (Sample("low", "acetone", 0), 11.0),
    "delta_e": (Sample("delta_e", "propanal", 0), 36.6),
    "comp6": (Sample("comp6", "acrylonitrile", 1), 37.6),
    "cc_forces": (Sample("cc_forces", "HCONH2", 1), 122.9),
}


def symbols_of(molecule: str) -> list[str]:
    """Symbols of a molecule's or dimer's atoms."""
    if molecule in DIMERS:
        return [symbol for part in DIMERS[molecule] for symbol in symbols_of(part)]
    smiles = (FIRST_COMP6 | FIRST_TRAINING | SMILES)[molecule]
    return [atom.GetSymbol() for atom in Chem.AddHs(Chem.MolFromSmiles(smiles)).GetAtoms()]


def effort(sample: Sample) -> float:
    """Time of a conformer of this kind, in arbitrary units."""
    symbols = symbols_of(sample.molecule)
    n_hydrogen = symbols.count("H")
    n_heavy = len(symbols) - n_hydrogen
    size = FUNCTIONS_OF_HYDROGEN * n_hydrogen + FUNCTIONS_OF_HEAVY * n_heavy
    n_energies = 1
    if sample.kind in DIFFERENTIATED:
        n_steps = 2 if sample.index == 0 else 1
        n_energies = 2 * n_steps * max(3 * len(symbols) - 6, 1)
    return n_energies * size**EXPONENT


def estimate_seconds(
    samples: list[Sample], finished: Mapping[str, Mapping[str, Any]]
) -> dict[Sample, float]:
    """Seconds of every conformer: of the finished ones as measured."""
    measured: defaultdict[Kind, list[tuple[float, float]]] = defaultdict(list)
    for sample in samples:
        if sample.name in finished:
            seconds = finished[sample.name]["seconds"]
            measured[sample.kind].append((seconds, effort(sample)))
    rates = {kind: seconds / effort(sample) for kind, (sample, seconds) in TIMED.items()}
    for kind, pairs in measured.items():
        rates[kind] = sum(s for s, _ in pairs) / sum(e for _, e in pairs)
    return {
        sample: finished[sample.name]["seconds"]
        if sample.name in finished
        else rates[sample.kind] * effort(sample)
        for sample in samples
    }


def describe_hours(
    stages: Mapping[str, list[Sample]], finished: Mapping[str, Mapping[str, Any]]
) -> str:
    """Table of conformers and CPU-hours by stage and kind."""
    everything = [sample for samples in stages.values() for sample in samples]
    seconds = estimate_seconds(everything, finished)
    rows = [f"{'':22}{'kind':12}{'planned':>9}{'finished':>10}{'hours':>8}{'left':>8}"]

    def add_row(stage: str, kind: str, samples: list[Sample]) -> None:
        left = [sample for sample in samples if sample.name not in finished]
        hours, to_do = (sum(seconds[s] for s in group) / 3600 for group in (samples, left))
        n_done = len(samples) - len(left)
        rows.append(f"{stage:22}{kind:12}{len(samples):>9}{n_done:>10}{hours:>8.1f}{to_do:>8.1f}")

    for stage, samples in stages.items():
        for kind in dict.fromkeys(sample.kind for sample in samples):
            add_row(stage, kind, [sample for sample in samples if sample.kind == kind])
    add_row("all", "", everything)
    return "\n".join(rows)
