"""MF-DZ/EF-TZ/E, row 8 of Table 1: trained on DZ energies and forces and TZ energies.

Published (Table 2, eight seeds): held-out TZ energy RMSE 1.49 ± 0.04 kcal/mol,
force RMSE 4.16 ± 0.15 kcal/mol/Å.
DZ force RMSE 3.95 kcal/mol/Å in the text.

    python experiments/mf_dz_ef_tz_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment, Published

EXPERIMENT = PaperExperiment(
    row=8,
    labels={"DZ": "EF", "TZ": "E"},
    published=Published(table=2, energy=(1.49, 0.04), other=(4.16, 0.15)),
)

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
