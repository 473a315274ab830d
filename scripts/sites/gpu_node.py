"""One machine with several GPUs; use with `hippynn-mf campaign --site gpu_node.py`.

The same as `hippynn-mf campaign` without `--site` on a machine with four GPUs; a start for your own
numbers.
"""

from __future__ import annotations

from parsl import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

N_GPUS = 4

config = Config(
    executors=[
        HighThroughputExecutor(
            label="node",
            address="127.0.0.1",
            # One run per GPU, which sees no other. With 2 * N_GPUS in both lines there are two runs
            # on each.
            available_accelerators=N_GPUS,
            max_workers_per_node=N_GPUS,
            heartbeat_period=5,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
    ],
    strategy="none",
    run_dir="parsl",
    usage_tracking=0,
)
