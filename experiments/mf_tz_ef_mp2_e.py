"""MF-TZ/EF-MP2/E, row 12 of Table 1: trained on TZ energies and forces and MP2 energies.

Published: in the Supporting Information only.

    python experiments/mf_tz_ef_mp2_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=12, labels={"TZ": "EF", "MP2": "E"})

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
