"""Many independent pieces of work, each of which leaves a file or a reason: on worker processes here, or through Parsl.

Workers die: of memory, of a fault in compiled code, of a node that is taken away. Nothing that is finished is lost, since
every piece is a file; what had been begun is run again, alone, and given up when it takes its worker along once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from training.pool import parallel_map
from training.tables import ConfigError

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)


class WorkerDiedError(Exception):
    """A worker died, and did not say over what."""


class Ledger(Protocol[ItemIn]):
    """What has become of pieces of work."""

    def is_done(self, item: ItemIn) -> bool:
        """Whether there is a result, or a reason why there is none."""
        ...

    def is_suspect(self, item: ItemIn) -> bool:
        """Whether a worker took it and did not come back."""
        ...

    def give_up(self, item: ItemIn) -> None:
        """Its worker died twice: it is done, or split into pieces that can be tried again."""
        ...


class Executor(Protocol):
    """Where work is done."""

    def run(self, work: Callable[[Item], None], items: Sequence[Item], *, title: str, alone: bool = False) -> None:
        """Do all of it.

        Args:
            work: can be pickled; leaves its results on disk.
            items: what it is called with.
            title: for people.
            alone: on one worker that has nothing else.

        Raises:
            WorkerDiedError: some of it may not be done.
        """
        ...


@dataclass(frozen=True)
class ProcessPool:
    """Worker processes of this one.

    Attributes:
        processes: how many; 0 works in this process.
    """

    processes: int

    def run(self, work: Callable[[Item], None], items: Sequence[Item], *, title: str, alone: bool = False) -> None:
        """See ``Executor``."""
        processes = min(self.processes, 1) if alone and self.processes else self.processes
        try:
            for _ in parallel_map(work, items, total=len(items), processes=processes, title=title, chunk=1):
                pass
        except BrokenProcessPool as error:
            raise WorkerDiedError from error


class ParslExecutor:
    """Parsl's workers: on this machine, or blocks of nodes of SLURM, PBS and others, as a configuration says.

    Args:
        config: a ``parsl.config.Config``.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    def run(self, work: Callable[[Item], None], items: Sequence[Item], *, title: str, alone: bool = False) -> None:
        """See ``Executor``; retries are Parsl's, so a worker that dies costs time and nothing else."""
        import parsl
        from tqdm import tqdm

        app = parsl.python_app(_call, data_flow_kernel=parsl.dfk())
        futures = [app(work, item) for item in items]
        problem: Exception | None = None
        for future in tqdm(futures, desc=title, mininterval=5.0):
            try:
                future.result()
            except Exception as error:
                if not _is_loss(error):
                    raise
                problem = error
        if problem is not None:
            raise WorkerDiedError from problem


def _call(work: Callable[[Any], None], item: Any) -> None:
    """What a Parsl worker is sent."""
    work(item)


def _is_loss(error: Exception) -> bool:
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    return isinstance(error, (ManagerLost, WorkerLost))


@contextmanager
def opened(executor: str, processes: int, config: Path | None = None) -> Iterator[Executor]:
    """An executor by its name.

    Args:
        executor: "processes" or "parsl".
        processes: workers on this machine, where the configuration says nothing else.
        config: Python file that defines ``config``, a ``parsl.config.Config``.

    Raises:
        ConfigError: Parsl is not installed, or the file does not define a configuration.
    """
    if executor == "processes":
        yield ProcessPool(processes)
        return
    try:
        import parsl
    except ImportError as error:
        raise ConfigError(
            "--executor parsl needs Parsl, which is not installed: pip install 'tracegrad-service[parsl]'."
        ) from error
    wanted = local_config(max(1, processes)) if config is None else read_config(config)
    with parsl.load(wanted):
        yield ParslExecutor(wanted)


def local_config(processes: int) -> Any:
    """Parsl on this machine alone: so many workers of one thread, and two retries of what a dead one had."""
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    return Config(
        executors=[
            HighThroughputExecutor(
                label="local",
                address="127.0.0.1",
                loopback_address="127.0.0.1",
                max_workers_per_node=processes,
                provider=LocalProvider(init_blocks=1, max_blocks=1, worker_init="export OMP_NUM_THREADS=1"),
            )
        ],
        retries=2,
        run_dir="parsl",
    )


def read_config(path: Path) -> Any:
    """The configuration that a Python file defines.

    Raises:
        ConfigError: it does not.
    """
    from parsl.config import Config

    spec = spec_from_file_location("parsl_configuration", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{path} is not a Python file; give one that defines config = parsl.config.Config(...).")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, "config", None)
    if not isinstance(found, Config):
        raise ConfigError(f"{path} defines no config; write config = parsl.config.Config(...), as deploy/parsl does.")
    return found


@dataclass(frozen=True)
class Finishing(Generic[Item]):
    """Does all pieces, whatever happens to workers.

    Attributes:
        executor: where.
        ledger: what has become of each.
        title: for people.
    """

    executor: Executor
    ledger: Ledger[Item]
    title: str

    def all_of(self, work: Callable[[Item], None], items: Sequence[Item]) -> None:
        """Until every item is done.

        Raises:
            ConfigError: no worker stays alive.
        """
        rest = list(items)
        while rest:
            suspects: list[Item] = []
            try:
                self.executor.run(work, rest, title=self.title)
            except WorkerDiedError:
                suspects = [item for item in rest if self.ledger.is_suspect(item)]
            for suspect in suspects:
                try:
                    self.executor.run(work, [suspect], title=self.title, alone=True)
                except WorkerDiedError:
                    self.ledger.give_up(suspect)
            undone = [item for item in rest if not self.ledger.is_done(item)]
            if len(undone) == len(rest) and not suspects:
                raise ConfigError("No worker process stays alive; try processes = 0 to see why.")
            rest = undone
