"""EKD-CC/E: an ensemble that learned CC energies teaches CC forces to another model.

Without any low level: the rival of multi-fidelity learning (arXiv:2503.14293).

    python experiments/strategies/ekd_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=24, labels={"CC": "E"}, prefix="EKD")

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
