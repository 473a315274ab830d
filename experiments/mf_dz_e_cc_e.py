"""MF-DZ/E-CC/E, row 13 of Table 1: trained on DZ energies and CC energies.

Published (Table 4, eight seeds): held-out CC energy RMSE 2.76 ± 0.03 kcal/mol,
COMP6 CC conformer energy RMSE 2.60 ± 0.03 kcal/mol.

    python experiments/mf_dz_e_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=13,
    labels={"DZ": "E", "CC": "E"},
    published=Published(table=4, energy=(2.76, 0.03), other=(2.60, 0.03)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
