"""MF-TZ/E-CC/E, row 15 of Table 1: trained on TZ energies and CC energies.

Published: in the Supporting Information only.

    python experiments/mf_tz_e_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=15, labels={"TZ": "E", "CC": "E"})

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
