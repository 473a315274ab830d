"""EKD-DZ/EF-CC/E: an ensemble of multi-fidelity models teaches CC forces to another.

The teachers are models as of MF-DZ/EF-CC/E; the student trains on the same labels and on the
teachers' mean CC forces (`hippynn_mf/runs/teaching.py`).

    python experiments/strategies/ekd_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=23, labels={"DZ": "EF", "CC": "E"}, prefix="EKD")

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
