"""README and documentation: code runs, commands exist, numbers are those of the results."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
import typer

from hippynn_mf.cli.main import app

TOP = Path(__file__).parent.parent
DOCS = TOP / "docs"
MADE = ("rooms", "notebooks", "_build")  # folders that the build of the documentation writes
PAGES = {
    path.relative_to(TOP).as_posix(): path.read_text(encoding="utf-8")
    for path in [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    if not set(path.relative_to(TOP).parts) & set(MADE)
}
README = PAGES["README.md"]

# Of the next edition, which is documented first. The test fails as soon as one of them is there:
# then it is to be taken out of these sets.


@pytest.fixture
def blocks(monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    return importlib.import_module("make_doc_blocks")


def python_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


# code


@pytest.mark.filterwarnings("ignore")  # hippynn's own plots at the end of training
def test_the_example_of_a_model_does_what_its_comments_say(capsys):
    (script,) = python_blocks(README)
    (same,) = python_blocks(PAGES["docs/potentials.md"])
    for remark in ('  # or "my.safetensors"', ": of two or more"):
        script = script.replace(remark, "")
    assert script == same
    names: dict = {}
    exec(compile(script, "README.md", "exec"), names)
    atoms = names["atoms"]
    assert np.abs(atoms.get_forces()).max() < 0.01
    assert atoms.calc.get_property("forces_std", atoms).shape == (6, 3)
    energies = atoms.calc.get_level_energies(atoms)
    assert {len(of_members) for of_members in energies.values()} == {8}
    difference = atoms.calc.get_level_difference(atoms, "CC", "DZ")
    expected = (energies["ccsd(t)_cbs"] - energies["wb97x_dz"]).mean()
    assert difference.energy == pytest.approx(expected)


def test_plugin_script_trains_two_levels(tmp_path, monkeypatch, capsys):
    script, *others = python_blocks(PAGES["docs/hippynn-script.md"])
    for other in others:  # tests/test_own_arrays.py runs the same with other sizes
        compile(textwrap.dedent(other), "hippynn-script.md", "exec")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(compile(script, "hippynn-script.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "energy_rmse.ccsd(t)_cbs" in printed
    assert "force_rmse.wb97x_dz" in printed
    assert "Training complete." in printed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of what is experimental
def test_loggers_of_lightning_see_the_errors_of_every_level(tmp_path, monkeypatch):
    pytest.importorskip("pytorch_lightning")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    script, *others = python_blocks(PAGES["docs/hippynn-script.md"])
    (logged,) = [textwrap.dedent(each) for each in others if "TensorBoardLogger" in each]
    before, call, _ = script.partition("setup_and_train(\n")
    assert call
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(before, "hippynn-script.md", "exec"), names)
    exec(compile(logged.replace("max_epochs=100", "max_epochs=2"), "loggers", "exec"), names)
    (file,) = tmp_path.glob("logs/**/events.out.tfevents.*")
    seen = events.EventAccumulator(str(file)).Reload()
    for metric in ("energy_rmse.ccsd(t)_cbs", "force_rmse.wb97x_dz"):
        (tag,) = [tag for tag in seen.Tags()["scalars"] if metric in tag and "valid" in tag]
        assert len(seen.Scalars(tag)) == 2


def test_the_run_file_is_one(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", PAGES["docs/run-files.md"], flags=re.DOTALL)
    values = tomllib.loads(text)
    assert values["labels"] == {"DZ": "EF", "CC": "E"}
    reader = pytest.importorskip("hippynn_mf.runs.run_file")
    (tmp_path / "my.toml").write_text(text)
    for name in ("data.xyz", "others.xyz"):
        (tmp_path / name).touch()
    assert list(reader.read_run_file(tmp_path / "my.toml").tests) == ["others"]


def test_the_example_of_results_reads_the_committed_ones(monkeypatch, capsys):
    (script,) = python_blocks(PAGES["docs/figures-and-tables.md"])
    monkeypatch.chdir(TOP)
    exec(compile(script, "figures-and-tables.md", "exec"), {})
    assert "MF-DZ/EF-TZ/EF-CC/E" in capsys.readouterr().out


# commands


def command_lines(text):
    """The command lines of a page, without comments and prompts, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^(?:    |!)?(hippynn-mf [^`\n]*)$", text, flags=re.MULTILINE)
    lines += re.findall(r"`(hippynn-mf [^`]*)`", text)
    lines += [part.strip() for part in re.findall(r"&& (hippynn-mf [^\n]*)$", text, re.MULTILINE)]
    return [re.split(r" #| >|[…]", " ".join(line.split()))[0] for line in lines]


def parse(line):
    """The command's name and its options, as words."""
    words = shlex.split(line)[1:]
    name = words[0] if words[0] != "data" or len(words) == 1 else " ".join(words[:2])
    return name, {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}


def known_commands():
    """The name of every command → its options."""
    group = typer.main.get_command(app)
    commands = {**group.commands}
    for name, below in group.commands["data"].commands.items():
        commands[f"data {name}"] = below
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
    }


LINES = sorted({(page, line) for page, text in PAGES.items() for line in command_lines(text)})


@pytest.mark.parametrize(("page", "line"), LINES)
def test_every_command_exists_and_has_its_options(page, line):
    name, options = parse(line)
    known = known_commands()
    assert name in known, page
    assert options <= known[name], page


def test_the_documentation_names_every_command():
    named = {parse(line)[0] for _, line in LINES}
    assert set(known_commands()) - {"data"} <= named


SCRIPT_LINES = sorted(
    {
        " ".join(line.split())
        for text in PAGES.values()
        for line in re.findall(r"python scripts/[^`#\n]*", text)
    }
)


@pytest.mark.parametrize("line", SCRIPT_LINES)
def test_every_script_exists_and_has_its_options(line, monkeypatch):
    monkeypatch.syspath_prepend(TOP / "scripts")
    name = re.match(r"python scripts/(\w+)\.py", line)[1]
    script = typer.Typer()
    script.command()(importlib.import_module(name).main)
    command = typer.main.get_command(script)
    options = {word for word in line.split() if word.startswith("--")}
    assert options <= {option for parameter in command.params for option in parameter.opts}


# files, links, pages


@pytest.mark.parametrize("page", PAGES)
def test_files_named_on_a_page_exist(page):
    text = re.sub(r"```\{literalinclude\}.*", "", PAGES[page])
    for name in re.findall(r"(?<![./\w])(?:hippynn_mf|experiments|scripts)/[\w/.-]+\.\w+", text):
        assert (TOP / name).exists(), name


def anchors(text):
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_lead_somewhere(page):
    """Notebooks are read at their place in the repository, and become pages below `docs/`."""
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = ((TOP / page).parent / name).resolve()
        if path.parent == DOCS / "notebooks":
            path = TOP / "notebooks" / path.name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def test_every_page_is_in_the_contents():
    listed = set()
    for page, text in PAGES.items():
        for entries in re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL):
            for entry in re.findall(r"^(?:.*<)?([\w./*-]+)>?$", entries, flags=re.MULTILINE):
                listed.add(((TOP / page).parent / entry).resolve())
    pages = {(TOP / page).with_suffix("") for page in PAGES if page.startswith("docs/")}
    assert pages - {DOCS / "index"} <= listed
    notebooks = {DOCS / "notebooks" / path.stem for path in (TOP / "notebooks").glob("*.ipynb")}
    assert notebooks <= listed


@pytest.mark.parametrize("page", [page for page in PAGES if re.match(r"docs/[\w-]+\.md", page)])
def test_every_page_opens_with_the_command_that_answers_it(page):
    text = PAGES[page]
    if not text.startswith("```{include}"):
        assert re.match(r"# .+\n\n(?:    \S.*\n)+", text) or "LAMMPS" in text.split("\n")[0]


def test_the_readme_is_short_and_has_both_commands():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if line.endswith("&& pytest")] == [
        "    pip install -c constraints.txt -e '.[test]' && pytest"
    ]
    assert any(line.endswith("-e . && hippynn-mf reproduce") for line in lines)


# numbers


def test_every_block_is_what_the_results_say(blocks):
    for page, text in PAGES.items():
        fresh, different = blocks.refresh(text)
        assert different == [], page
        assert fresh == text, page


def test_every_block_stands_somewhere(blocks):
    named = {match["name"] for text in PAGES.values() for match in blocks.PATTERN.finditer(text)}
    assert named == set(blocks.BLOCKS)
    assert sum(text.count("<!-- generated") for text in PAGES.values()) == sum(
        len(blocks.PATTERN.findall(text)) for text in PAGES.values()
    )


def test_no_measured_number_stands_outside_a_block(blocks):
    """Means with intervals are made, never typed."""
    for page, text in PAGES.items():
        typed = blocks.PATTERN.sub("", text)
        assert re.findall(r"\d ± \d|\[[−-]?\d+\.\d+, ", typed) == [], page


def test_a_sentence_that_the_results_do_not_bear_is_refused(blocks):
    words = importlib.import_module("doc_blocks.common")
    assert words.lower_by("49.5 [36.4, 59.8]") == "49.5 % [36.4, 59.8]"
    assert words.higher_by("−51.5 [−91.8, −19.6]") == "51.5 % [19.6, 91.8]"
    assert words.surely("−0.69 ± 0.27", -1) == "0.69 ± 0.27"
    assert words.unsure("+0.16 ± 0.87") == "0.16 ± 0.87"
    for function, cell in [
        (words.lower_by, "11.1 [−5.9, 25.3]"),
        (words.higher_by, "−18.9 [−42.5, 0.8]"),
        (lambda cell: words.surely(cell, -1), "−0.21 ± 0.75"),
        (lambda cell: words.surely(cell, 1), "−0.69 ± 0.27"),
        (words.unsure, "−0.69 ± 0.27"),
    ]:
        with pytest.raises(ValueError, match="sure"):
            function(cell)


def test_a_stale_block_is_found_and_an_unknown_one_refused(blocks):
    text = PAGES["docs/uncertainty.md"].replace("Spearman 0.", "Spearman 1.")
    fresh, different = blocks.refresh(text)
    assert different == ["spread"]
    assert fresh == PAGES["docs/uncertainty.md"]
    with pytest.raises(LookupError, match="no-such"):
        blocks.refresh(text.replace("make_doc_blocks.py spread", "make_doc_blocks.py no-such"))


@pytest.mark.docs
def test_the_documentation_builds_without_a_warning(tmp_path):
    sphinx = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", DOCS, tmp_path / "html"]
    finished = subprocess.run(sphinx, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-5000:]
    html = (tmp_path / "html" / "gallery" / "first-training.html").read_text(encoding="utf-8")
    assert "results/runs/mf_dz_ef_cc_e/seed-0" in html
    assert (tmp_path / "html" / "api" / "rooms" / "potentials.html").exists()
