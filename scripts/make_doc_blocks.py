"""Write the numbers of README and documentation from the committed results.

    python scripts/make_doc_blocks.py            # rewrites the blocks that differ, and names them
    python scripts/make_doc_blocks.py --check    # only says which differ

A block stands between two comments, which readers do not see:

    <!-- generated: scripts/make_doc_blocks.py NAME -->
    <!-- end -->

What is between them is made here, from tables below `experiments/`, from `scripts/benchmarks/` and
from the embedded data. A sentence that says more than its numbers ("surely lower") is checked where
it is made: if the results no longer say so, nothing is written.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import h5py
import typer
from doc_tables import MEAN_PREDICTION, Section, Table, find_section, read_document

TOP = Path(__file__).parent.parent
RESULTS = TOP / "experiments" / "results"
STRATEGIES = TOP / "experiments" / "strategies"
WHOLE, FEW = STRATEGIES / "results", STRATEGIES / "results-30"
XTB, XTB_FEW = STRATEGIES / "results-xtb", STRATEGIES / "results-xtb-30"
BENCHMARKS = TOP / "scripts" / "benchmarks"
PATTERN = re.compile(
    r"(?P<start><!-- generated: scripts/make_doc_blocks\.py (?P<name>[a-z0-9-]+) -->\n)"
    r"(?P<body>.*?)(?P<end><!-- end -->)",
    flags=re.DOTALL,
)

Block = Callable[[], str]
BLOCKS: dict[str, Block] = {}

IN_CC, IN_MF, IN_MFC = "SF-CC/E", "MF-DZ/EF-CC/E", "MFC-DZ/EF-CC/E"
TESTED = {"without": ("held-out", "COMP6", "difference")}  # columns of the file of CC forces


def block(function: Block) -> Block:
    """Make a function the source of the block of its name."""
    BLOCKS[function.__name__.replace("_", "-")] = function
    return function


def sentences(text: str) -> str:
    """Text as a paragraph, with lines that break between words only."""
    words = " ".join(text.split())
    return textwrap.fill(words, 110, break_long_words=False, break_on_hyphens=False)


@lru_cache
def document(folder: Path, name: str) -> list[Section]:
    """The sections of a committed document."""
    return read_document(folder / "tables" / f"{name}.md")


def section(folder: Path, name: str, *parts: str) -> Section:
    """A section of a committed document."""
    return find_section(document(folder, name), *parts)


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of a benchmark."""
    found: list[dict[str, Any]] = json.loads((BENCHMARKS / f"{name}.json").read_text())["rows"]
    return found


def script(name: str) -> Any:
    """Another script of this folder."""
    folder = str(Path(__file__).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def numbers(text: str) -> list[float]:
    """The numbers in a cell."""
    return [float(n.replace("−", "-")) for n in re.findall(r"[−-]?\d+(?:\.\d+)?", text)]


def mean(cell: str) -> str:
    """The mean of a cell `mean ± half width`."""
    return cell.split(" ")[0]


def size(cell: str) -> str:
    """A difference without its sign."""
    return cell.lstrip("+−")


def lower_by(cell: str) -> str:
    """An improvement whose whole interval is above zero, `49.5 % [36.4, 59.8]`."""
    _, low, _ = numbers(cell)
    if low <= 0:
        raise ValueError(f"{cell} is no sure improvement")
    value, interval = cell.split(" ", 1)
    return f"{value} % {interval}"


def higher_by(cell: str) -> str:
    """An improvement whose whole interval is below zero, as the size of the loss."""
    value, low, high = numbers(cell)
    if high >= 0:
        raise ValueError(f"{cell} is no sure loss")
    return f"{-value:.1f} % [{-high:.1f}, {-low:.1f}]"


def surely(cell: str, sign: int) -> str:
    """The size of a difference whose interval is on one side of zero."""
    value, half_width = numbers(cell)
    if sign * value <= half_width:
        raise ValueError(f"{cell} is not surely of sign {sign}")
    return size(cell)


def unsure(cell: str) -> str:
    """The size of a difference whose interval contains zero."""
    value, half_width = numbers(cell)
    if abs(value) > half_width:
        raise ValueError(f"{cell} is sure")
    return size(cell)


# Table 1


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
    forces (DZ/EF) lower the error of coupled-cluster energies, for which no force was ever computed,
    by {lower_by(energy)} (paper: {published} %); cheap energies alone (DZ/E) do little. Where forces
    of the higher level are known (table 2), they lower the force error of its head by
    {lower_by(forces)}, from {mean(table2.tables[0].cell("SF-TZ/E", force))} to
    {mean(table2.tables[0].cell("MF-DZ/EF-TZ/E", force))} kcal/mol/Å, below the
    {own.tables[1].cell("MF-DZ/EF-TZ/E", "the DZ forces themselves")} by which the cheap forces
    themselves are wrong. Coupled-cluster forces, which the paper could not check, are checked here on
    new conformers: from {mean(test.cell(IN_CC, "force", **TESTED))} to
    {mean(test.cell(IN_MF, "force", **TESTED))} kcal/mol/Å, and to
    {mean(test.cell(IN_MFC, "force", **TESTED))} with coupled heads, where the cheap forces
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
    """The paper's findings, and whether they are found here."""
    (found,) = document(RESULTS, "claims")
    return found.markdown


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
    The forces of table 3 are above predicting zero ({zero} kcal/mol/Å). So the paper's second case, MP2
    forces nearer to MP2 than the low level's own, is not seen on COMP6
    ({mean(mp2.tables[0].cell(model, "force"))} against
    {mp2.tables[1].cell(model, "the DZ forces themselves")} kcal/mol/Å), whose molecules are larger than
    any that was trained on; on held-out structures the same holds for TZ forces
    ({mean(tz.tables[0].cell("MF-DZ/EF-TZ/E", "force"))} against
    {tz.tables[1].cell("MF-DZ/EF-TZ/E", "the DZ forces themselves")}).
    """)


# strategies


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
        return mean(test.tables[0].cell(name, "force", **TESTED))

    def gain(name: str, *column: str) -> str:
        place = beside.column(*column, "difference")
        return beside.row(name)[place + 1]

    tl, tlf, delta = "TL-DZ/EF-CC/E", "TLF-DZ/EF-CC/E", "DELTA-DZ/EF-CC/E"
    meta = "META-DZ/EF-CC/E"
    for name in (tlf, delta):
        unsure(beside.cell(name, "force", "difference"))
        unsure(beside.cell(name, "energy, held-out CC", "difference"))
    unsure(beside.cell(IN_MFC, "energy, held-out CC", "difference"))
    unsure(dz.cell(IN_MF, "difference"))
    return sentences(f"""
    DZ energies hardly help with CC forces ({force("MF-DZ/E-CC/E")} instead of {force(IN_CC)}
    kcal/mol/Å); DZ forces bring the error to {force(IN_MF)}: as near to CC as the DZ forces themselves
    are ({dz.cell(IN_MF, "the DZ forces themselves")}; TZ forces
    {tz.cell(IN_MF, "the TZ forces themselves")}). Coupled heads get nearer, {force(IN_MFC)}
    ({dz.cell(IN_MFC, "the DZ forces themselves")} less {surely(dz.cell(IN_MFC, "difference"), -1)}),
    which is {lower_by(gain(IN_MFC, "force"))} below independent heads; errors of energies do not differ
    surely. Transfer with all layers fine-tuned is farther from CC than DZ forces are, by
    {surely(dz.cell(tl, "difference"), 1)}; with frozen interaction layers, and in Δ-learning, errors are
    like those of multi-fidelity learning with independent heads, within the intervals. Reptile, with its
    rate of 1 no more than levels that take turns, is worse than independent heads, in energies by
    {higher_by(gain(meta, "energy, held-out CC"))} and in forces by {higher_by(gain(meta, "force"))}.
    Predicting zero would have {zero} kcal/mol/Å in the force column.
    """)


@block
def strategies_anew() -> str:
    """The same experiment in two campaigns."""
    here = section(WHOLE, "strategies", "at the high level").tables[0]
    there = table4().tables[0]
    column = "energy, held-out CC"
    return sentences(f"""
    All of these were trained anew, on other processors and by later code than the 17 models of Table 1:
    the same seeds give other weights there, and `{IN_MF}` has {here.cell(IN_MF, column)} here and
    {there.cell(IN_MF, column)} in table 4. Compare within a table.
    """)


PAIRS = {  # text → folder, document, model, parts of the columns of forces of the high level
    "DZ → CC, all": (WHOLE, "strategies", "DZ/EF-CC/E"),
    "DZ → CC, 30 %": (FEW, "strategies", "DZ/EF-CC/E"),
    "GFN1 → GFN2, all": (XTB, "experiments", "GFN1/EF-GFN2/E"),
    "GFN1 → GFN2, 30 %": (XTB_FEW, "experiments", "GFN1/EF-GFN2/E"),
}


def coupling_gains() -> dict[str, list[str]]:
    """Setting → improvements of coupled heads, of energy and force of the high and the low level."""
    found = {}
    for text, (folder, name, model) in PAIRS.items():
        low, high = (part.split("/")[0] for part in model.split("-"))
        cells = []
        for level, sections in ((high, ("at the high level",)), (low, ("at the low level",))):
            parts = sections if name == "strategies" else (f"Strategies of {model}",)
            table = section(folder, name, *parts).tables[1]
            for kind in ("energy", "force"):
                without = ("COMP6",) if kind == "force" else ("COMP6", "test file", "cc-forces")
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
        both = (table.cell(f"{p}-{model}", "force", after=MEAN_PREDICTION, **how) for p in HEADS)
        return "from {} to {}".format(*both)

    dz, gfn = "DZ/EF-CC/E", "GFN1/EF-GFN2/E"
    return sentences(f"""
    On average over seeds, forces of the higher level are better in all four settings, by more than their
    intervals. So are held-out energies of GFN2 with all labels; elsewhere intervals of energies contain
    zero. Of the lower level nothing is surely lost, but a loss of DZ forces with 30 % of the CC labels is
    likely, {unsure(low.cell(IN_MFC, "force", "difference"))} kcal/mol/Å. (Each interval is for itself: of
    sixteen, one may well miss its number.) A part of the gain is that seeds scatter less: force errors of
    mean predictions fall {fall(cc, dz, **TESTED)} and {fall(few, dz, **TESTED)} kcal/mol/Å (CC, all labels
    and 30 %), {fall(xtb, gfn)} and {fall(xtb_few, gfn)} (GFN2).
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
    With 30 % of the labels, an independent CC head is not surely nearer to CC or farther than the DZ head
    ({unsure(few[0])} farther), and a coupled one is nearer, by {surely(few[1], -1)}; with all labels, by
    {size(whole[0])} and {surely(whole[1], -1)}. An independent GFN2 head is farther from GFN2 than the GFN1
    head, by {surely(xtb[0], 1)}, a coupled one not surely, {unsure(xtb[1])}; with 30 % of the labels both
    are, by {surely(xtb_few[0], 1)} and {surely(xtb_few[1], 1)}. There the GFN1 head serves as well for GFN2
    forces, and GFN1 forces themselves, {gfn1} from those of GFN2, are nearer than any model's.
    """)


def variant_rows() -> list[dict[str, Any]]:
    """The runs of the variants of heads."""
    path = STRATEGIES / "variants" / "cc-all" / "variants.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return found


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
    None of the three pays, and none is an option of the package. The hidden layer, as it begins here
    (hippynn's small last weights), does not learn CC at all in {len(failed)} of {len(hidden)} seeds
    (validation error above 10 kcal/mol); a better start might help it. Learned weights make held-out CC
    energies worse, by {surely(energy, 1)} kcal/mol. The ridge changes nothing surely, at the one strength
    tried.
    """)


# potentials, speed


@block
def minima() -> str:
    """Minima and vibrations of the shipped model: a few seconds."""
    from hippynn_mf.potentials.potential import Potential

    table: str = script("compare_minima").table(Potential.load("mini-ani1x"))
    return table


@block
def speed() -> str:
    """Steps, dynamics and memory beside hippynn's."""
    benchmarks = script("benchmark_all")
    table: str = benchmarks.summary(benchmarks.read(BENCHMARKS))
    return table


@block
def second_level() -> str:
    """What a second level with forces costs."""
    steps = {row["labels"]: row for row in rows("step") if row["factor"] in ("base", "labels")}
    one, two = steps["DZ/EF"], steps["DZ/EF + TZ/EF"]
    ratio, stock = (two[name] / one[name] for name in ("fast_ms", "stock_ms"))
    return sentences(f"""
    A training step on forces of two levels (DZ/EF + TZ/EF) takes {ratio:.2f} times that on forces of one
    (hippynn's own layers: {stock:.2f}).
    """)


@block
def ensemble_cost() -> str:
    """What the members of an ensemble cost together."""
    table: str = script("benchmark_ensemble").summary(rows("ensemble"))
    return table


@block
def predict_speed() -> str:
    """From file to file beside the bare graph."""
    found = rows("predict")
    table: str = script("benchmark_predict").table(found)
    goal = [row["fraction"] for row in found if row["fraction"] >= 0.8]
    return (
        table
        + "\n\n"
        + sentences(f"""
    {len(goal)} of {len(found)} are above the goal of 0.8; what stays below are small files of small
    molecules, in which reading and writing take as long as half of the graph or longer, and where another
    process would hardly have started before they end.
    """)
    )


@block
def extract_cost() -> str:
    """One level alone beside a model built with that level."""
    return sentences(f"""
    It is as fast as a model built with that level only: at most
    {max(row["ratio"] for row in rows("extract")):.3f} of its time
    (`python scripts/benchmark_extract.py`).
    """)


@block
def reading() -> str:
    """Reading files of the size of ANI-1x."""
    found = rows("reading")
    table: str = script("benchmark_reading").table(found)
    libraries = max(row["libraries_mib"] for row in found)
    return (
        table
        + "\n\n"
        + sentences(f"""
    `splits` is `load_splits` alone, `database` is `hippynn_mf.load_database`; the file was in the
    operating system's cache (warm), imports are not counted, and peak memory is that of the whole process,
    of which the libraries alone take up to {libraries:.0f} MiB.
    """)
    )


@block
def spread() -> str:
    """Whether the spread of an ensemble tells its errors."""
    content = json.loads((RESULTS / "figures" / "spread-mf_dz_ef_cc_e.json").read_text())
    found = {(p["part"], p["level"], p["kind"]): p["calibration"] for p in content["panels"]}
    cc = found["heldout", "ccsd(t)_cbs", "energy"]
    forces = found["heldout", "wb97x_dz", "forces"]
    far = found["comp6", "ccsd(t)_cbs", "delta_e"]
    return sentences(f"""
    On held-out structures the spread has the size of the error of CC energies (error/spread
    {cc["ratio"]:.2f}) but hardly finds the wrong ones (Spearman {cc["spearman"]:.2f}, of DZ forces
    {forces["spearman"]:.2f}); on the larger molecules of COMP6 errors of conformer energies are
    {far["ratio"]:.2f} times the spread.
    """)


# data


@block
def embedded_data() -> str:
    """How much the embedded files hold."""
    from hippynn_mf.data.embedded import MINI_ANI1X, MINI_CC_FORCES, MINI_COMP6
    from hippynn_mf.data.info import describe_file

    info = describe_file(MINI_ANI1X)
    n_forces = describe_file(MINI_CC_FORCES)["n_structures"]
    molecules = list(_molecules(MINI_COMP6))
    published = script("make_synthetic_ani1x").N_CC
    return sentences(f"""
    `mini-ani1x.h5` has {info["n_structures"]:,} conformers of small molecules, of which
    {info["n_common"]:,} carry every label; those are used by default. That is
    1/{published / info["n_common"]:.0f} of the conformers with every label in ANI-1x.
    `mini-comp6.h5` holds {sum(molecules)} conformers of {len(molecules)} molecules with three or four heavy
    atoms, `mini-cc-forces.h5` {n_forces} conformers with coupled-cluster forces.
    """)


def _molecules(path: Path) -> Iterator[int]:
    """The number of conformers of every molecule of a file in the COMP6 layout."""
    with h5py.File(path) as file:
        for group in file.values():
            for molecule in group.values():
                yield len(molecule["coordinates"])


@block
def settings() -> str:
    """Every setting of a run: made from the models where that script is there."""
    try:
        made: str = script("make_settings_page").settings_tables()
    except ModuleNotFoundError:
        return hyperparameters()
    return made


def hyperparameters() -> str:
    """Every hyperparameter, with the values of both presets."""
    from hippynn_mf.hyperparameters import PRESETS

    quick, paper = (PRESETS[name].model_dump(mode="json") for name in ("quick", "paper"))
    lines = ["| name | `quick` | `paper` |", "|---|---|---|"]
    lines += [f"| `{name}` | `{quick[name]}` | `{paper[name]}` |" for name in quick]
    return "\n".join(lines)


# files


def documented_files() -> list[Path]:
    """The files that may hold blocks."""
    pages = (path for path in (TOP / "docs").rglob("*.md") if "_build" not in path.parts)
    return [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted(pages)]


def refresh(text: str) -> tuple[str, list[str]]:
    """A text with its blocks made anew, and the names of those that differ."""
    different = []

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in BLOCKS:
            raise LookupError(f"No block {name!r}; known: {', '.join(sorted(BLOCKS))}.")
        body = f"\n{BLOCKS[name]().rstrip()}\n\n"
        if body != match["body"]:
            different.append(name)
        return match["start"] + body + match["end"]

    return PATTERN.sub(made, text), different


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing.")] = False,
) -> None:
    """Write every block again."""
    stale = False
    for path in documented_files():
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        fresh, different = refresh(text)
        for name in different:
            typer.echo(f"{path.relative_to(TOP)}: {name}")
        stale = stale or bool(different)
        if different and not check:
            path.write_text(fresh, encoding="utf-8")
    if check and stale:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
