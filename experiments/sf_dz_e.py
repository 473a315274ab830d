"""SF-DZ/E, row 1 of Table 1: trained on DZ energies.

Published: in the Supporting Information only.

    python experiments/sf_dz_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=1, labels={"DZ": "E"})

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
