"""What finished runs show: tables, intervals, findings, figures and a page.

The public names are those of `__init__.pyi`, loaded when first used:

    results = report.read_results(Path("results"))
    report.draw_parity(results, "MF-DZ/EF-CC/E").savefig("parity.png")

Those of the paper's own documents come from `hippynn_mf.paper`.
"""

import importlib
from typing import Any

import lazy_loader

_load, _names, __all__ = lazy_loader.attach_stub(__name__, __file__)
_OF_PAPER = {
    "draw_figure3": "figure3",
    "figure3_data": "figure3",
    "write_documents": "documents",
    "write_figures": "figures",
}
__all__ += list(_OF_PAPER)


def __getattr__(name: str) -> Any:
    if name in _OF_PAPER:
        return getattr(importlib.import_module(f"hippynn_mf.paper.{_OF_PAPER[name]}"), name)
    return _load(name)


def __dir__() -> list[str]:
    return [*_names(), *_OF_PAPER]
