"""MF-DZ/E-TZ/E, row 7 of Table 1: trained on DZ energies and TZ energies.

Published (Table 2, eight seeds): held-out TZ energy RMSE 2.78 ± 0.04 kcal/mol,
force RMSE 11.92 ± 0.15 kcal/mol/Å.

    python experiments/mf_dz_e_tz_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=7,
    labels={"DZ": "E", "TZ": "E"},
    published=Published(table=2, energy=(2.78, 0.04), other=(11.92, 0.15)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
