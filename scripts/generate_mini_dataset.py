"""Compute the embedded data: three files in the published layouts, and minima with their modes.

`mini-ani1x.h5` trains and tests, `mini-comp6.h5` and `mini-cc-forces.h5` test only; `minima.json`
holds geometries and harmonic wavenumbers of water and methanol.

    pip install -e '.[qm]'
    python scripts/generate_mini_dataset.py --workers 2

Every finished conformer is one small file in the work folder, so a killed run loses at most the
conformers in progress, and a restart continues. Conformers already in the output files are
unpacked into the work folder first: the work folder itself need not be kept. `--assemble` writes
the output files from what is finished and computes nothing.

The second edition has larger molecules (`qm_second_edition.py`), and is computed, or continued from
its text files, by

    nice -n 19 python scripts/generate_mini_dataset.py --edition 2 --workers 1
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # read by the libraries when they load: one core, one job

import typer  # noqa: E402
from joblib import Parallel, delayed  # noqa: E402
from qm_files import assemble_ani1x, assemble_comp6, unpack  # noqa: E402
from qm_minima import write_minima  # noqa: E402
from qm_samples import Sample, compute_sample  # noqa: E402
from qm_starts import find_minimum  # noqa: E402
from tqdm import tqdm  # noqa: E402

FIRST_STAGE = 0.34  # share of the training conformers that is computed before the COMP6 ones

# Molecule: (conformers with every label, further conformers with ωB97X/6-31G(d) only).
TRAINING_MOLECULES = {
    "N2": (20, 25),
    "CO": (20, 25),
    "HNC": (40, 50),
    "cis-N2H2": (40, 50),
    **dict.fromkeys(
        ["H2O", "NH3", "CH4", "HCN", "C2H2", "H2CO", "CH2NH", "HNO", "H2O2", "trans-N2H2"], (68, 86)
    ),
    **dict.fromkeys(["C2H4", "NH2OH", "N2H4", "CH3OH", "H3CNH2", "C2H6"], (68, 86)),
}
COMP6_MOLECULES = dict.fromkeys(
    [
        *("CH3CN", "HCOOH", "HCONH2", "H2CCO", "HNCO", "OCHCHO"),
        *("CH3CHO", "NCCN", "C3H4_C3v", "C3H4_D2d", "CO2", "HCCCN"),
    ],
    6,
)

# Conformers of each training molecule with CCSD(T)/CBS forces; no model is trained on them.
N_CC_FORCES = 5


def plan_samples() -> list[Sample]:
    """Every conformer, in the order of computation: a third, COMP6, the rest, CC forces."""
    full = [
        Sample("full", name, i) for name, (n, _) in TRAINING_MOLECULES.items() for i in range(n)
    ]
    low = [Sample("low", name, i) for name, (_, n) in TRAINING_MOLECULES.items() for i in range(n)]
    comp6 = [Sample("comp6", name, i) for name, n in COMP6_MOLECULES.items() for i in range(n)]
    totals = {("full", name): n for name, (n, _) in TRAINING_MOLECULES.items()}
    totals |= {("low", name): n for name, (_, n) in TRAINING_MOLECULES.items()}

    def is_early(sample: Sample) -> bool:
        return sample.index < FIRST_STAGE * totals[sample.kind, sample.molecule]

    training = full + low
    early = [sample for sample in training if is_early(sample)]
    late = [sample for sample in training if not is_early(sample)]
    cc_forces = [
        Sample("cc_forces", name, i) for i in range(N_CC_FORCES) for name in TRAINING_MOLECULES
    ]
    return [*early, *comp6, *late, *cc_forces]


def compute_first_edition(
    out: Path, work: Path, *, workers: int, assemble: bool, limit: int | None
) -> None:
    """Compute the files of the first edition, or continue them."""
    samples = plan_samples()
    writers = {
        "mini-ani1x.h5": (assemble_ani1x, ("full", "low")),
        "mini-comp6.h5": (assemble_comp6, ("comp6",)),
        "mini-cc-forces.h5": (assemble_ani1x, ("cc_forces",)),
    }
    for name in writers:
        unpack(out / name, work)
    if not assemble:
        missing = [sample for sample in samples if not sample.path(work).exists()][:limit]
        minima = {name: find_minimum(name) for name in dict.fromkeys(s.molecule for s in missing)}
        jobs = (delayed(compute_sample)(s, minima[s.molecule], work) for s in missing)
        finished = Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)(jobs)
        for _ in tqdm(
            finished, total=len(samples), initial=len(samples) - len(missing), unit="conformer"
        ):
            pass
    out.mkdir(parents=True, exist_ok=True)
    for name, (assemble_file, kinds) in writers.items():
        n = assemble_file(out / name, work, [s for s in samples if s.kind in kinds])
        logging.info("%s: %d conformers", out / name, n)
    if not assemble and limit is None:
        write_minima(out / "minima.json")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the first edition's files.")] = Path(
        "hippynn_mf/embedded"
    ),
    work: Annotated[Path | None, typer.Option(help="Folder of single conformers.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 2,
    assemble: Annotated[bool, typer.Option(help="Write the files from what is finished.")] = False,
    limit: Annotated[int | None, typer.Option(help="Compute at most so many conformers.")] = None,
    edition: Annotated[int, typer.Option(min=1, max=2, help="Edition of the data.")] = 1,
    records: Annotated[Path, typer.Option(help="Text files of the second edition.")] = Path(
        "scripts/second_edition"
    ),
    plan: Annotated[bool, typer.Option(help="Print the second edition's plan in hours.")] = False,
) -> None:
    """Compute the embedded data set, or continue it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if edition == 1:
        work = work or Path("mini-dataset-work")
        compute_first_edition(out, work, workers=workers, assemble=assemble, limit=limit)
        return
    from qm_second_edition import describe_plan, run  # needs RDKit

    if plan:
        typer.echo(describe_plan(records))
    else:
        run(records, work or Path("second-edition-work"), workers=workers, limit=limit)


if __name__ == "__main__":
    typer.run(main)
