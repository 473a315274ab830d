"""Every table of a folder of runs, written in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hippynn_mf.evaluation.schema import HELDOUT
from hippynn_mf.files import make_folder, replace_when_complete, write_json
from hippynn_mf.paper import cc_forces, strategies
from hippynn_mf.paper.choice import (
    PAPER_SETS,
    are_of_paper,
    chosen_experiments,
    own_experiments,
)
from hippynn_mf.paper.claims import write_claims
from hippynn_mf.paper.tables import TABLES, low_level_tables, paper_table
from hippynn_mf.report.columns import TableSpec
from hippynn_mf.report.completeness import Written, missing_runs
from hippynn_mf.report.ensemble import EnsembleRecord, split_ensembles
from hippynn_mf.report.results import Results, Selection
from hippynn_mf.report.set_tables import set_tables
from hippynn_mf.report.table_data import TableData
from hippynn_mf.report.tables import build_table
from hippynn_mf.report.text import format_document


def document_specs(results: Results, selection: Selection) -> dict[str, list[TableSpec]]:
    """The tables of every document by its name, those without any row left out.

    - `table2` to `table4` and `low-level-forces` are the paper's, of its data or the embedded ones;
      `cc-forces` is there where such runs were tested on CC forces, and `strategies` where there
      are runs of strategies beside those of Table 1.
    - `experiments` is of the experiments that are not among those of this package; of all of them
      where the data are others.
    - `set-<name>` is of any other set that runs were tested on, and of all experiments.
    """
    chosen = chosen_experiments(results, selection)
    documents: dict[str, list[TableSpec]] = {}
    of_paper = are_of_paper(results)
    if of_paper:
        documents |= {f"table{number}": [paper_table(number, chosen)] for number in TABLES}
        documents["low-level-forces"] = low_level_tables(chosen)
    own = own_experiments(chosen, results)
    results = selection.of(results)
    documents["experiments"] = [
        spec
        for name in PAPER_SETS
        if name == HELDOUT or name in results.sets
        for spec in set_tables(results, name, own)
    ]
    if of_paper:
        documents[cc_forces.DOCUMENT] = cc_forces.cc_force_tables(results, selection.experiments)
    documents[strategies.STRATEGIES_DOCUMENT] = strategies.strategy_tables(
        results, selection.experiments
    )
    for name in results.sets:
        if name not in PAPER_SETS:
            there = [e for e in chosen if e.name in results.experiments]
            documents[f"set-{name}"] = set_tables(results, name, there)
    with_rows = {name: [s for s in specs if s.rows] for name, specs in documents.items()}
    return {name: specs for name, specs in with_rows.items() if specs}


def write_documents(out: Path, results: Results, selection: Selection | None = None) -> Written:
    """Write the tables of `document_specs` and the paper's findings, as `.md` and `.json`.

    They lie below `out/tables`. Where runs have several split seeds, those there are of the means
    over the splits, and every split has its own in `out/tables/split-S`.

    A document is written if the runs of all its rows are finished, for the chosen seeds or for all
    seeds that any of its rows has; otherwise it is left as it was, and the result says what it
    lacks. With chosen experiments, only those are rows. If the selection is partial, documents are
    written of what is there, and name what is missing. Files of MAEs are called `…-mae`; findings
    rest on RMSEs, and are not written for MAEs.
    """
    written = Written(out)
    for part, folder in split_parts(results, selection or Selection()):
        written += _write_documents(out, f"tables/{folder}".rstrip("/"), results, part)
    return written


def split_parts(results: Results, selection: Selection) -> list[tuple[Selection, str]]:
    """What documents of the means over splits, and of every split, are made of, and their folders.

    The folder is empty for what lies at the top: the means, or the only split that there is.
    """
    splits = results.split_seeds
    if len(splits) < 2:
        return [(selection, "")]
    if selection.split_seed is not None:
        return [(selection, f"split-{selection.split_seed}")]
    parts = [(replace(selection, split_seed=split), f"split-{split}") for split in splits]
    return [(selection, ""), *parts]


def _write_documents(out: Path, folder: str, results: Results, selection: Selection) -> Written:
    all_specs = document_specs(results, selection)
    chosen = selection.of(results)
    written = Written(out)
    ensembles: dict[str, dict[int, EnsembleRecord]] = {}
    for document, specs in all_specs.items():
        names = list(dict.fromkeys(name for spec in specs for name in spec.names))
        missing = missing_runs(chosen, names, selection.seeds)
        stem = document if selection.metric == "rmse" else f"{document}-{selection.metric}"
        if missing and not selection.partial:
            written.lacking[f"{folder}/{stem}.md"] = missing
            continue
        ensembles |= split_ensembles(chosen, [name for name in names if name not in ensembles])
        tables = build_tables(specs, chosen, ensembles, selection)
        path = out / folder / f"{stem}.md"
        make_folder(path.parent)
        # Without defaults, which are of tables over several splits.
        content = {"tables": [t.model_dump(mode="json", exclude_defaults=True) for t in tables]}
        write_json(path.with_suffix(".json"), content)
        with replace_when_complete(path) as unfinished:
            unfinished.write_text(format_document(tables), encoding="utf-8")
        written.paths.append(path)
    if selection.metric == "rmse":
        written += write_claims(out, results, selection, folder)
    return written


def build_tables(
    specs: Sequence[TableSpec],
    results: Results,
    ensembles: Mapping[str, Mapping[int, EnsembleRecord]],
    selection: Selection,
) -> list[TableData]:
    """The numbers of tables, each with what it lacks."""
    return [
        build_table(
            spec,
            results,
            ensembles,
            selection.metric,
            missing_runs(results, spec.names, selection.seeds),
        )
        for spec in specs
    ]
