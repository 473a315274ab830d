"""A Slurm cluster with four GPUs per node; use with `hippynn-mf campaign --site slurm_gpus.py`.

Change the partition, the account, the GPUs and the environment. The campaign itself runs where you
start it, on a login node or in a long job of its own; it reads the data once, to refuse what is
wrong with them before any job starts, and then only waits. `--out` and the data must lie on a file
system that the nodes share, with locks that hold between nodes.

A job that reaches its walltime loses its runs; the campaign gives them to the next job, where they
continue from their last epoch. `drain_period` lets no run begin in the last hour of a job.
"""

from __future__ import annotations

from parsl import Config
from parsl.addresses import address_by_hostname
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider

N_GPUS = 4
HOURS = 24

config = Config(
    executors=[
        HighThroughputExecutor(
            label="gpus",
            address=address_by_hostname(),  # of this machine, as the nodes know it
            # One run per GPU, which sees no other.
            available_accelerators=N_GPUS,
            max_workers_per_node=N_GPUS,
            drain_period=(HOURS - 1) * 3600,
            heartbeat_period=15,
            heartbeat_threshold=60,  # jobs end so long after a campaign that was killed
            provider=SlurmProvider(
                partition="gpu",
                account=None,  # as "chem-123"
                nodes_per_block=1,
                init_blocks=1,
                min_blocks=0,
                max_blocks=8,
                walltime=f"{HOURS}:00:00",
                gpus_per_node=N_GPUS,
                worker_init="source $HOME/hippynn_mf/.venv/bin/activate",
                launcher=SrunLauncher(),
            ),
        )
    ],
    strategy="htex_auto_scale",
    run_dir="parsl",
    usage_tracking=0,
)
