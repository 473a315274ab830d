"""MF-DZ/E-TZ/EF, row 9 of Table 1: trained on DZ energies and TZ energies and forces.

Published: in the Supporting Information only.

    python experiments/mf_dz_e_tz_ef.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=9, labels={"DZ": "E", "TZ": "EF"})

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
