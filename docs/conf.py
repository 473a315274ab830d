"""Sphinx settings. Build with `sphinx-build -W -b html docs build/docs`.

Two kinds of pages are made before anything is read: a page of the API for every room of the
package, and copies of the committed notebooks, which stay in `notebooks/`.
"""

import importlib.metadata
import os
import warnings
from pathlib import Path

HERE = Path(__file__).parent
TOP = HERE.parent
PACKAGE = TOP / "hippynn_mf"

project = "hippynn_mf"
author = "The hippynn_mf developers"
copyright = "The hippynn_mf developers, BSD-3-Clause"  # noqa: A001
release = version = importlib.metadata.version("hippynn_mf")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "hippynn_mf"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
default_role = "code"  # docstrings mark code with single backticks

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# The gallery runs when the documentation is built, and again only where it changed; notebooks are
# committed with their output, and a test runs them again.
nb_execution_mode = "cache"
nb_execution_cache_path = str(TOP / "build" / "gallery-cache")
nb_execution_excludepatterns = ["notebooks/*"]
nb_execution_timeout = 120  # s, of a cell
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = str(HERE / "gallery")  # where kernels find `shell_cells`

autodoc_mock_imports = ["pyscf", "torch_sim"]  # of extras
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": False}
# Attributes that pydantic makes are the business of nobody who reads a model.
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_use_ivar = True
# Fields of several classes have one name: which of them a docstring means is clear from its class.
suppress_warnings = ["ref.python"]
warnings.filterwarnings("ignore")  # of what hippynn imports


def write_changed(path: Path, text: str) -> None:
    """Write a file unless it has that text: Sphinx reads again what is newer than its output."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def modules_of(folder: Path) -> list[str]:
    """The modules of a folder and of those below, by their dotted names."""
    paths = sorted(path for path in folder.rglob("*.py") if path.name != "__init__.py")
    return [".".join(path.relative_to(TOP).with_suffix("").parts) for path in paths]


def room_page(title: str, words: str, modules: list[str]) -> str:
    """A page of the API."""
    lines = [f"# {title}", "", words, ""]
    for name in modules:
        lines += [f"## `{name}`", "", "```{eval-rst}", f".. automodule:: {name}", "```", ""]
    return "\n".join(lines)


def write_api_pages() -> None:
    """A page for every room, and one for the modules below all of them."""
    pages = {"bottom.md": room_page("bottom", "What every room may use.", bottom_modules())}
    for folder in sorted(PACKAGE.iterdir()):
        modules = modules_of(folder) if (folder / "__init__.py").exists() else []
        if modules:
            source = (folder / "__init__.py").read_text(encoding="utf-8")
            words = source.split('"""')[1].strip() if '"""' in source else ""
            pages[f"{folder.name}.md"] = room_page(folder.name, words, modules)
    for name, text in pages.items():
        write_changed(HERE / "api" / "rooms" / name, text)
    for path in (HERE / "api" / "rooms").glob("*.md"):
        if path.name not in pages:
            path.unlink()


def bottom_modules() -> list[str]:
    """The modules beside the rooms."""
    return [f"hippynn_mf.{p.stem}" for p in sorted(PACKAGE.glob("*.py")) if p.stem != "__init__"]


def copy_notebooks() -> None:
    """The committed notebooks, as pages."""
    for path in sorted((TOP / "notebooks").glob("*.ipynb")):
        write_changed(HERE / "notebooks" / path.name, path.read_text(encoding="utf-8"))


write_api_pages()
copy_notebooks()
