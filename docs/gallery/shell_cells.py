"""What every page of the gallery begins with: a folder of its own, and cells of shell commands.

IPython's own `%%bash` hands output on as it arrives, in pieces that the pages would break in the
middle of a word; this one prints it whole, and shows what a command that fails has said.
"""

import os
import subprocess
import sys
import tempfile

from IPython import get_ipython
from IPython.core.magic import register_cell_magic

os.chdir(tempfile.mkdtemp())


@register_cell_magic
def bash(_line: str, cell: str) -> None:
    """Run a cell of shell commands; names of Python in braces are replaced by their values."""
    script = "set -euo pipefail\n" + get_ipython().var_expand(cell)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout)
    if done.returncode:
        raise RuntimeError(done.stderr[-5000:])
