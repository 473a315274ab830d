"""MF-TZ/EF-MP2/E, row 12 of Table 1: trained on TZ energies and forces and MP2 energies.

Published: in the Supporting Information only.

    python experiments/mf_tz_ef_mp2_e.py --seed 0
"""

from hippynn_mf.cli.main import train_script
from hippynn_mf.runs.experiment import Experiment

EXPERIMENT = Experiment(row=12, labels={"TZ": "EF", "MP2": "E"})

if __name__ == "__main__":
    train_script(EXPERIMENT)
