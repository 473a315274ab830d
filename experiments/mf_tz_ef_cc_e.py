"""MF-TZ/EF-CC/E, row 16 of Table 1: trained on TZ energies and forces and CC energies.

Published: in the Supporting Information only.

    python experiments/mf_tz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=16, labels={"TZ": "EF", "CC": "E"})

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
