"""MF-DZ/EF-CC/E, row 14 of Table 1: trained on DZ energies and forces and CC energies.

Published (Table 4, eight seeds): held-out CC energy RMSE 1.52 ± 0.03 kcal/mol,
COMP6 CC conformer energy RMSE 1.60 ± 0.03 kcal/mol.
DZ force RMSE 3.76 kcal/mol/Å in the text.

    python experiments/mf_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=14,
    labels={"DZ": "EF", "CC": "E"},
    published=Published(table=4, energy=(1.52, 0.03), other=(1.60, 0.03)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
