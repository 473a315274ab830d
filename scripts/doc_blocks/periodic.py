"""Numbers of the periodic structures of `generate_xtb_periodic.py`."""

from __future__ import annotations

import json

from doc_blocks.common import BENCHMARKS, RESULTS, block, section, sentences, surely

PERIODIC = RESULTS.with_name("results-periodic")
MF, WITHOUT = "MF-GFN1/EFS-GFN2/E", "MF-GFN1/E-GFN2/E"


@block
def periodic_stress() -> str:
    """What low-level forces and stress do for those of the high level."""
    found = section(PERIODIC, "experiments", "Models of GFN2")
    _, beside = found.tables
    for quantity in ("force, held-out GFN2: difference", "stress, held-out GFN2: difference"):
        surely(beside.cell(MF, quantity), -1)
    improvements, of_energies = (
        [
            beside.cell(name, f"{quantity}, held-out GFN2", after="improvement (%)")
            for quantity in ("energy", "force", "stress")
        ]
        for name in (MF, WITHOUT)
    )
    forces, stress = (
        section(PERIODIC, "experiments", f"GFN2 {what} nearer to GFN2 than GFN1 {what}")
        for what in ("forces", "stress")
    )
    own = (
        forces.tables[1].cell(MF, "the GFN1 forces themselves"),
        stress.tables[1].cell(MF, "the GFN1 stress itself"),
    )
    for table in (forces, stress):
        surely(table.tables[1].cell(MF, "difference"), 1)
    words = sentences(f"""
    GFN2 forces and stress were never trained on in the rows that end in GFN2/E. With energies,
    forces and stress of GFN1 beside them, errors of GFN2 energies, forces and stress are lower by
    {improvements[0]}, {improvements[1]} and {improvements[2]} % than with GFN2 energies alone; GFN1
    energies alone lower them by {of_energies[0]}, {of_energies[1]} and {of_energies[2]} %. It is a
    small model of few structures: the GFN1 forces and stress themselves are nearer to GFN2
    ({own[0]} kcal/mol/Å and {own[1]} GPa).
    """)
    return f"{words}\n\n{found.markdown}"


@block
def periodic_weight() -> str:
    """How the weight of the stress was chosen."""
    rows = json.loads((BENCHMARKS / "stress_weight.json").read_text(encoding="utf-8"))
    lines = [
        "| stress_weight | GFN1 energy (kcal/mol) | GFN1 force (kcal/mol/Å) | "
        "GFN1 stress (kcal/mol/Å³) | GFN2 energy (kcal/mol) |",
        "|---|---|---|---|---|",
    ]
    for row in rows["mean_absolute_errors"]:
        numbers = " | ".join(f"{value:.3g}" for value in row["errors"])
        lines.append(f"| {row['stress_weight']:g} | {numbers} |")
    return "\n".join(lines)
