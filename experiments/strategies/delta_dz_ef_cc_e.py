"""DELTA-DZ/EF-CC/E: Δ-learning.

A network on DZ energies and forces, and a second one of the same size on E_CC − E_DZ. The CC
energy is their sum, which is differentiated for forces; both networks have to be computed.

    python experiments/strategies/delta_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=21, labels={"DZ": "EF", "CC": "E"}, prefix="DELTA")

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
