"""Settings: everything an operator can set, read once from ``TRACEGRAD_*`` variables and passed down.

Nothing else in the service reads the environment. A value out of range stops the start, not the first request.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 1024 * 1024


def _split(value: object) -> object:
    """The parts of a text with commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


# as a browser sends it: scheme, host, port, and nothing behind
Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/?#\s*]+)$")]


OTHERS: Final = frozenset(
    f"TRACEGRAD_{name}"
    for names in (
        ("URL", "API_KEY", "DATA", "SHARED", "CRYSTALS"),
        ("PUBLIC_ADDRESS", "PUBLIC_PORT", "MEMORY", "TAG", "KEYS", "CERTIFICATE", "TLS_ADDRESS", "TLS_PORT"),
    )
    for name in names
)
"""Variables of the client and the benchmarks, and of the compose files, which may stand in the same environment."""


class Settings(BaseSettings):
    """Operator settings.

    Attributes:
        host: address to listen on.
        port: TCP port to listen on.
        checkpoints: folder of checkpoints; each is loaded at start, in its newest version.
        compiled: folder of compiled forward passes (``python -m model.exported``); one that belongs to a checkpoint, to this
            torch and this processor runs in the network's place on the CPU. It is machine code: nobody else may write there.
        default_model: name of the model that is preferred when a request names none; with a comma two, for molecules and
            crystals.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``.
        api_keys_file: TOML file with the hashes of the API keys (docs/operations.md). None: everything is open but the
            admin routes, which are closed.
        quota_orbitals: orbitals of a structure that counts as one request of a key's quota; a larger one counts by the
            square of its orbitals over these. 0: every structure counts as one.
        cors_origins: origins whose pages may call from a browser, separated by commas; "*" for all, none by default.
        allowed_hosts: names that a Host header may have, separated by commas; "*" for all. By default a service without keys
            that listens on this machine alone takes the names of this machine, and any other takes all.
        max_connections_per_address: open connections of one address; 0 for no limit, as behind a proxy, which has one
            address for all callers.
        max_header_bytes: request line and header fields of a request.
        header_timeout_s: seconds that a connection may take to send the headers of a request.
        memory_bytes: memory that the service may use, its parsers and jobs included. None: the limit of the control group
            (a container's), or the machine's memory. What cannot fit is refused, and what does not fit now waits.
        max_atoms: largest structure, in atoms.
        max_orbitals: largest structure, in atomic orbitals.
        max_k_cost: eigensolves for a crystal, in k-points times orbitals cubed; 10^10 are about 20 s of one core.
        max_body_bytes: largest request body, counted while it arrives.
        max_file_bytes: largest structure file inside a request.
        queue_limit: requests of one caller that may wait for one model (and for the file parsers) before 503; four times as
            many of all callers.
        batch_cost: most blocks (atoms and pairs of atoms) in one forward pass.
        batch_wait_ms: milliseconds that a structure may wait for others that are on their way; a lone one never waits.
        cache_bytes: memory for predictions that may be asked for again; 0 keeps none.
        max_batch_structures: structures in one request to the batch route.
        request_timeout_s: seconds a request may take, reading of the body included.
        drain_delay_s: seconds after SIGTERM in which the service says that it is not ready and answers all the same, so that
            a balancer has time to send elsewhere.
        parse_timeout_s: seconds the file parser may take for one file.
        parse_memory_bytes: address space of a file parser process.
        parse_workers: number of file parser processes; of several, one is kept for callers who have used little.
        jobs: ``process``: each job runs in a process of its own; ``thread``: in this one, beside the requests; ``off``: this
            process takes no jobs, as a replica beside one that does.
        jobs_folder: folder of the jobs, for one process at a time; jobs in it survive a restart. None: with
            ``python -m service``, ``~/.local/state/tracegrad/jobs-<port>``, so that a restart on the same port continues
            them; where that cannot be written, and for an app made in another program, a temporary folder, and a
            restart loses them.
        job_ttl_s: seconds that a finished job and its result are kept.
        max_jobs: jobs that may wait.
        max_jobs_of_key: of these, jobs of one API key.
        job_workers: jobs computed at the same time.
        job_timeout_s: seconds that one job may be computed.
        job_max_atoms: largest structure of a job, in atoms.
        job_max_orbitals: largest structure of a job, in atomic orbitals; memory may set a lower limit.
        job_max_sparse_orbitals: the same of a crystal of which only sparse matrices are made (blocks, bands near the gap).
        job_max_k_cost: eigensolves of a job, as max_k_cost.
        job_storage_bytes: most bytes of all stored results together.
        log_level: level of the log. At ``debug`` the texts of unexpected exceptions are logged, which may quote an input.
        log_format: ``text`` for people or ``json``, one object a line.
        tracing: send OpenTelemetry traces; needs the extra ``tracing`` and the standard ``OTEL_*`` variables.
    """

    model_config = SettingsConfigDict(env_prefix="TRACEGRAD_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    checkpoints: Path = Path("checkpoints")
    compiled: Path = Path("compiled")
    default_model: str | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$")] = "auto"
    api_keys_file: Path | None = None
    quota_orbitals: Annotated[int, Field(ge=0, le=100_000)] = 0
    cors_origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)] = ()
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ()
    max_connections_per_address: Annotated[int, Field(ge=0, le=100_000)] = 256
    max_header_bytes: Annotated[int, Field(ge=4096, le=MEBIBYTE)] = 64 * 1024
    header_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    memory_bytes: Annotated[int | None, Field(ge=256 * MEBIBYTE)] = None
    max_atoms: Annotated[int, Field(ge=1, le=100_000)] = 200
    max_orbitals: Annotated[int, Field(ge=1, le=100_000)] = 1000
    max_k_cost: Annotated[int, Field(ge=1, le=10**15)] = 10**10
    max_body_bytes: Annotated[int, Field(ge=1024)] = 4 * MEBIBYTE
    max_file_bytes: Annotated[int, Field(ge=64, le=64 * MEBIBYTE)] = MEBIBYTE
    queue_limit: Annotated[int, Field(ge=0, le=100_000)] = 32
    batch_cost: Annotated[int, Field(ge=1)] = 1000
    batch_wait_ms: Annotated[float, Field(ge=0, le=10_000)] = 10.0
    cache_bytes: Annotated[int, Field(ge=0)] = 64 * MEBIBYTE
    max_batch_structures: Annotated[int, Field(ge=1, le=10_000)] = 256
    request_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    drain_delay_s: Annotated[float, Field(ge=0, le=300)] = 0.0
    parse_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    parse_memory_bytes: Annotated[int, Field(ge=512 * MEBIBYTE)] = 1024 * MEBIBYTE
    parse_workers: Annotated[int, Field(ge=1, le=32)] = 2
    jobs: Literal["process", "thread", "off"] = "process"
    jobs_folder: Path | None = None
    job_ttl_s: Annotated[float, Field(gt=0, le=366 * 86_400)] = 86_400.0
    max_jobs: Annotated[int, Field(ge=1, le=100_000)] = 100
    max_jobs_of_key: Annotated[int, Field(ge=1, le=100_000)] = 25
    job_workers: Annotated[int, Field(ge=1, le=32)] = 1
    job_timeout_s: Annotated[float, Field(gt=0, le=7 * 86_400)] = 3600.0
    job_max_atoms: Annotated[int, Field(ge=1, le=100_000)] = 1000
    job_max_orbitals: Annotated[int, Field(ge=1, le=100_000)] = 3000
    job_max_sparse_orbitals: Annotated[int, Field(ge=1, le=1_000_000)] = 16_000
    job_max_k_cost: Annotated[int, Field(ge=1, le=10**15)] = 10**12
    job_storage_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * MEBIBYTE
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"
    log_format: Literal["text", "json"] = "text"
    tracing: bool = False


def misspelt(variables: Iterable[str]) -> list[str]:
    """What is wrong with the names of ``TRACEGRAD_*`` variables, a line for each that is no setting's."""
    known = [f"TRACEGRAD_{name}".upper() for name in Settings.model_fields]
    lines = []
    for name in sorted(variables):
        if name.upper().startswith("TRACEGRAD_") and name.upper() not in known and name.upper() not in OTHERS:
            near = get_close_matches(name.upper(), known, 1)
            lines.append(
                f"{name}: there is no such setting{f'; {near[0]} is meant' if near else ''}. docs/api.md lists all."
            )
    return lines
