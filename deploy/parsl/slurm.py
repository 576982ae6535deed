"""Parsl on SLURM: up to ten blocks of one node, asked for as work waits and given back when it does not.

``python -m training predict ... --executor parsl --parsl-config deploy/parsl/slurm.py``, on a login node, in ``tmux``. Change
partition, account and numbers to your machine's; other systems: ``parsl.providers`` (PBSPro, LSF, GridEngine, Kubernetes).
"""

from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SrunLauncher
from parsl.providers import SlurmProvider

WORKERS = 32
"""Of a node: one thread each."""

config = Config(
    executors=[
        HighThroughputExecutor(
            label="slurm",
            max_workers_per_node=WORKERS,
            cpu_affinity="block",
            provider=SlurmProvider(
                partition="standard",
                account=None,
                nodes_per_block=1,
                cores_per_node=WORKERS,
                init_blocks=1,
                max_blocks=10,
                walltime="04:00:00",
                launcher=SrunLauncher(),
                worker_init="source .venv/bin/activate; export OMP_NUM_THREADS=1",
            ),
        )
    ],
    retries=2,
    run_dir="parsl",
)
