"""MFC-DZ/EF-CC/E: multi-fidelity learning with coupled heads.

The CC energy is the DZ energy plus a learned linear correction with a hierarchicality of its own
(`hippynn_mf/model/coupling.py`).

    python experiments/strategies/mfc_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.cli.main import train_script
from hippynn_mf.runs.experiment import Experiment

EXPERIMENT = Experiment(row=18, labels={"DZ": "EF", "CC": "E"}, prefix="MFC")

if __name__ == "__main__":
    train_script(EXPERIMENT)
