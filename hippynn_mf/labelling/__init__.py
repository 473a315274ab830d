"""Structures and their labels: conformers of molecules, and energies and forces of any calculator.

The public names are those of `__init__.pyi`, loaded when first used:

    labelling.sample("molecules.xyz", out="pool.xyz", per=100)
    labelling.label("pool.xyz", level="GFN2", calculator="tblite:GFN2-xTB", out="labelled.xyz")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
