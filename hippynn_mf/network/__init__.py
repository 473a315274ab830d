"""HIP-NN-TS in less time: its interaction, the layouts of pairs, and forces for use."""
