"""What the paper finds, model against model, and whether the runs here show it.

A finding says that one model has a lower error than another, or than the labels of a low level.
It is confirmed if the 95 % interval of the paired improvement lies above zero, contradicted if it
lies below, and open if it contains zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from hippynn_mf.files import make_folder, replace_when_complete, write_json
from hippynn_mf.levels import CC, DZ, MP2, TZ
from hippynn_mf.paper.choice import are_of_paper, chosen_experiments
from hippynn_mf.paper.published import DZ_TO_MP2_FORCES
from hippynn_mf.paper.tables import published_value
from hippynn_mf.report.columns import (
    Column,
    comp6_delta_e,
    comp6_force,
    heldout_energy,
    heldout_force,
)
from hippynn_mf.report.completeness import MissingRuns, Written, missing_runs
from hippynn_mf.report.ensemble import EnsembleRecord, split_ensembles
from hippynn_mf.report.results import Results, Selection
from hippynn_mf.report.statistics import (
    CONFIDENCE,
    Estimate,
    format_interval,
    percent_improvement,
    percent_of_means,
)
from hippynn_mf.report.tables import label_errors
from hippynn_mf.report.text import markdown
from hippynn_mf.schema import Strict

Verdict = Literal[
    "confirmed", "contradicted", "open", "too few seeds", "too few splits", "no numbers"
]
Over = Literal["seeds", "splits"]
DZ_LABELS = "the DZ labels themselves"


@dataclass(frozen=True)
class Claim:
    """The paper finds that `better` has a lower error than `worse` in a column.

    Both are experiments, but for `DZ_LABELS`.
    """

    text: str
    better: str
    worse: str
    column: Column


def _claims(text: str, better: str, worse: str, *columns: Column) -> list[Claim]:
    return [Claim(text, better, worse, column) for column in columns]


_IMPROVES = "low-level forces improve a model of high-level energies"
_FORCES = "it is the low level's forces that help, not its energies"
_NEARLY = "low-level forces do what high-level forces do for the energy"
_NOT_QUITE = "high-level forces are still better for forces"
_BOTH = "forces of both levels are better than those of the high level"
_BEATS = "forces of the high level are better than the low level's own"
_COSTS = "forces of the low level suffer from a second level"
_THIRD = "a third level with forces does harm"

CLAIMS: tuple[Claim, ...] = (
    *_claims(_IMPROVES, "MF-DZ/EF-TZ/E", "SF-TZ/E", heldout_energy(TZ), heldout_force(TZ)),
    *_claims(_IMPROVES, "MF-DZ/EF-MP2/E", "SF-MP2/E", heldout_energy(MP2), comp6_force(MP2)),
    *_claims(_IMPROVES, "MF-DZ/EF-CC/E", "SF-CC/E", heldout_energy(CC), comp6_delta_e(CC)),
    *_claims(_FORCES, "MF-DZ/EF-TZ/E", "MF-DZ/E-TZ/E", heldout_energy(TZ), heldout_force(TZ)),
    *_claims(_FORCES, "MF-DZ/EF-CC/E", "MF-DZ/E-CC/E", heldout_energy(CC), comp6_delta_e(CC)),
    *_claims(_NEARLY, "MF-DZ/EF-TZ/E", "SF-TZ/EF", heldout_energy(TZ)),
    *_claims(_NOT_QUITE, "SF-TZ/EF", "MF-DZ/EF-TZ/E", heldout_force(TZ)),
    *_claims(_BOTH, "MF-DZ/EF-TZ/EF", "SF-TZ/EF", heldout_energy(TZ), heldout_force(TZ)),
    *_claims(_BEATS, "MF-DZ/EF-MP2/E", DZ_LABELS, comp6_force(MP2)),
    *_claims(_COSTS, "SF-DZ/EF", "MF-DZ/EF-TZ/E", heldout_force(DZ)),
    *_claims(_COSTS, "SF-DZ/EF", "MF-DZ/EF-MP2/E", heldout_force(DZ)),
    *_claims(_COSTS, "SF-DZ/EF", "MF-DZ/EF-CC/E", heldout_force(DZ)),
    *_claims(_THIRD, "MF-DZ/EF-CC/E", "MF-DZ/EF-TZ/EF-CC/E", heldout_energy(CC), comp6_delta_e(CC)),
)


class Finding(Strict):
    """A claim with what the runs show: by how many percent the error of `better` is lower.

    `above_zero_prediction` says that even `better` has a larger error than predicting zero.
    """

    text: str
    better: str
    worse: str
    metric: str
    published_percent_improvement: float | None
    percent_improvement: Estimate | None
    verdict: Verdict
    above_zero_prediction: bool


class Findings(Strict):
    """The content of `tables/claims.json`; intervals are of means over seeds, or over splits."""

    format: Literal[1]
    confidence: float
    missing: list[str]
    findings: list[Finding]
    over: Over = "seeds"


def judge(improvement: Estimate | None, over: Over = "seeds") -> Verdict:
    """Whether an improvement is told from zero by its interval."""
    if improvement is None:
        return "no numbers"
    if improvement.low is None or improvement.high is None:
        return "too few seeds" if over == "seeds" else "too few splits"
    if improvement.low > 0:
        return "confirmed"
    return "contradicted" if improvement.high < 0 else "open"


def find(
    claim: Claim, results: Results, ensembles: Mapping[str, Mapping[int, EnsembleRecord]]
) -> Finding:
    """What the runs show of a claim."""
    better = results.values(claim.better, claim.column)
    zero = results.values(claim.better, claim.column, "label_rms")
    if claim.worse == DZ_LABELS:
        records = ensembles.get(claim.better, {})
        worse = label_errors(records, claim.column.at_head(DZ), "rmse")
        if results.over == "seeds" and len(worse):
            worse = pd.Series(worse.mean(), better.index)
        improvement = percent_improvement(better, worse)
    else:
        places = (claim.better, claim.column), (claim.worse, claim.column)
        improvement = percent_improvement(*results.paired(*places))
    published = [
        published_value(claim.better, claim.column),
        DZ_TO_MP2_FORCES
        if claim.worse == DZ_LABELS
        else published_value(claim.worse, claim.column),
    ]
    return Finding(
        text=claim.text,
        better=claim.better,
        worse=claim.worse,
        metric=claim.column.heading,
        published_percent_improvement=(
            None
            if published[0] is None or published[1] is None
            else percent_of_means(published[0], published[1])
        ),
        percent_improvement=improvement,
        verdict=judge(improvement, results.over),
        above_zero_prediction=bool(better.mean() > zero.mean()),  # without values, no,
    )


HEADING = ("the paper finds that", "lower error", "than", "in", "by (%)", "published", "here")
NOTES = """\
- by: improvement in percent with its 95 % interval, 100·(1 − exp(mean d ± t·s/√n)) with d the
  logarithms of the ratios of both RMSEs of one {unit}; published: from the published means (— where
  they are in the Supporting Information only).
- here: *confirmed* if the interval lies above zero, *contradicted* if below, *open* if it contains
  zero. Each interval stands alone: of twenty, one is expected to miss. They cover what {by}
- †: even the lower error is above that of predicting zero."""
COVERED = {
    "seeds": "the seed\n  changes, not the choice of structures.",
    "splits": "the choice\n  of structures and seed change; a split is the mean over its seeds.",
}


def claim_lines(findings: Findings) -> tuple[list[Sequence[str]], list[str]]:
    """The claims as a heading and rows, and the notes below them."""
    lines: list[Sequence[str]] = [HEADING]
    for f in findings.findings:
        published = f.published_percent_improvement
        text = "—" if published is None else f"{published:.1f}".replace("-", "−")
        by = format_interval(f.percent_improvement)
        verdict = f.verdict + (" †" if f.above_zero_prediction else "")
        lines.append((f.text, f.better, f.worse, f.metric, by, text, verdict))
    notes = _notes(findings).replace("\n  ", " ").replace("*", "").replace("- ", "").splitlines()
    return lines, notes


def format_claims(findings: Findings) -> str:
    """The claims as one Markdown table."""
    lines, _ = claim_lines(findings)
    text = ["## What the paper finds, and what is found here", "", markdown(lines)]
    if findings.missing:
        text += ["", f"- **Partial.** Missing: {'; '.join(findings.missing)}."]
    return "\n".join([*text, "", _notes(findings)]) + "\n"


def _notes(findings: Findings) -> str:
    unit = "seed" if findings.over == "seeds" else "split"
    return NOTES.format(unit=unit, by=COVERED[findings.over])


def chosen_claims(results: Results, selection: Selection) -> list[Claim]:
    """The claims about the chosen experiments; none where the data are not the paper's."""
    if not are_of_paper(results):
        return []
    names = {e.name for e in chosen_experiments(results, selection)} | {DZ_LABELS}
    return [claim for claim in CLAIMS if names.issuperset((claim.better, claim.worse))]


def find_claims(results: Results, selection: Selection) -> tuple[Findings, list[MissingRuns]]:
    """What the runs that are there show of the chosen claims, and the runs that are missing."""
    claims = chosen_claims(results, selection)
    needed = {name for claim in claims for name in (claim.better, claim.worse)} - {DZ_LABELS}
    results = selection.of(results)
    missing = missing_runs(results, sorted(needed), selection.seeds) if claims else []
    beside_labels = [claim.better for claim in claims if claim.worse == DZ_LABELS]
    ensembles = split_ensembles(results, beside_labels)
    findings = Findings(
        format=1,
        confidence=CONFIDENCE,
        missing=[str(run) for run in missing],
        findings=[find(claim, results, ensembles) for claim in claims],
        over=results.over,
    )
    return findings, missing


def write_claims(
    out: Path, results: Results, selection: Selection, folder: str = "tables"
) -> Written:
    """Write `claims.md` and `.json` of the claims about the chosen experiments to `out/folder`."""
    findings, missing = find_claims(results, selection)
    if missing and not selection.partial:
        return Written(out, lacking={f"{folder}/claims.md": missing})
    if not findings.findings:
        return Written(out)
    path = out / folder / "claims.md"
    make_folder(path.parent)
    write_json(path.with_suffix(".json"), findings.model_dump(mode="json", exclude_defaults=True))
    with replace_when_complete(path) as unfinished:
        unfinished.write_text(format_claims(findings), encoding="utf-8")
    return Written(out, [path])
