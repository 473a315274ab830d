"""SF-DZ/EF, row 2 of Table 1: trained on DZ energies and forces.

Published: in the Supporting Information only.
DZ force RMSE 3.17 kcal/mol/Å in the text.

    python experiments/sf_dz_ef.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=2, labels={"DZ": "EF"})

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
