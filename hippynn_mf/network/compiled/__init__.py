"""HIP-NN-TS with hand-derived first and second derivatives, compiled; see docs/compiled-step.md."""
