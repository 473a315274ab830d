"""MF-DZ/EF-TZ/EF-CC/E, row 17 of Table 1: trained on DZ and TZ EF and CC E labels.

Published: in the Supporting Information only.

    python experiments/mf_dz_ef_tz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=17, labels={"DZ": "EF", "TZ": "EF", "CC": "E"})

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
