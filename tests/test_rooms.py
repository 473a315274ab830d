"""What is imported while the package runs, by a calculator, a look-up and `--help`; the rooms.

import-linter (`[tool.importlinter]` in pyproject.toml) reads the import statements; here processes
say what they have loaded, through whatever door.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hippynn_mf"
PROJECT = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
CONTRIBUTING = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
NO_ROOM = {"embedded", "__pycache__"}  # data, and what Python writes

LOOK_UP = """
from hippynn_mf.paper.table1 import get_experiment, strategies, table1
assert get_experiment("MF-DZ/EF-CC/E").row == 14
assert len(table1()) == 17 and strategies()
"""
CALCULATE = """
from ase.build import molecule
from hippynn_mf import MultiFidelityCalculator
atoms = molecule("H2O")
atoms.calc = MultiFidelityCalculator("mini-ani1x", "CC")
atoms.get_forces()
"""
HELP = """
import sys
from hippynn_mf.cli.main import main
sys.argv = ["hippynn-mf", "--help"]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
# What runs, and what it must not load: rooms of this package, then others.
CASES = {
    "an experiment by name": (
        LOOK_UP,
        ("cli", "report", "campaign", "evaluation", "potentials", "network", "data"),
        ("torch", "hippynn", "matplotlib", "pandas", "scipy", "h5py", "typer"),
    ),
    "a calculator": (
        CALCULATE,
        ("cli", "paper", "report", "campaign", "runs", "evaluation", "training", "data"),
        ("pandas", "typer", "parsl"),  # hippynn itself loads matplotlib
    ),
    "--help": (
        HELP,
        (
            "report",
            "campaign",
            "labelling",
            "evaluation",
            "training",
            "potentials",
            "model",
            "network",
            "data",
        ),
        ("torch", "hippynn", "matplotlib", "pandas", "scipy", "parsl"),
    ),
}
# The only files that may import by a name: what is found by looking, or may not be installed.
MAY_IMPORT_BY_NAME = {
    "paper/table1.py": "the scripts of experiments",
    "report/__init__.py": "what of paper/ is public as report's",
    "labelling/users.py": "calculators that users name",
    "potentials/lammps.py": "LAMMPS",
    "potentials/mliap.py": "hippynn's interface to LAMMPS",
}
N_MODULES_OF_A_CALCULATOR = 30  # before there were rooms, 51


# Import paths that stay, by module. Names may come, none goes without a line in CHANGELOG.md.
PUBLIC = {
    "hippynn_mf": """FastCalculator FastHipnn FastHipnnQuad FastHipnnVec Head Heads KNOWN_LEVELS
        Level Levels LossWeights MINI_ANI1X MINI_COMP6 MultiFidelityCalculator Potential Properties
        UserError build_heads build_loss build_metrics build_model get_hyperparameters
        initialize_heads load_database parse_labels precompute_pairs read_levels""",
    "hippynn_mf.report": """Selection draw_figure3 draw_forces draw_learning_curves
        draw_model_graph draw_parity draw_spread figure3_data read_results write_documents
        write_figures""",
    "hippynn_mf.distributed": "train_distributed",
    "hippynn_mf.labelling": "LabelRequest Labelled SampleRequest Sampled label sample",
}


@pytest.mark.parametrize(("module", "names"), PUBLIC.items(), ids=list(PUBLIC))
def test_public_names_keep_their_import_paths(module, names):
    found = importlib.import_module(module)
    assert [name for name in names.split() if not hasattr(found, name)] == []


def loaded_by(code: str) -> set[str]:
    """Names of all modules that a new process has after running some code."""
    report = "\nimport json, sys\nprint()\nprint(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-W", "ignore", "-c", code + report]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(("code", "rooms", "others"), CASES.values(), ids=list(CASES))
def test_nothing_is_loaded_of_rooms_that_are_not_needed(code, rooms, others):
    found = loaded_by(code)
    unwanted = {f"hippynn_mf.{room}" for room in rooms} | set(others)
    assert sorted(found & unwanted) == []


def test_a_calculator_loads_few_modules():
    of_package = {name for name in loaded_by(CALCULATE) if name.startswith("hippynn_mf.")}
    modules = {name for name in of_package if not is_package(name)}
    assert len(modules) <= N_MODULES_OF_A_CALCULATOR, sorted(modules)


def is_package(name: str) -> bool:
    return (PACKAGE.parent / name.replace(".", "/")).is_dir()


def test_modules_are_imported_by_name_in_named_files_only():
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if imports_by_name(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set(MAY_IMPORT_BY_NAME)


def test_every_room_is_described_in_the_order_of_imports():
    described = re.findall(r"^\| `(\w+)/` \| .{10,} \|$", CONTRIBUTING, re.MULTILINE)
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - NO_ROOM
    assert sorted(described) == sorted(rooms)
    contract, *_ = tomllib.loads(PROJECT)["tool"]["importlinter"]["contracts"]
    layers = [name.strip() for layer in contract["layers"] for name in layer.split("|")]
    assert described == [name for name in layers if name in rooms]


def test_what_contributors_are_told_of_exists():
    named = set(re.findall(r"(?:\w+/)+\w+\.(?:py|md)|(?:\w+/)+(?=`)", CONTRIBUTING))
    places = (PACKAGE.parent, PACKAGE)  # rooms are named as folders of the package
    assert len(named) > 30
    assert [name for name in sorted(named) if not any((p / name).exists() for p in places)] == []


def imports_by_name(tree: ast.AST) -> bool:
    """Whether code says `import_module` or `__import__`, called or not."""
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    return bool(names & {"import_module", "__import__"})
