"""``python -m service``: load the checkpoints and serve them, one process, until SIGTERM or SIGHUP.

Exit codes: 0 after an ordinary stop, 1 if the port cannot be opened, 2 if the settings or a checkpoint are at fault
(the reason is on standard error), 3 if a device failed for good. An event loop that stands for a minute ends it with 1, too.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from service.memory.machine import usable_cores

MAX_DEFAULT_THREADS = 8
SWITCH_INTERVAL_S = 0.001
"""For so long a thread may keep Python's lock while another wants it. The event loop gives it away at each piece of an answer
that it writes, and beside threads of Python's default, 5 ms, waited so long each time."""


def prepare_environment() -> None:
    """Set what libraries read from the environment at import; a value that is there already stays.

    Threads: one for each core that this process may use, by its affinity and its control group's quota, up to a few: the
    matrices are small. OpenBLAS has one: several eigensolves run at a time, and its threads spin while they wait for each
    other, which on a busy machine made a
    hundredfold of half a millisecond (docs/benchmarks.md); OpenMP's are told to sleep. PySCF executes a
    ``.pyscf_conf.py`` from the working directory or HOME unless it is told another file: it is told ours.
    """
    threads = str(min(MAX_DEFAULT_THREADS, usable_cores()))
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, threads)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["PYSCF_CONFIG_FILE"] = str(Path(__file__).with_name("pyscf_conf.py"))


def keep_from_collector() -> None:
    """Take what has been made so far out of what the collector of cycles looks through.

    Modules and models stay for good: they are 400,000 objects, and looking through them made every thread stand for 0.2 s.
    """
    gc.collect()
    gc.freeze()


def _stop(*_: object) -> None:
    raise SystemExit(0)


def main() -> int:
    """Run the service; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)  # before there is anything to finish; the server has its own
    prepare_environment()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    import uvicorn

    from service.app import create_app
    from service.checkpoints.startup import load_registry
    from service.errors import StartupError
    from service.http.connections import ConnectionLimits, most_connections, protocol_with
    from service.jobs.location import open_job_store
    from service.observability.logs import configure_logging
    from service.observability.metrics import Metrics
    from service.scratch import remove_leftovers
    from service.server import Server
    from service.settings import Settings, misspelt

    if wrong := misspelt(os.environ):
        print(*wrong, sep="\n", file=sys.stderr)
        return 2
    try:
        settings = Settings()
        configure_logging(settings)
        metrics = Metrics()
        remove_leftovers()
        registry = load_registry(settings, metrics)
        jobs = None if settings.jobs == "off" else open_job_store(settings, home=Path(os.path.expanduser("~")))
        app = create_app(settings, registry=registry, metrics=metrics, job_store=jobs)
    except ValidationError as error:
        for entry in error.errors(include_url=False, include_input=False, include_context=False):
            name = "TRACEGRAD_" + "_".join(str(part) for part in entry["loc"]).upper()
            print(f"{name}: {entry['msg']}", file=sys.stderr)
        return 2
    except StartupError as error:
        print(str(error), file=sys.stderr)
        return 2
    limits = ConnectionLimits(
        header_bytes=settings.max_header_bytes,
        header_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.request_timeout_s + 5.0,
        per_address=settings.max_connections_per_address,
        total=most_connections(),
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        log_config=None,  # its lines go through our handler
        access_log=False,  # it has paths and queries; the log of requests is ours
        workers=1,
        http=protocol_with(limits),
        ws="none",  # it would answer past access, quotas and the rules of the log
        server_header=False,
        timeout_graceful_shutdown=int(settings.request_timeout_s) + 1,
    )
    keep_from_collector()
    server = Server(config, app, drain_delay_s=settings.drain_delay_s)
    try:
        server.run()
    except SystemExit as stop:  # uvicorn leaves this way when the port is taken
        return int(stop.code or 0)
    if server.device_lost:
        return 3
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
