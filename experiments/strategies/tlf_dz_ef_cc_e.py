"""TLF-DZ/EF-CC/E: transfer learning, interaction layers frozen.

As TL-DZ/EF-CC/E, but fine-tuning keeps the interaction layers: atom layers and the head learn.

    python experiments/strategies/tlf_dz_ef_cc_e.py --seed 0
"""

from hippynn_mf.paper.table1 import PaperExperiment

EXPERIMENT = PaperExperiment(row=20, labels={"DZ": "EF", "CC": "E"}, prefix="TLF")

if __name__ == "__main__":
    from hippynn_mf.cli.main import train_script

    train_script(EXPERIMENT)
