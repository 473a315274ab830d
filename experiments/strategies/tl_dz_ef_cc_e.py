"""TL-DZ/EF-CC/E: transfer learning, all layers fine-tuned.

Pre-trained on DZ energies and forces; atomic energies fitted anew, then fine-tuned on CC energies
with a lower learning rate (`fine_tuning_factor`). The DZ head stays as it was pre-trained, on the
trunk that fine-tuning leaves.

    python experiments/strategies/tl_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=19, labels={"DZ": "EF", "CC": "E"}, prefix="TL")

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
