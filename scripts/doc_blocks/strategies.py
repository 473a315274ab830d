"""Numbers of the campaigns of strategies, coupled heads and variants of heads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from doc_blocks.common import (
    FEW,
    STRATEGIES,
    WHOLE,
    XTB,
    XTB_FEW,
    block,
    higher_by,
    lower_by,
    mean,
    numbers,
    rows,
    script,
    section,
    sentences,
    size,
    surely,
    unsure,
)
from doc_blocks.table1 import IN_CC, IN_MF, IN_MFC, TESTED, table4
from doc_blocks.tables import MEAN_PREDICTION, Table
from hippynn_mf.report.kept import read_lines


@block
def strategies_high() -> str:
    """Errors of all strategies at the high level."""
    return section(WHOLE, "strategies", "at the high level").markdown


@block
def strategies_low() -> str:
    """Errors of all strategies at the low level."""
    return section(WHOLE, "strategies", "at the low level").markdown


@block
def strategies_few() -> str:
    """The same with 30 % of the labels."""
    return section(FEW, "strategies", "at the high level").markdown


@block
def strategies_cost() -> str:
    """What strategies cost."""
    table: str = script("benchmark_strategies").table(rows("strategies"))
    return table


@block
def strategies_said() -> str:
    """What the table of strategies says, of forces first."""
    errors = section(WHOLE, "strategies", "at the high level")
    beside = errors.tables[1]
    dz = section(WHOLE, "cc-forces", "than DZ forces are").tables[1]
    tz = section(WHOLE, "cc-forces", "than TZ forces are").tables[1]
    test = section(WHOLE, "cc-forces", "Errors at CC level")
    (zero,) = test.zero.values()

    def force(name: str) -> str:
        return mean(test.tables[0].cell(name, "force,", **TESTED))

    def gain(name: str, *column: str) -> str:
        place = beside.column(*column, "difference")
        return beside.row(name)[place + 1]

    tl, tlf, delta = "TL-DZ/EF-CC/E", "TLF-DZ/EF-CC/E", "DELTA-DZ/EF-CC/E"
    meta = "META-DZ/EF-CC/E"
    for name in (tlf, delta):
        unsure(beside.cell(name, "force,", "difference"))
        unsure(beside.cell(name, "energy, held-out CC", "difference"))
    unsure(beside.cell(IN_MFC, "energy, held-out CC", "difference"))
    unsure(dz.cell(IN_MF, "difference"))
    return sentences(f"""
    DZ energies hardly help with CC forces ({force("MF-DZ/E-CC/E")} instead of {force(IN_CC)}
    kcal/mol/Å); DZ forces bring the error to {force(IN_MF)}: as near to CC as the DZ forces
    themselves are ({dz.cell(IN_MF, "the DZ forces themselves")}; TZ forces
    {tz.cell(IN_MF, "the TZ forces themselves")}). Coupled heads get nearer, {force(IN_MFC)}
    ({dz.cell(IN_MFC, "the DZ forces themselves")} less
    {surely(dz.cell(IN_MFC, "difference"), -1)}), which is {lower_by(gain(IN_MFC, "force,"))} below
    independent heads; errors of energies do not differ surely. Transfer with all layers
    fine-tuned is farther from CC than DZ forces are, by {surely(dz.cell(tl, "difference"), 1)};
    with frozen interaction layers, and in Δ-learning, errors are like those of multi-fidelity
    learning with independent heads, within the intervals. Reptile, with its rate of 1 no more
    than levels that take turns, is worse than independent heads, in energies by
    {higher_by(gain(meta, "energy, held-out CC"))} and in forces by
    {higher_by(gain(meta, "force,"))}. Predicting zero would have {zero} kcal/mol/Å in the force
    column.
    """)


@block
def strategies_anew() -> str:
    """The same experiment in two campaigns."""
    here = section(WHOLE, "strategies", "at the high level").tables[0]
    there = table4().tables[0]
    column = "energy, held-out CC"
    return sentences(f"""
    All of these were trained anew, on other processors and by later code than the 17 models of
    Table 1: the same seeds give other weights there, and `{IN_MF}` has {here.cell(IN_MF, column)}
    here and {there.cell(IN_MF, column)} in table 4. Compare within a table.
    """)


PAIRS = {  # text → folder, document, model, parts of the columns of forces of the high level
    "DZ → CC, all": (WHOLE, "strategies", "DZ/EF-CC/E"),
    "DZ → CC, 30 %": (FEW, "strategies", "DZ/EF-CC/E"),
    "GFN1 → GFN2, all": (XTB, "experiments", "GFN1/EF-GFN2/E"),
    "GFN1 → GFN2, 30 %": (XTB_FEW, "experiments", "GFN1/EF-GFN2/E"),
}


def coupling_gains() -> dict[str, list[str]]:
    """Setting → improvements of coupled heads: energy, force of the high and of the low level."""
    found = {}
    for text, (folder, name, model) in PAIRS.items():
        low, high = (part.split("/")[0] for part in model.split("-"))
        cells = []
        for level, sections in ((high, ("at the high level",)), (low, ("at the low level",))):
            parts = sections if name == "strategies" else (f"Strategies of {model}",)
            table = section(folder, name, *parts).tables[1]
            for kind in ("energy,", "force,"):
                without = ("COMP6",) if kind == "force," else ("COMP6", "test file", "cc-forces")
                place = table.column(kind, level, "difference", without=without)
                cells.append(table.row(f"MFC-{model}")[place + 1])
        found[text] = cells
    return found


@block
def coupling_table() -> str:
    """By how much coupled heads improve on independent ones."""
    lines = [
        "| lower → higher level, labels of the higher one | energy, higher | force, higher "
        "| energy, lower | force, lower |",
        "|---" * 5 + "|",
    ]
    lines += [f"| {text} | " + " | ".join(cells) + " |" for text, cells in coupling_gains().items()]
    return "\n".join(lines)


@block
def coupling_said() -> str:
    """What is sure of that table."""
    gains = coupling_gains()
    for _, force, *_ in gains.values():
        lower_by(force)
    lower_by(gains["GFN1 → GFN2, all"][0])
    others = [cells[0] for text, cells in gains.items() if text != "GFN1 → GFN2, all"]
    if any(numbers(cell)[1] > 0 or numbers(cell)[2] < 0 for cell in others):
        raise ValueError(f"Energies of the high level are sure: {others}")
    low = section(FEW, "strategies", "at the low level").tables[1]
    cc = section(WHOLE, "strategies", "at the high level").tables[0]
    few = section(FEW, "strategies", "at the high level").tables[0]
    xtb, xtb_few = (
        section(folder, "experiments", "Models of GFN2").tables[0] for folder in (XTB, XTB_FEW)
    )

    def fall(table: Table, model: str, **how: Any) -> str:
        both = (table.cell(f"{p}-{model}", "force,", after=MEAN_PREDICTION, **how) for p in HEADS)
        return "from {} to {}".format(*both)

    dz, gfn = "DZ/EF-CC/E", "GFN1/EF-GFN2/E"
    return sentences(f"""
    On average over seeds, forces of the higher level are better in all four settings, by more
    than their intervals. So are held-out energies of GFN2 with all labels; elsewhere intervals of
    energies contain zero. Of the lower level nothing is surely lost, but a loss of DZ forces with
    30 % of the CC labels is likely, {unsure(low.cell(IN_MFC, "force,", "difference"))} kcal/mol/Å.
    (Each interval is for itself: of sixteen, one may well miss its number.) A part of the gain is
    that seeds scatter less: force errors of mean predictions fall {fall(cc, dz, **TESTED)} and
    {fall(few, dz, **TESTED)} kcal/mol/Å (CC, all labels and 30 %), {fall(xtb, gfn)} and
    {fall(xtb_few, gfn)} (GFN2).
    """)


HEADS = ("MF", "MFC")


@block
def own_heads() -> str:
    """Whether the head of the high level is nearer to it than the head of the low level."""

    def own(folder: Path) -> Table:
        if folder in (WHOLE, FEW):
            return section(folder, "cc-forces", "those of its DZ head").tables[1]
        return section(folder, "experiments", "those of its GFN1 head").tables[1]

    def cells(folder: Path, model: str) -> list[str]:
        return [own(folder).cell(f"{prefix}-{model}", "difference") for prefix in HEADS]

    few, whole = cells(FEW, "DZ/EF-CC/E"), cells(WHOLE, "DZ/EF-CC/E")
    xtb, xtb_few = cells(XTB, "GFN1/EF-GFN2/E"), cells(XTB_FEW, "GFN1/EF-GFN2/E")
    unsure(whole[0])
    labels = section(XTB, "experiments", "GFN1 forces are").tables[1]
    gfn1 = labels.cell("MF-GFN1/EF-GFN2/E", "the GFN1 forces themselves")
    return sentences(f"""
    With 30 % of the labels, an independent CC head is not surely nearer to CC or farther than the
    DZ head ({unsure(few[0])} farther), and a coupled one is nearer, by {surely(few[1], -1)}; with
    all labels, by {size(whole[0])} and {surely(whole[1], -1)}. An independent GFN2 head is
    farther from GFN2 than the GFN1 head, by {surely(xtb[0], 1)}, a coupled one not surely,
    {unsure(xtb[1])}; with 30 % of the labels both are, by {surely(xtb_few[0], 1)} and
    {surely(xtb_few[1], 1)}. There the GFN1 head serves as well for GFN2 forces, and GFN1 forces
    themselves, {gfn1} from those of GFN2, are nearer than any model's.
    """)


def variant_rows() -> list[dict[str, Any]]:
    """The runs of the variants of heads."""
    return read_lines(STRATEGIES / "variants" / "cc-all" / "variants.jsonl")


@block
def variants_table() -> str:
    """Errors of variants of heads and losses."""
    table: str = script("try_head_variants").table(variant_rows())
    return table


@block
def variants_said() -> str:
    """What that table says."""
    table = script("try_head_variants").table(variant_rows())
    learned = next(line for line in table.splitlines() if line.startswith("| learned"))
    energy = re.findall(r"\((.*?)\)", learned)[2]
    hidden = [row["valid"] for row in variant_rows() if row["variant"] == "hidden"]
    failed = [valid for valid in hidden if valid["energy_rmse.ccsd(t)_cbs"] > 10]
    return sentences(f"""
    None of the three pays, and none is an option of the package. The hidden layer, as it begins
    here (hippynn's small last weights), does not learn CC at all in {len(failed)} of
    {len(hidden)} seeds (validation error above 10 kcal/mol); a better start might help it.
    Learned weights make held-out CC energies worse, by {surely(energy, 1)} kcal/mol. The ridge
    changes nothing surely, at the one strength tried.
    """)
