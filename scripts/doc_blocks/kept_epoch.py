"""Numbers of the study of kept epochs, `study_kept_epoch.py`."""

from __future__ import annotations

import json
from typing import Any

from doc_blocks.common import BENCHMARKS, RESULTS, block, mean, script, section, sentences

LINES = BENCHMARKS / "kept_epoch.jsonl"
ROBUST = RESULTS.with_name("results-robust")


def _lines() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = script("kept_epoch_tables").read_lines(LINES)
    return found


@block
def kept_epoch_rules() -> str:
    """Rules and averages in the same trainings."""
    lines = _lines()
    counts = {name: sum(line["data"] == name for line in lines) for name in ("few", "all", "real")}
    known = ", ".join(f"{n} with `{name}`" for name, n in counts.items() if n)
    table: str = script("kept_epoch_tables").rules_table(lines)
    return (
        sentences(f"""
    Errors beside those of the same training's `best_energy` epoch without an average: geometric
    mean of the ratios of all errors, RMSE and MAE, of both levels' energies and of forces, with
    the 95 % interval over the trainings ({known}; each has another split, weight or coupling).
    """)
        + f"\n\n{table}"
    )


@block
def kept_epoch_weights() -> str:
    """Force weights and coupling."""
    table: str = script("kept_epoch_tables").weights_table(_lines(), "last")
    return table


@block
def kept_epoch_choice() -> str:
    """What the preset robust has of it, as long as the study bears it."""
    study = script("kept_epoch_tables")
    lines = _lines()
    robust, base = study.preset_of_study(), ("none", "best_energy")
    if robust != ("none", "last", 4.0, "independent"):
        raise ValueError(f"The preset robust is {robust}; say anew how it was chosen.")
    texts = []
    for average in ("0.99", "0.999"):
        worse = study.mean_score(lines, (average, "last"), base)
        if worse <= 1:
            raise ValueError(f"The average {average} is no worse than none: {worse}")
        texts.append(f"{worse:.2f} with {average}")
    last = study.mean_score(lines, ("none", "last"), base)
    real, few = (study.weight_ratios(lines, name, 4.0) for name in ("real", "few"))
    n_real, n_few = (study.n_splits(lines, name) for name in ("real", "few"))
    means = {weight: study.mean_over_data(lines, weight) for weight in (2.0, 4.0, 10.0)}
    if not (abs(means[2.0] - means[4.0]) < 0.05 and means[10.0] > 1.1):
        raise ValueError(f"Means of the force weights are not what is said of them: {means}")
    if not (real["high force"] < 1 and real["high energy"] < 1 < few["high energy"]):
        raise ValueError(f"Weight 4 beside 1 is not what is said of it: {real}, {few}")
    return sentences(f"""
    So `robust` keeps the last epoch: under the cosine schedule the rules differ little (all errors
    {last:.2f} times those of `best_energy`, in the mean over all trainings), and no label can
    decide. It keeps no average, which lags behind a falling rate (errors {" and ".join(texts)}),
    and independent heads, for nothing sure speaks against the paper's. Its force weight is 4: on
    `real` ({n_real} splits) that multiplies the errors of the high level's energies by
    {real["high energy"]:.2f} and of its forces, which are never trained, by
    {real["high force"]:.2f}. It is no gift: on `few` ({n_few} splits) the low level's forces become
    {few["low force"]:.2f} times as wrong, its energies {few["low energy"]:.1f} times and the high
    level's {few["high energy"]:.1f} times. Whoever wants energies of few small molecules rather
    than forces takes `--set force_weight=1`. Where every data set counts once, all errors are
    {means[2.0]:.2f} times those with weight 1 with the weight 2, {means[4.0]:.2f} times with 4 and
    {means[10.0]:.2f} times with 10: the study does not tell 2 from 4, and 4 is better where the
    molecules are like those of ANI-1x.
    """)


@block
def kept_epoch_real() -> str:
    """Multi-fidelity beside forces of the high level, on real ANI-1x."""
    rows = json.loads((BENCHMARKS / "real_pairs.json").read_text(encoding="utf-8"))
    tables = script("kept_epoch_tables")
    table: str = tables.ratios(rows)
    of = {(row["preset"], row["quantity"], row["metric"]): row for row in rows}
    energy, force = (
        tables.ratio_of(of["robust", quantity, "mae"]) for quantity in ("energy", "force")
    )
    gains = [
        tables.mean_of(of["robust", quantity, "mae"], "multi")
        / tables.mean_of(of["quick", quantity, "mae"], "multi")
        for quantity in ("energy", "force")
    ]
    text = sentences(f"""
    With `robust`, MF-DZ/EF-TZ/E, which saw no TZ force, has energies {energy} times and forces
    {force} times as wrong (MAE) as SF-TZ/EF, which saw all of them. Its own errors with `robust`
    are {gains[0]:.2f} (energies) and {gains[1]:.2f} (forces) of those with `quick`. One split of
    1,000 structures; a ratio whose interval holds 1 does not say that there is no difference.
    """)
    return f"{table}\n\n{text}"


@block
def kept_epoch_rows() -> str:
    """The 17 rows with the preset robust, beside those of the paper's weights."""
    rows = {}
    texts = []
    for folder, name in ((RESULTS, "quick"), (ROBUST, "robust")):
        of_energies = section(folder, "table4", "Table 4").tables[0]
        of_forces = section(folder, "table2", "Table 2").tables[0]
        rows[name] = (
            mean(of_energies.cell("MF-DZ/EF-CC/E", "energy, held-out CC")),
            mean(of_forces.cell("MF-DZ/EF-TZ/E", "force, held-out TZ")),
        )
    for name in ("table2", "table3", "table4"):
        found = section(ROBUST, name, f"Table {name[-1]}")
        texts.append(f"**{found.title}**\n\n{found.markdown}")
    (energy, force), (robust_energy, robust_force) = rows["quick"], rows["robust"]
    words = sentences(f"""
    Beside the first tables, which have the paper's weights: held-out CC energies of MF-DZ/EF-CC/E
    have an RMSE of {robust_energy} kcal/mol here and {energy} there, held-out TZ forces of
    MF-DZ/EF-TZ/E {robust_force} and {force} kcal/mol/Å.
    """)
    return "\n\n".join([words, *texts])
