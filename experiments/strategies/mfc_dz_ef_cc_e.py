"""MFC-DZ/EF-CC/E: multi-fidelity learning with coupled heads.

The CC energy is the DZ energy plus a learned linear correction with a hierarchicality of its own
(`hippynn_mf/model/coupling.py`).

    python experiments/strategies/mfc_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=18, labels={"DZ": "EF", "CC": "E"}, prefix="MFC")

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
