"""SF-CC/E, row 6 of Table 1: trained on CC energies.

Published (Table 4, eight seeds): held-out CC energy RMSE 2.78 ± 0.05 kcal/mol,
COMP6 CC conformer energy RMSE 2.65 ± 0.04 kcal/mol.

    python experiments/sf_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=6,
    labels={"CC": "E"},
    published=Published(table=4, energy=(2.78, 0.05), other=(2.65, 0.04)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
