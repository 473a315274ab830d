"""META-DZ/EF-CC/E: meta-learning with Reptile, then fine-tuned on CC energies.

DZ/EF and CC/E are the tasks (`hippynn_mf/training/reptile.py`; `meta_steps`, `meta_rate` are ours);
fine-tuning is that of TL-DZ/EF-CC/E.

    python experiments/strategies/meta_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=22, labels={"DZ": "EF", "CC": "E"}, prefix="META")

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
