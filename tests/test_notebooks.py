"""Every notebook runs, its results are right, and the committed outputs are those of a run."""

from __future__ import annotations

import copy
import importlib
import re
from pathlib import Path

import nbformat
import pytest

TOP = Path(__file__).parent.parent
NOTEBOOKS = sorted((TOP / "notebooks").glob("*.ipynb"))
LARGEST_KB = 150
SLOWEST_S = 300  # of a cell, on a machine that does much else

# What must be true at the end of a notebook, run in its kernel.
CHECKS = {
    "levels_and_labels": """
assert info["n_structures"] == len(structures) == labelled[:, 0].sum()
assert info["n_common"] == shared[0, -1] == common.sum() < len(structures)
assert [f"{level.label} E" in columns for level in labels] == 4 * [True]
for values in energies.values():  # what is left is orthogonal to the numbers of atoms
    left_over = without_atoms(values)
    assert abs(counts.T @ left_over).max() < 1e-6 * abs(counts.T @ values).max()
    assert rms(within_formulas(values)) < rms(left_over) < rms(values)
for level in labels:
    if level.label != "DZ":
        difference = energies[level.label] - energies["DZ"]
        assert rms(within_formulas(difference)) < 0.2 * rms(within_formulas(energies["DZ"]))
assert force_difference < 0.5 * rms(forces["DZ"])
""",
    "two_levels_in_hippynn": """
assert largest < 1e-4 < 1 < abs(forces).max()
assert abs(forces.sum(axis=0)).max() < 1e-6  # nothing moves the molecule as a whole
assert list(heads) == ["wb97x_dz", "ccsd(t)_cbs"] and list(single) == ["ccsd(t)_cbs"]
for values in (curve(tracker, f"energy_rmse.{cc.id}"), curve(tracker, f"force_rmse.{dz.id}")):
    assert len(values) == EPOCHS and values[-1] < 0.8 * values[0]
assert 0 < multi_rmse < 10 and 0 < single_rmse < 10
""",
    "tables_and_figure3": """
(bar,) = [bar for bar in data.bars if (bar.level, bar.metric) == ("CC", "energy")]
found = bar.percent_improvement
np.testing.assert_allclose([found.value, found.low, found.high], [value, low, high])
assert len(single) == len(multi) == len(bar.values_percent) >= 3
assert all(same) and len(same) == len(written.paths)
assert sum(verdicts.values()) == len(claims["findings"])
""",
    "torsion_and_dynamics": """
assert total.std() < 0.05 * kinetic.std()  # forces are the derivative of the energy
assert (column["energy_std"] > 0).all() and (column["forces_std"] > 0).all()
for level in potential.levels:
    of_level = scan.energies[level.id]
    np.testing.assert_allclose(of_level[:, :13], of_level[:, 12:25], atol=1e-6)  # threefold
    assert of_level.mean(axis=0)[0] > of_level.mean(axis=0)[6]  # staggered is lower
assert len(data.curves) == 2 * len(potential.levels) - 1
""",
}
# Notebooks that train: their numbers depend on the machine, their words do not.
TRAINING = {"two_levels_in_hippynn"}

NUMBER = re.compile(r"[-−+]?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
ABSOLUTE_PATH = re.compile(r"(?<![\w./:])/(?:[\w.-]+/)+[\w.-]*|\b[A-Z]:\\")


def text_of(output):
    """Everything that people read of an output, without its image."""
    data = output.get("data", {})
    return output.get("text", "") + data.get("text/markdown", data.get("text/plain", ""))


def require_same_outputs(committed, executed, *, with_numbers):
    """Compare two runs of a notebook: kinds of outputs, words, and numbers to a per mille."""
    assert len(committed.cells) == len(executed.cells)
    for number, (old, new) in enumerate(zip(committed.cells, executed.cells, strict=True)):
        where = f"cell {number}"
        outputs, others = old.get("outputs", []), new.get("outputs", [])
        kinds = [(o.output_type, sorted(o.get("data", {}))) for o in outputs]
        assert kinds == [(o.output_type, sorted(o.get("data", {}))) for o in others], where
        for first, second in zip(map(text_of, outputs), map(text_of, others), strict=True):
            words = [" ".join(NUMBER.sub("#", text).split()) for text in (first, second)]
            assert words[0] == words[1], where
            if with_numbers:
                numbers = [
                    [float(found.replace("−", "-")) for found in NUMBER.findall(text)]
                    for text in (first, second)
                ]
                assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-2), where


@pytest.mark.filterwarnings("ignore")  # of the Jupyter client's own event loop
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_right_results_and_its_outputs_are_those_committed(path, monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    script = importlib.import_module("execute_notebooks")
    before = sorted(path.parent.iterdir())
    executed = script.execute(path, CHECKS[path.stem], timeout_s=SLOWEST_S)
    assert sorted(path.parent.iterdir()) == before
    committed = nbformat.read(path, as_version=4)
    require_same_outputs(committed, executed, with_numbers=path.stem not in TRAINING)


@pytest.mark.filterwarnings("ignore")
def test_a_notebook_that_raises_fails(tmp_path, monkeypatch):
    from nbclient.exceptions import CellExecutionError

    monkeypatch.syspath_prepend(TOP / "scripts")
    script = importlib.import_module("execute_notebooks")
    cells = [nbformat.v4.new_code_cell("value = 3")]
    path = tmp_path / "made.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert len(script.execute(path, "assert value == 3").cells) == 1
    with pytest.raises(CellExecutionError, match="AssertionError"):
        script.execute(path, "assert value == 4")


def test_every_notebook_has_a_check():
    assert set(CHECKS) == {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_small_complete_and_without_traces_of_a_machine(path):
    assert path.stat().st_size < 1000 * LARGEST_KB
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {o.output_type for o in outputs} <= {"stream", "display_data", "execute_result"}
    assert not any(output.get("name") == "stderr" for output in outputs)
    texts = [text_of(output) for output in outputs] + [cell.source for cell in notebook.cells]
    assert [ABSOLUTE_PATH.findall(text) for text in texts if ABSOLUTE_PATH.search(text)] == []
    assert all(set(cell.metadata) == set() for cell in notebook.cells)


def planted_notebook(text):
    output = nbformat.v4.new_output("stream", text=text)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print()", outputs=[output])])


def test_stale_outputs_are_found():
    committed = planted_notebook("RMSE 0.50 kcal/mol [−1.2, 3]")
    for text, with_numbers, same in [
        ("RMSE  0.50 kcal/mol [−1.2, 3]", True, True),
        ("RMSE 0.53 kcal/mol [−1.2, 3]", True, False),
        ("RMSE 0.50 kcal/mol [1.2, 3]", True, False),
        ("RMSE 0.53 kcal/mol [−1.2, 3]", False, True),
        ("RMSE 0.50 kcal/mol/Å [−1.2, 3]", False, False),
    ]:
        if same:
            require_same_outputs(committed, planted_notebook(text), with_numbers=with_numbers)
        else:
            with pytest.raises(AssertionError):
                require_same_outputs(committed, planted_notebook(text), with_numbers=with_numbers)
    without = copy.deepcopy(committed)
    without.cells[0].outputs = []
    with pytest.raises(AssertionError):
        require_same_outputs(committed, without, with_numbers=False)


def test_absolute_paths_are_found():
    for text in ("at /home/someone/file.h5", "'/tmp/x/y'", r"C:\Users\x", "\n/opt/a/b.py:21: x"):
        assert ABSOLUTE_PATH.search(text), text
    for text in ("kcal/mol/Å", "MF-DZ/EF-TZ/EF-CC/E", "../experiments/results", "https://a.b/c/d"):
        assert not ABSOLUTE_PATH.search(text), text
