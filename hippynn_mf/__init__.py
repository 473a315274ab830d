"""Multi-fidelity learning for interatomic potentials, on LANL's hippynn.

One network with one energy head per level of theory; see docs/hippynn-script.md. The public
names are those of `__init__.pyi`. They are loaded when first used: importing hippynn takes seconds
that the command line should not spend on a list of experiments.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
