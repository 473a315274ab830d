"""SF-MP2/E, row 5 of Table 1: trained on MP2 energies.

Published (Table 3, eight seeds): held-out MP2 energy RMSE 2.95 ± 0.02 kcal/mol,
COMP6 MP2 force RMSE 8.59 ± 0.42 kcal/mol/Å.

    python experiments/sf_mp2_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=5,
    labels={"MP2": "E"},
    published=Published(table=3, energy=(2.95, 0.02), other=(8.59, 0.42)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
