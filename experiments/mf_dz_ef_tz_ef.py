"""MF-DZ/EF-TZ/EF, row 10 of Table 1: trained on DZ energies and forces and TZ energies and forces.

Published (Table 2, eight seeds): held-out TZ energy RMSE 1.34 ± 0.02 kcal/mol,
force RMSE 3.42 ± 0.11 kcal/mol/Å.

    python experiments/mf_dz_ef_tz_ef.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=10,
    labels={"DZ": "EF", "TZ": "EF"},
    published=Published(table=2, energy=(1.34, 0.02), other=(3.42, 0.11)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
