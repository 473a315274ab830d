"""MF-DZ/EF-MP2/E, row 11 of Table 1: trained on DZ energies and forces and MP2 energies.

Published (Table 3, eight seeds): held-out MP2 energy RMSE 1.72 ± 0.02 kcal/mol,
COMP6 MP2 force RMSE 3.42 ± 0.09 kcal/mol/Å.
DZ force RMSE 3.91 kcal/mol/Å in the text.

    python experiments/mf_dz_ef_mp2_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=11,
    labels={"DZ": "EF", "MP2": "E"},
    published=Published(table=3, energy=(1.72, 0.02), other=(3.42, 0.09)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
