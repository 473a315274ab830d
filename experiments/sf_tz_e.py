"""SF-TZ/E, row 3 of Table 1: trained on TZ energies.

Published (Table 2, eight seeds): held-out TZ energy RMSE 2.75 ± 0.02 kcal/mol,
force RMSE 13.52 ± 0.50 kcal/mol/Å.

    python experiments/sf_tz_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=3,
    labels={"TZ": "E"},
    published=Published(table=2, energy=(2.75, 0.02), other=(13.52, 0.50)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
