"""Committed campaigns of strategies: documents and README follow from their metrics."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import shutil
from pathlib import Path

import pytest
from test_committed_results import assert_same_numbers

from hippynn_mf.paper.cc_forces import cc_force_tables
from hippynn_mf.paper.cc_forces_figure import cc_forces_data
from hippynn_mf.paper.documents import write_documents
from hippynn_mf.report.ensemble import find_ensembles
from hippynn_mf.report.results import read_results
from hippynn_mf.report.tables import TableData
from hippynn_mf.runs.experiment import strategies

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()
STRATEGIES = TOP / "experiments" / "strategies"
WHOLE, FEW_LABELS = STRATEGIES / "results", STRATEGIES / "results-30"
XTB, XTB_FEW_LABELS = STRATEGIES / "results-xtb", STRATEGIES / "results-xtb-30"
FOLDERS = [WHOLE, FEW_LABELS, XTB, XTB_FEW_LABELS]
# What documents a folder has.
STEMS = {
    WHOLE: {"strategies", "cc-forces"},
    FEW_LABELS: {"strategies", "cc-forces"},
    XTB: {"experiments"},
    XTB_FEW_LABELS: {"experiments"},
}

pytestmark = pytest.mark.usefixtures("registry")  # runs bring their levels along


def tables_of(folder, document="strategies"):
    content = json.loads((folder / "tables" / f"{document}.json").read_text())
    return [TableData.model_validate(table) for table in content["tables"]]


def test_every_strategy_has_the_same_eight_seeds():
    assert {e.name for e in strategies()} == set(read_results(WHOLE).by_name)
    for folder in (XTB, XTB_FEW_LABELS):
        names = {"SF-GFN2/E", "MF-GFN1/EF-GFN2/E", "MFC-GFN1/EF-GFN2/E"}
        assert set(read_results(folder).by_name) == names
    for folder in FOLDERS:
        results = read_results(folder)
        assert {tuple(results.seeds(name)) for name in results.by_name} == {tuple(range(8))}
        assert results.unfinished == {}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_committed_documents_are_those_of_the_metrics(folder, tmp_path):
    for path in [*folder.rglob("experiment.json"), *folder.rglob("metrics.json")]:
        target = tmp_path / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for path in folder.glob("runs/*/ensemble.json"):
        shutil.copy(path, tmp_path / path.relative_to(folder))
    write_documents(tmp_path, read_results(tmp_path))
    made = {path.name: path for path in (tmp_path / "tables").iterdir()}
    assert {f"{stem}{end}" for stem in STEMS[folder] for end in (".md", ".json")} <= made.keys()
    assert made.keys() == {path.name for path in (folder / "tables").iterdir()}
    for name, path in made.items():
        committed = folder / "tables" / name
        if path.suffix == ".md":
            assert committed.read_text() == path.read_text(), name
        else:
            stored, found = (json.loads(p.read_text()) for p in (committed, path))
            assert_same_numbers(stored, found, name)


def test_the_figure_of_cc_forces_is_that_of_the_metrics():
    stored = json.loads((WHOLE / "figures" / "cc-forces.json").read_text())
    results = read_results(WHOLE)
    specs = cc_force_tables(results)
    data = cc_forces_data(specs, results, find_ensembles(results, [r.name for r in specs[0].rows]))
    assert_same_numbers(stored, data.model_dump(mode="json"))


@functools.cache
def variant_tables():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOP / "scripts")
        script = importlib.import_module("try_head_variants")
    tables = {}
    for path in sorted((STRATEGIES / "variants").glob("*/variants.json")):
        rows = json.loads(path.read_text())["rows"]
        runs = sorted((row["variant"], row["seed"]) for row in rows)
        assert runs == sorted(itertools.product(script.VARIANTS, range(8)))
        tables[path.parent.name] = script.table(rows)
    return tables


def test_nothing_committed_names_the_machine_that_trained():
    for folder in FOLDERS:
        for path in folder.rglob("experiment.json"):
            settings = json.loads(path.read_text())["settings"]
            sources = [settings[name] for name in ("data", "comp6", "test_file") if settings[name]]
            assert not any(Path(source["path"]).is_absolute() for source in sources), path
