"""Numbers of the campaign of Table 1."""

from __future__ import annotations

from pathlib import Path

from doc_blocks.common import (
    RESULTS,
    WHOLE,
    block,
    document,
    lower_by,
    mean,
    section,
    sentences,
    surely,
)
from doc_blocks.tables import Section

IN_CC, IN_MF, IN_MFC = "SF-CC/E", "MF-DZ/EF-CC/E", "MFC-DZ/EF-CC/E"
TESTED = {"without": ("held-out", "COMP6", "difference")}  # columns of the file of CC forces


def table4() -> Section:
    """The table of CC energies."""
    return section(RESULTS, "table4", "Table 4")


@block
def result() -> str:
    """The table of the README, and what it says."""
    energy = table4().tables[1].cell(IN_MF, "energy, held-out CC", after="improvement (%)")
    published = table4().tables[1].cell(IN_MF, "energy, held-out CC", after="published (%)")
    force = "force, held-out TZ"
    table2 = section(RESULTS, "table2", "Table 2")
    forces = table2.tables[1].cell("MF-DZ/EF-TZ/E", force, after="improvement (%)")
    own = section(RESULTS, "low-level-forces", "TZ forces nearer")
    test = section(WHOLE, "cc-forces", "Errors at CC level").tables[0]
    labels = section(WHOLE, "cc-forces", "than DZ forces are").tables[1]
    text = f"""
    RMSEs of the coupled-cluster head over eight seeds, mean with 95 % interval, and of the seeds'
    mean prediction; "published" is the paper's result, on hundreds of times as much data. Cheap
    forces (DZ/EF) lower the error of coupled-cluster energies, for which no force was ever
    computed, by {lower_by(energy)} (paper: {published} %); cheap energies alone (DZ/E) do little.
    Where forces of the higher level are known (table 2), they lower the force error of its head
    by {lower_by(forces)}, from {mean(table2.tables[0].cell("SF-TZ/E", force))} to
    {mean(table2.tables[0].cell("MF-DZ/EF-TZ/E", force))} kcal/mol/Å, below the
    {own.tables[1].cell("MF-DZ/EF-TZ/E", "the DZ forces themselves")} by which the cheap forces
    themselves are wrong. Coupled-cluster forces, which the paper could not check, are checked
    here on new conformers: from {mean(test.cell(IN_CC, "force,", **TESTED))} to
    {mean(test.cell(IN_MF, "force,", **TESTED))} kcal/mol/Å, and to
    {mean(test.cell(IN_MFC, "force,", **TESTED))} with coupled heads, where the cheap forces
    themselves are wrong by {labels.cell(IN_MF, "the DZ forces themselves")}.
    """
    surely(own.tables[1].cell("MF-DZ/EF-TZ/E", "difference"), -1)
    return f"{table4().markdown}\n\n{sentences(text)}"


def _tables(folder: Path, name: str, *parts: str) -> str:
    found = section(folder, name, *parts)
    return f"**{found.title}**\n\n{found.markdown}"


@block
def paper_table2() -> str:
    """Table 2 as it is committed."""
    return _tables(RESULTS, "table2", "Table 2")


@block
def paper_table3() -> str:
    """Table 3 as it is committed."""
    return _tables(RESULTS, "table3", "Table 3")


@block
def paper_table4() -> str:
    """Table 4, and what predicting zero would give."""
    zero = next(value for column, value in table4().zero.items() if "COMP6" in column)
    note = f"Predicting zero would have an error of {zero} kcal/mol in the ΔE columns."
    return f"{_tables(RESULTS, 'table4', 'Table 4')}\n\n{note}"


@block
def paper_claims() -> str:
    """The paper's findings, and whether they are found here: the verdict beside the finding."""
    (found,) = document(RESULTS, "claims")
    (table,) = found.tables
    place = table.column("here")
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    moved = [[line[0], line[place], *line[1:place], *line[place + 1 :]] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in moved)


@block
def paper_mp2() -> str:
    """The paper's second case, which the embedded COMP6 file cannot show."""
    mp2 = section(RESULTS, "low-level-forces", "MP2 forces nearer")
    tz = section(RESULTS, "low-level-forces", "TZ forces nearer")
    model = "MF-DZ/EF-MP2/E"
    surely(mp2.tables[1].cell(model, "difference"), 1)
    surely(tz.tables[1].cell("MF-DZ/EF-TZ/E", "difference"), -1)
    (zero,) = mp2.zero.values()
    return sentences(f"""
    The forces of table 3 are above predicting zero ({zero} kcal/mol/Å). So the paper's second
    case, MP2 forces nearer to MP2 than the low level's own, is not seen on COMP6
    ({mean(mp2.tables[0].cell(model, "force,"))} against
    {mp2.tables[1].cell(model, "the DZ forces themselves")} kcal/mol/Å), whose molecules are
    larger than any that was trained on; on held-out structures the same holds for TZ forces
    ({mean(tz.tables[0].cell("MF-DZ/EF-TZ/E", "force,"))} against
    {tz.tables[1].cell("MF-DZ/EF-TZ/E", "the DZ forces themselves")}).
    """)
