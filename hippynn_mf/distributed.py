"""The public name of `hippynn_mf.training.distributed`."""

from hippynn_mf.training.distributed import train_distributed as train_distributed

__all__ = ["train_distributed"]
