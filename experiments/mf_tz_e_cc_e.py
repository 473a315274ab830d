"""MF-TZ/E-CC/E, row 15 of Table 1: trained on TZ energies and CC energies.

Published: in the Supporting Information only.

    python experiments/mf_tz_e_cc_e.py --seed 0
"""

from hippynn_mf.cli.main import train_script
from hippynn_mf.runs.experiment import Experiment

EXPERIMENT = Experiment(row=15, labels={"TZ": "E", "CC": "E"})

if __name__ == "__main__":
    train_script(EXPERIMENT)
