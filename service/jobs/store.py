"""The jobs on disk: what was accepted stays until its owner deletes it or its time is over, whatever happens to the process.

All methods block on the disk and may be called from any thread; none belongs on an event loop. A job that was running
when the process died is queued again when the store is next opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from service.errors import Problem, ServiceError, StartupError, problem_of
from service.jobs.database import Database, storage_full
from service.jobs.keys import job_under_key, remember_key
from service.jobs.records import (
    STAGES,
    Claim,
    JobLimits,
    JobRecord,
    JobRequest,
    Rendered,
    StoredResult,
    is_job_id,
    new_job_id,
)
from service.jobs.results import ResultFiles, sync_folder
from service.schemas.jobs import Progress

logger = logging.getLogger(__name__)

FILE_NAME: Final = "jobs.sqlite"
RESULTS_FOLDER: Final = "results"
RETRY_AFTER_FULL_S: Final = 30
_SAME_IN_ROWS: Final = tuple(
    field.name for field in fields(JobRecord) if field.name not in ("progress", "problem", "result")
)


class JobStore:
    """The jobs of one service.

    Args:
        folder: made if it is not there; no other process may use it at the same time.
        limits: what to keep to.
        clock: seconds since 1970.
        lock_wait_s: how long to wait for a process that is about to end.
        remove: whether the folder goes when the store is closed.

    Raises:
        StartupError: the folder or the file in it cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        limits: JobLimits | None = None,
        *,
        clock: Callable[[], float] = time.time,
        lock_wait_s: float = 5.0,
        remove: Literal["never", "if_empty", "always"] = "never",
    ) -> None:
        self._folder = folder
        self._remove_folder = remove
        self._limits = limits or JobLimits()
        self._clock = clock
        with contextlib.ExitStack() as undo, _reported(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = Database(folder / FILE_NAME, lock_wait_s=lock_wait_s)
            undo.callback(self._database.close)
            self._results = ResultFiles(folder / RESULTS_FOLDER)
            sync_folder(folder.parent)
            self._recover()
            undo.pop_all()

    def add(self, request: JobRequest, owner: str | None) -> JobRecord:
        """Accept a job; it is on disk when this returns. A request that came before under its key is that job, however far.

        Args:
            request: what to compute.
            owner: name of the API key, or None where keys are off.

        Raises:
            ServiceError: ``queue_full`` or ``storage_full``, or ``invalid_request`` for another request under a key that is
                taken; nothing is accepted then.
        """
        now, job_id = self._clock(), new_job_id()
        if request.key is not None:
            self.purge()  # a key is free again when its job's time is over
        with self._database.transaction() as rows:
            before = job_under_key(rows, request, owner)
            if before is not None:
                return _record(*_select(rows, before, owner))
            waiting = rows.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
            if waiting >= self._limits.max_waiting:
                raise ServiceError(
                    "queue_full",
                    f"{waiting} jobs are waiting, as many as this server takes.",
                    hint="Try again after the time in Retry-After.",
                    retry_after_s=RETRY_AFTER_FULL_S,
                )
            self._check_share(rows, owner)
            self._check_room(rows, 1)
            sequence = rows.execute(
                "INSERT INTO jobs (id, owner, kind, format_out, request_id, state, created, expires) "
                "VALUES (?, ?, ?, ?, ?, 'queued', ?, ?)",
                (job_id, owner, request.kind, request.format_out, request.request_id, now, now + self._limits.ttl_s),
            ).lastrowid
            rows.execute("INSERT INTO bodies VALUES (?, ?)", (sequence, request.body))
            remember_key(rows, sequence, request, owner)
            (row,) = _select(rows, job_id, owner)
            return _record(row)

    def find(self, job_id: str, owner: str | None) -> JobRecord | None:
        """An owner's job, or None where there is none of this id (never was, another's, deleted, expired)."""
        if not is_job_id(job_id):
            return None
        with self._database.transaction() as rows:
            records = [_record(row) for row in _select(rows, job_id, owner)]
        if any(record.finished is not None and record.expires <= self._clock() for record in records):
            with contextlib.suppress(ServiceError):  # there may be no room to delete; the next purge tries again
                self.purge()
            return None
        return records[0] if records else None

    def claim(self) -> Claim | None:
        """Begin the job that waits longest; None where none waits. No two calls get the same run of a job."""
        with self._database.transaction() as rows:
            claimed = rows.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, run = run + 1, started = ? WHERE sequence = "
                "(SELECT min(sequence) FROM jobs WHERE state = 'queued') RETURNING *",
                (self._clock(),),
            ).fetchall()
            if not claimed:
                return None
            (job,) = claimed
            (body,) = rows.execute("SELECT body FROM bodies WHERE sequence = ?", (job["sequence"],)).fetchone()
        request = JobRequest(job["kind"], body, job["format_out"], job["request_id"])
        return Claim(job["id"], job["sequence"], job["run"], request, job["owner"])

    def finish(self, claim: Claim, rendered: Rendered) -> bool:
        """Store a result; the request is not needed any more and goes.

        Returns:
            False where the claim is worth nothing any more; the result is dropped then.

        Raises:
            ServiceError: ``storage_full``; the job is still running then.
        """
        with self._database.transaction() as rows:
            self._check_room(rows, len(rendered.content))
        self._results.write(claim.sequence, claim.run, rendered.content)
        changed = False
        try:
            changed = self._end(
                claim,
                state="done",
                size=len(rendered.content),
                media_type=rendered.media_type,
                headers=json.dumps(rendered.headers),
                sha256=hashlib.sha256(rendered.content).hexdigest(),
            )
        finally:
            if not changed:
                self._results.remove(claim.sequence, claim.run)
        return changed

    def fail(self, claim: Claim, problem: Problem, stage: str | None) -> bool:
        """Store why a job failed, and at which stage; False where the claim is worth nothing any more."""
        return self._end(claim, state="failed", problem=_dump_problem(problem), stage=stage)

    def give_back(self) -> int:
        """Put all running jobs back to their places in the queue, as if they had not been begun; how many there were.

        For an orderly stop: claims are worth nothing afterwards.
        """
        with self._database.transaction() as rows:
            return rows.execute(
                "UPDATE jobs SET state = 'queued', attempts = attempts - 1, started = NULL WHERE state = 'running'"
            ).rowcount

    def remove(self, job_id: str, owner: str | None) -> bool:
        """Delete an owner's job with all its data; False where there is none of this id."""
        return self.find(job_id, owner) is not None and self._delete("id = ? AND owner IS ?", job_id, owner) > 0

    def purge(self) -> int:
        """Delete every finished job whose time is over, with all its data; how many there were."""
        return self._delete("state IN ('done', 'failed') AND expires <= ?", self._clock())

    def open_result(self, result: StoredResult) -> BinaryIO:
        """The content of a result, to read from its start.

        Raises:
            FileNotFoundError: the job was deleted in the meantime.
        """
        return self._results.open(result.sequence, result.run)

    def close(self) -> None:
        """Give the folder free for the next process. Jobs that are running then count as interrupted."""
        with self._database.transaction() as rows:
            is_empty = rows.execute("SELECT count(*) FROM jobs").fetchone()[0] == 0
        self._database.close()
        if self._remove_folder == "always" or (self._remove_folder == "if_empty" and is_empty):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _recover(self) -> None:
        """Put the house in order after whatever ended the last process."""
        limit, now = self._limits.max_attempts, self._clock()
        error = ServiceError(
            "job_failed",
            f"The server stopped {limit} times while it worked on this job.",
            hint="Send a smaller structure, or ask the operator: the server's log names the request id of the submission.",
        )
        with self._database.transaction() as rows:
            given_up = rows.execute(
                "UPDATE jobs SET state = 'failed', finished = ?, expires = ?, problem = ? "
                "WHERE state = 'running' AND attempts >= ?",
                (now, now + self._limits.ttl_s, _dump_problem(problem_of(error, "")), limit),
            ).rowcount
            resumed = rows.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'").rowcount
            rows.execute("DELETE FROM bodies WHERE sequence IN (SELECT sequence FROM jobs WHERE state = 'failed')")
            done = rows.execute("SELECT sequence, run FROM jobs WHERE state = 'done'").fetchall()
        self._results.keep_only([(sequence, run) for sequence, run in done])
        self.purge()
        if given_up or resumed:
            logger.warning("jobs interrupted by the last stop: %d queued again, %d given up", resumed, given_up)

    def _end(self, claim: Claim, **columns: Any) -> bool:
        """Write the last state of a run, and drop the request; False where the claim is worth nothing any more."""
        now = self._clock()
        columns |= {"finished": now, "expires": now + self._limits.ttl_s}
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        with self._database.transaction() as rows:
            changed = rows.execute(
                f"UPDATE jobs SET {assignments} WHERE sequence = :sequence AND run = :run AND state = 'running'",
                {**columns, "sequence": claim.sequence, "run": claim.run},
            ).rowcount
            if changed:
                rows.execute("DELETE FROM bodies WHERE sequence = ?", (claim.sequence,))
        self._database.forget()
        return bool(changed)

    def _delete(self, condition: str, *values: object) -> int:
        with self._database.transaction() as rows:
            deleted = rows.execute(f"SELECT sequence, run FROM jobs WHERE {condition}", values).fetchall()
            # Results first: on a full disk they make the room that the rest needs.
            for sequence, run in deleted:
                self._results.remove(sequence, run)
                for table in ("jobs", "bodies", "keys"):
                    rows.execute(f"DELETE FROM {table} WHERE sequence = ?", (sequence,))
        if deleted:
            self._database.forget()
        return len(deleted)

    def _check_share(self, rows: sqlite3.Connection, owner: str | None) -> None:
        """One key cannot fill the queue of all."""
        query = "SELECT count(*) FROM jobs WHERE state = 'queued' AND owner = ?"
        waiting = 0 if owner is None else rows.execute(query, (owner,)).fetchone()[0]
        if waiting >= self._limits.max_waiting_of_owner:
            raise ServiceError(
                "queue_full",
                f"{waiting} jobs of this API key are waiting, as many as this server takes of one.",
                hint="Try again after the time in Retry-After, or DELETE jobs that are not needed.",
                retry_after_s=RETRY_AFTER_FULL_S,
            )

    def _check_room(self, rows: sqlite3.Connection, size: int) -> None:
        if rows.execute("SELECT total(size) FROM jobs").fetchone()[0] + size > self._limits.max_bytes:
            raise storage_full()


@contextlib.contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """What keeps a store from being opened, in words for the operator."""
    try:
        yield
    except OSError as error:
        raise StartupError(
            f"The job store {folder} cannot be used: {error.strerror}. Name a writable folder in TRACEGRAD_JOBS_FOLDER."
        ) from error
    except ServiceError as error:
        raise StartupError(f"The job store {folder} cannot be used: its disk is full. Free some space.") from error


def _select(rows: sqlite3.Connection, job_id: str, owner: str | None) -> list[sqlite3.Row]:
    return rows.execute(
        "SELECT *, (SELECT count(*) FROM jobs AS ahead WHERE ahead.state = 'queued' AND ahead.sequence <= jobs.sequence) "
        "AS position FROM jobs WHERE id = ? AND owner IS ?",
        (job_id, owner),
    ).fetchall()


def _record(row: sqlite3.Row) -> JobRecord:
    state = row["state"]
    result = None
    if state == "done":
        headers = json.loads(row["headers"])
        result = StoredResult(row["sequence"], row["run"], row["size"], row["media_type"], headers, row["sha256"])
    fraction = 1.0 if state == "done" else STAGES.get(row["stage"], 0.0)
    position = row["position"] if state == "queued" else None
    return JobRecord(
        **{name: row[name] for name in _SAME_IN_ROWS},
        progress=Progress(stage=row["stage"], fraction=fraction, position=position),
        problem=None if row["problem"] is None else Problem(**json.loads(row["problem"])),
        result=result,
    )


def _dump_problem(problem: Problem) -> str:
    """A problem without its request id: each answer puts in its own."""
    body = {name: value for name, value in problem.body.items() if name != "request_id"}
    return json.dumps({"status": problem.status, "body": body, "headers": problem.headers})
