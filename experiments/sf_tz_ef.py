"""SF-TZ/EF, row 4 of Table 1: trained on TZ energies and forces.

Published (Table 2, eight seeds): held-out TZ energy RMSE 1.60 ± 0.02 kcal/mol,
force RMSE 3.52 ± 0.09 kcal/mol/Å.

    python experiments/sf_tz_ef.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=4,
    labels={"TZ": "EF"},
    published=Published(table=2, energy=(1.60, 0.02), other=(3.52, 0.09)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
