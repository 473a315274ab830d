"""SF-DZ/E, row 1 of Table 1: trained on DZ energies.

Published: in the Supporting Information only.

    python experiments/sf_dz_e.py --seed 0
"""

from hippynn_mf.cli.main import train_script
from hippynn_mf.runs.experiment import Experiment

EXPERIMENT = Experiment(row=1, labels={"DZ": "E"})

if __name__ == "__main__":
    train_script(EXPERIMENT)
