"""Numbers of the checks of labels: `study_force_checks.py` and `try_wrong_inputs.py`."""

from __future__ import annotations

import json
from typing import Any

from doc_blocks.common import BENCHMARKS, block, rows, script, sentences

VERDICTS = ("refused", "undecided", "passed")


def _study() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BENCHMARKS / "force_checks.json").read_text())
    return found


@block
def force_checks() -> str:
    """Verdicts on right and wrong forces of random subsets."""
    study = _study()
    lines = [
        "| data | right | wrong sign | ×0.529 | ×1.89 | other unit | of other conformers |",
        "|---|---|---|---|---|---|---|",
    ]
    for data in study["sets"]:
        verdicts = data["verdicts"]
        others = ("eV/Å", "kcal/mol/Å", "read as eV/Å")
        cells = [
            *(
                _cell([verdicts[name]["both"]])
                for name in ("right", "wrong sign", "hartree/bohr", "times 1.89")
            ),
            _cell([verdicts[name]["both"] for name in others]),
            _cell([verdicts["of other structures"]["both"]]),
        ]
        mark = " (tuned on)" if data["rules_were_set_on_it"] else ""
        lines.append(f"| {data['data']}{mark} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(counts: list[dict[str, int]]) -> str:
    total = {verdict: sum(each.get(verdict, 0) for each in counts) for verdict in VERDICTS}
    return " / ".join(str(total[verdict]) for verdict in VERDICTS)


@block
def force_checks_summary() -> str:
    """What the slope alone did, as long as the study bears it."""
    study = _study()
    n = study["n_subsets"]
    if any(d["verdicts"]["right"]["both"] != {"passed": n} for d in study["sets"]):
        raise ValueError("Right forces no longer pass in every subset; say so.")
    if any(
        found["both"].get("passed")
        for data in study["sets"]
        for name, found in data["verdicts"].items()
        if name != "right"
    ):
        raise ValueError("Wrong forces pass; say so.")
    stiffness = [data["bond_stiffness"] for data in study["sets"]]
    correlations = [data["bond_correlation"] for data in study["sets"]]
    real = next(d for d in study["sets"] if d["data"].startswith("real ANI-1x, ωB97X/DZ"))
    slope = real["verdicts"]
    return sentences(f"""
    Refused / undecided / passed of {n} random subsets ({study["share"]:.0%} of the conformers) of
    each data set. No right forces were refused or left undecided, no wrong ones passed. The slope
    alone leaves right forces of the real ANI-1x, whose conformers are far apart, undecided in
    {slope["right"]["slope"].get("undecided", 0)} subsets, and passes
    {slope["hartree/bohr"]["slope"].get("passed", 0)} with forces in hartree/bohr. The bonds of
    hydrogen in all these data are {min(stiffness):.2f} to {max(stiffness):.2f} times as stiff as
    known ones, with correlations of {min(correlations):.2f} and more. What balance says of
    forces of other conformers is not counted here.
    """)


@block
def wrong_inputs() -> str:
    """What became of wrong inputs that a user may make."""
    table: str = script("try_wrong_inputs").table(rows("wrong_inputs"))
    return table
