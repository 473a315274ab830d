"""What finished runs show: tables, intervals, findings and figures.

The public names are those of `__init__.pyi`, loaded when first used:

    results = report.read_results(Path("results"))
    report.draw_parity(results, "MF-DZ/EF-CC/E").savefig("parity.png")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
