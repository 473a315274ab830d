"""MF-DZ/E-TZ/EF, row 9 of Table 1: trained on DZ energies and TZ energies and forces.

Published: in the Supporting Information only.

    python experiments/mf_dz_e_tz_ef.py --seed 0
"""

from hippynn_mf.cli.main import train_script
from hippynn_mf.runs.experiment import Experiment

EXPERIMENT = Experiment(row=9, labels={"DZ": "E", "TZ": "EF"})

if __name__ == "__main__":
    train_script(EXPERIMENT)
