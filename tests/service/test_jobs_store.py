"""What the job store promises: what it took it keeps, and what it deleted is gone, whatever happens to process and disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import Problem, ServiceError, StartupError
from service.jobs.location import open_job_store
from service.jobs.records import Claim, JobLimits, JobRequest, Rendered, is_job_id, new_job_id
from service.jobs.store import FILE_NAME, RESULTS_FOLDER, JobStore
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MARKER = "Zq7xMarker"
REQUEST = JobRequest("predict", f'{{"structure": "{MARKER}"}}', "json", "request-1")
RENDERED = Rendered(b"the answer", "application/json", {"Vary": "Accept"})
PROBLEM = Problem(422, {"code": "unsupported_element", "status": 422, "request_id": "gone"}, {"Retry-After": "3"})
TTL_S = 100.0


class Clock:
    """A clock that tests set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def open_store(folder: Path, clock: Clock | None = None, **limits: Any) -> JobStore:
    return JobStore(folder, JobLimits(**{"ttl_s": TTL_S, **limits}), clock=clock or Clock(), lock_wait_s=0.0)


@pytest.fixture
def store(folder: Path, clock: Clock):
    store = open_store(folder, clock)
    yield store
    store.close()


def claimed(store: JobStore) -> Claim:
    claim = store.claim()
    assert claim is not None
    return claim


def state_of(store: JobStore, job_id: str, owner: str | None = None) -> str | None:
    record = store.find(job_id, owner)
    return None if record is None else record.state


def read(store: JobStore, job_id: str) -> bytes:
    record = store.find(job_id, None)
    assert record is not None
    assert record.result is not None
    with store.open_result(record.result) as file:
        return file.read()


def in_another_process(folder: Path, statements: str) -> subprocess.CompletedProcess[str]:
    """Run statements with an open ``store``; the process ends as they say."""
    code = f"""
import os, signal, sys
from pathlib import Path
from service.errors import ServiceError
from service.jobs.records import *
from service.jobs.store import JobStore
from service.errors import StartupError
store = JobStore(Path({str(folder)!r}), lock_wait_s=0.0)
request = JobRequest("predict", "{{}}", "json", "request-1")
{textwrap.dedent(statements)}
"""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


# --- a job's life


def test_a_job_is_queued_then_running_then_done_and_its_result_is_what_was_stored(store, clock):
    job = store.add(REQUEST, None)
    assert (job.state, job.progress.position, job.attempts) == ("queued", 1, 0)
    assert (job.created, job.expires) == (clock.now, clock.now + TTL_S)
    clock.now += 10
    claim = claimed(store)
    assert claim.request == REQUEST
    assert state_of(store, job.id) == "running"
    clock.now += 10
    assert store.finish(claim, RENDERED)
    done = store.find(job.id, None)
    assert (done.state, done.finished, done.expires) == ("done", clock.now, clock.now + TTL_S)
    assert (done.result.media_type, done.result.headers) == (RENDERED.media_type, RENDERED.headers)
    assert read(store, job.id) == RENDERED.content


def test_a_failed_job_keeps_its_problem_but_no_request_id_of_another_request(store):
    job = store.add(REQUEST, None)
    assert store.fail(claimed(store), PROBLEM, "forward")
    failed = store.find(job.id, None)
    assert (failed.state, failed.progress.stage) == ("failed", "forward")
    assert failed.problem == Problem(422, {"code": "unsupported_element", "status": 422}, {"Retry-After": "3"})


def test_jobs_are_taken_in_the_order_they_came_and_positions_tell_it(store):
    jobs = [store.add(REQUEST, None).id for _ in range(3)]
    assert [store.find(job, None).progress.position for job in jobs] == [1, 2, 3]
    assert claimed(store).id == jobs[0]
    assert [store.find(job, None).progress.position for job in jobs] == [None, 1, 2]
    assert [claimed(store).id, claimed(store).id, store.claim()] == [jobs[1], jobs[2], None]


def test_no_run_of_a_job_is_claimed_twice_from_many_threads(store):
    jobs = {store.add(REQUEST, None).id for _ in range(40)}
    with ThreadPoolExecutor(8) as pool:
        claims = [claim for claim in pool.map(lambda _: store.claim(), range(60)) if claim is not None]
    assert len(claims) == len(jobs)
    assert {claim.id for claim in claims} == jobs


def test_more_waiting_jobs_than_allowed_are_refused_and_none_of_them_is_stored(folder):
    store = open_store(folder, max_waiting=2)
    kept = [store.add(REQUEST, None).id for _ in range(2)]
    with pytest.raises(ServiceError, match="queue_full") as refused:
        store.add(REQUEST, None)
    assert refused.value.retry_after_s >= 1
    assert claimed(store).id == kept[0]
    store.add(REQUEST, None)  # a running job does not wait
    store.close()


def test_one_key_cannot_fill_the_queue(folder):
    store = open_store(folder, max_waiting=4, max_waiting_of_owner=2)
    for _ in range(2):
        store.add(REQUEST, "alice")
    with pytest.raises(ServiceError, match="queue_full") as refused:
        store.add(REQUEST, "alice")
    assert "of this API key" in refused.value.detail
    store.add(REQUEST, "bob")
    claim = store.claim()
    assert claim is not None
    assert claim.owner == "alice"
    store.add(REQUEST, "alice")  # a running job does not wait
    store.close()


@pytest.mark.parametrize("how", ["overwritten", "replaced", "deleted"])
def test_a_file_that_something_else_took_is_noticed_before_a_job_is_promised(folder, caplog, how):
    store = open_store(folder)
    store.add(REQUEST, None)
    file = folder / FILE_NAME
    if how == "overwritten":
        with file.open("r+b") as opened:
            opened.write(b"\0" * 8192)
    else:
        file.unlink()
        if how == "replaced":
            file.write_bytes(b"SQLite format 3\0" + b"\0" * 8000)
    with pytest.raises(ServiceError, match="not_ready"):
        store.add(REQUEST, None)
    assert "was replaced or overwritten" in caplog.text
    with contextlib.suppress(ServiceError):
        store.close()


# --- ids and owners


def test_ids_are_long_random_and_of_one_form():
    ids = {new_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_job_id(job) and len(job) * 6 >= 256 for job in ids)


@pytest.mark.parametrize(
    "text", ["", "x", "a" * 42, "a" * 44, "../" + "a" * 40, "a" * 42 + "\n", "é" * 43, "' OR 1=1 --"]
)
def test_what_has_not_the_form_of_an_id_names_no_job(store, text):
    assert not is_job_id(text)
    store.add(REQUEST, None)
    assert store.find(text, None) is None
    assert not store.remove(text, None)


@pytest.mark.parametrize(("owner", "others"), [("alice", ["bob", None, ""]), (None, ["alice", ""])])
def test_a_job_is_seen_and_deleted_by_its_owner_only(store, owner, others):
    job = store.add(REQUEST, owner)
    for other in others:
        assert store.find(job.id, other) is None
        assert not store.remove(job.id, other)
    assert store.find(job.id, owner) == job
    assert store.remove(job.id, owner)
    assert store.find(job.id, owner) is None


# --- restarts


def test_a_job_that_was_running_when_the_process_died_is_queued_again_in_its_place(folder):
    first = open_store(folder)
    jobs = [first.add(REQUEST, None).id for _ in range(2)]
    claimed(first)
    first.close()  # without a word to the running job: what a crash leaves on the disk
    second = open_store(folder)
    assert [state_of(second, job) for job in jobs] == ["queued", "queued"]
    again = claimed(second)
    assert (again.id, again.request) == (jobs[0], REQUEST)
    assert second.finish(again, RENDERED)
    second.close()
    third = open_store(folder)
    assert read(third, jobs[0]) == RENDERED.content
    third.close()


def test_a_job_under_which_three_processes_died_fails_and_says_so(folder):
    store = open_store(folder)
    job = store.add(REQUEST, None).id
    for attempt in range(1, 4):
        assert claimed(store).run == attempt
        store.close()
        store = open_store(folder)
    failed = store.find(job, None)
    assert (failed.state, failed.attempts) == ("failed", 3)
    assert failed.problem.body["code"] == "job_failed"
    assert "3 times" in str(failed.problem.body["detail"])
    assert store.claim() is None
    store.close()


def test_an_orderly_stop_does_not_count_as_an_attempt(folder):
    store = open_store(folder)
    job = store.add(REQUEST, None).id
    for _ in range(5):
        claim = claimed(store)
        assert store.give_back() == 1
        assert not store.finish(claim, RENDERED), "a claim given back is worth nothing"
        store.close()
        store = open_store(folder)
    waiting = store.find(job, None)
    assert (waiting.state, waiting.attempts, waiting.started) == ("queued", 0, None)
    store.close()


def test_what_a_process_accepted_before_it_was_killed_is_there(folder):
    killed = in_another_process(
        folder,
        """
        sys.stdout.write(store.add(request, None).id); sys.stdout.flush()
        os._exit(9)
        """,
    )
    assert killed.returncode == 9, killed.stderr
    store = open_store(folder)
    assert state_of(store, killed.stdout) == "queued"
    assert claimed(store).id == killed.stdout
    store.close()


def test_a_process_killed_while_it_computes_and_stores_leaves_a_job_and_no_litter(folder):
    killed = in_another_process(
        folder,
        """
        sys.stdout.write(store.add(request, None).id); sys.stdout.flush()
        claim = store.claim()
        rename = Path.rename
        Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # the file is written, its name is not
        store.finish(claim, Rendered(b"half", "text/plain"))
        """,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list((folder / RESULTS_FOLDER).iterdir())
    store = open_store(folder)
    assert state_of(store, killed.stdout) == "queued"
    assert not list((folder / RESULTS_FOLDER).iterdir())
    store.close()


def test_one_folder_serves_one_process_at_a_time(folder):
    store = open_store(folder)
    with pytest.raises(StartupError, match=r"in use .*TRACEGRAD_JOBS_FOLDER"):
        open_store(folder)
    other = in_another_process(folder, "")
    assert "in use" in other.stderr
    store.close()
    open_store(folder).close()


# --- time to live and deletion


def test_a_finished_job_is_there_until_its_time_and_not_a_moment_longer(store, clock, folder):
    done, failed, waiting = (store.add(REQUEST, None).id for _ in range(3))
    store.finish(claimed(store), RENDERED)
    store.fail(claimed(store), PROBLEM, None)
    clock.now += TTL_S - 0.001
    assert store.purge() == 0
    assert (state_of(store, done), state_of(store, failed)) == ("done", "failed")
    clock.now += 0.001
    assert state_of(store, done) is None
    assert state_of(store, failed) is None
    assert state_of(store, waiting) == "queued", "a job that waits does not expire"
    assert not list((folder / RESULTS_FOLDER).iterdir())


def test_expired_jobs_go_without_being_asked_for(store, clock, folder):
    store.add(REQUEST, None)
    store.finish(claimed(store), RENDERED)
    clock.now += TTL_S
    assert store.purge() == 1
    assert not list((folder / RESULTS_FOLDER).iterdir())
    assert store.purge() == 0


@pytest.mark.parametrize("state", ["queued", "running", "done", "failed"])
def test_of_a_deleted_job_no_file_holds_a_trace(store, folder, state):
    job = store.add(REQUEST, None)
    claim = claimed(store) if state != "queued" else None
    if state == "done":
        store.finish(claim, Rendered(MARKER.encode(), "text/plain"))
    if state == "failed":
        store.fail(claim, Problem(422, {"detail": MARKER}), None)
    assert holds_marker(folder)
    assert store.remove(job.id, None)
    assert not holds_marker(folder)
    assert not store.remove(job.id, None)
    if claim is not None:
        assert not store.finish(claim, Rendered(MARKER.encode(), "text/plain")), "a late result has no job"
        assert not store.fail(claim, PROBLEM, None)
        assert not holds_marker(folder)


def holds_marker(folder: Path) -> bool:
    """Whether any file of the store holds the marker. Asked of another process: closing a file drops SQLite's locks."""
    code = (
        "import sys, pathlib\n"
        "files = [path for path in pathlib.Path(sys.argv[1]).rglob('*') if path.is_file()]\n"
        "print(any(sys.argv[2].encode() in path.read_bytes() for path in files))"
    )
    found = subprocess.run([sys.executable, "-c", code, folder, MARKER], capture_output=True, text=True, check=True)
    return found.stdout.strip() == "True"


def test_a_request_is_not_kept_beyond_its_computation(store, folder):
    store.add(REQUEST, None)
    store.finish(claimed(store), RENDERED)
    store.add(REQUEST, None)
    store.fail(claimed(store), PROBLEM, None)
    assert not holds_marker(folder)


def test_a_download_that_has_begun_survives_the_deletion(store):
    job = store.add(REQUEST, None)
    store.finish(claimed(store), RENDERED)
    with store.open_result(store.find(job.id, None).result) as file:
        assert store.remove(job.id, None)
        assert file.read() == RENDERED.content


def test_only_the_user_of_the_process_can_read_jobs_wherever_they_lie(folder):
    folder.mkdir(mode=0o755)
    store = open_store(folder)
    store.add(REQUEST, None)
    store.finish(claimed(store), RENDERED)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".sqlite", ".result"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
    store.close()


# --- full disks


def limit_pages(store: JobStore, extra: int | None) -> None:
    """SQLite's own way to a full disk: so many pages more than now, or as many as it likes."""
    with store._database.transaction() as rows:
        pages = rows.execute("PRAGMA page_count").fetchone()[0]
        rows.execute(f"PRAGMA max_page_count = {2**30 if extra is None else pages + extra}")


def test_a_full_disk_refuses_a_submission_whole_and_recovers(store):
    first = store.add(REQUEST, None).id
    limit_pages(store, 0)
    large = JobRequest("predict", "x" * 100_000, "json", "request-2")
    with pytest.raises(ServiceError, match="storage_full"):
        store.add(large, None)
    assert state_of(store, first) == "queued"
    limit_pages(store, None)
    second = store.add(large, None)
    assert second.progress.position == 2, "nothing of the refused job is in the queue"


def test_a_result_without_room_leaves_the_job_running_and_no_file(folder):
    # A file size limit of the system, as real as a full disk; SIGXFSZ is ignored by Python.
    other = in_another_process(
        folder,
        """
        import resource
        job = store.add(request, None)
        claim = store.claim()
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            store.finish(claim, Rendered(b"x" * 300_000, "text/plain"))
        except ServiceError as error:
            print(error.code, store.find(job.id, None).state, len(list(Path(store._folder, "results").iterdir())))
        """,
    )
    assert other.stdout.split() == ["storage_full", "running", "0"], other.stderr


def test_a_submission_without_room_on_the_system_is_refused(folder):
    other = in_another_process(
        folder,
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            store.add(JobRequest("predict", "x" * 300_000, "json", "request-2"), None)
        except ServiceError as error:
            print(error.code)
        print(store.find(store.add(request, None).id, None).progress.position)
        """,
    )
    assert other.stdout.split() == ["storage_full", "1"], other.stderr


def test_results_together_stay_below_their_limit(folder):
    store = open_store(folder, max_bytes=15)
    jobs = [store.add(REQUEST, None).id for _ in range(2)]
    assert store.finish(claimed(store), Rendered(b"x" * 15, "text/plain"))
    with pytest.raises(ServiceError, match="storage_full"):
        store.finish(claimed(store), Rendered(b"x", "text/plain"))
    with pytest.raises(ServiceError, match="storage_full"):
        store.add(REQUEST, None)
    assert store.remove(jobs[0], None)
    store.add(REQUEST, None)
    store.close()


# --- files that cannot be used


def test_commits_are_durable_and_deleted_pages_go(store):
    with store._database.transaction() as rows:
        settings = {name: rows.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
        assert settings == {"journal_mode": "wal", "synchronous": 2}
        assert rows.execute("PRAGMA auto_vacuum").fetchone()[0] == 1


@pytest.mark.parametrize("damage", ["text", "header", "pages"])
def test_a_damaged_file_stops_the_start_by_name_and_stays_as_it_is(folder, damage):
    store = open_store(folder)
    for _ in range(20):
        store.add(JobRequest("predict", "x" * 3000, "json", "r"), None)
    store.close()
    path = folder / FILE_NAME
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"not a database at all " * 300)
    elif damage == "header":
        content[:100] = os.urandom(100)
    else:
        content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(StartupError, match=FILE_NAME) as refused:
        open_store(folder)
    assert "damaged" in str(refused.value)
    assert "move it" in str(refused.value)
    assert path.read_bytes() == bytes(content)


def test_a_file_of_another_program_is_left_alone(folder):
    import sqlite3

    folder.mkdir()
    with sqlite3.connect(folder / FILE_NAME) as other:
        other.execute("CREATE TABLE accounts (name TEXT)")
    other.close()
    with pytest.raises(StartupError, match="another program"):
        open_store(folder)


def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="TRACEGRAD_JOBS_FOLDER"):
        open_store(tmp_path / "file" / "jobs")


# --- where the folder is


def test_the_default_folder_survives_restarts_of_one_port_and_is_not_another_ports(tmp_path):
    store = open_job_store(Settings(port=8001), home=tmp_path)
    job = store.add(REQUEST, None).id
    other = open_job_store(Settings(port=8002), home=tmp_path)
    assert other.find(job, None) is None
    store.close()
    other.close()
    again = open_job_store(Settings(port=8001), home=tmp_path)
    assert state_of(again, job) == "queued"
    assert again.remove(job, None)
    again.close()
    assert not list(tmp_path.rglob("jobs-*")), "without jobs, nothing stays in the user's home"


@pytest.mark.parametrize("settings", [Settings(), Settings(port=0)])
def test_without_a_place_for_the_default_folder_jobs_are_temporary_and_the_log_says_so(tmp_path, caplog, settings):
    (tmp_path / ".local").write_text("no folder")
    store = open_job_store(settings, home=tmp_path)
    place = store._folder
    store.add(REQUEST, None)
    store.close()
    assert not place.exists()
    assert "TRACEGRAD_JOBS_FOLDER" in caplog.text


def test_a_named_folder_is_used_and_never_removed(tmp_path):
    store = open_job_store(Settings(jobs_folder=tmp_path / "mine"), home=tmp_path)
    store.close()
    assert (tmp_path / "mine" / FILE_NAME).exists()


# --- idempotency keys


KEYED = replace(REQUEST, key="a key")


def test_a_request_under_its_key_is_one_job_whatever_happens_to_the_process(folder, clock):
    store = open_store(folder, clock)
    job = store.add(KEYED, "ann")
    assert store.add(replace(KEYED, request_id="another"), "ann").id == job.id
    store.close()
    store = open_store(folder, clock)
    again = store.add(KEYED, "ann")
    assert (again.id, again.request_id, again.progress.position) == (job.id, "request-1", 1)
    assert store.finish(claimed(store), RENDERED)
    done = store.add(KEYED, "ann")
    assert (done.id, done.state) == (job.id, "done")
    assert done.result.sha256 == hashlib.sha256(RENDERED.content).hexdigest()
    assert store.claim() is None
    store.close()


@pytest.mark.parametrize("change", [{"body": "{}"}, {"format_out": "npz"}, {"kind": "initial-guess"}])
def test_another_request_under_a_key_is_refused(store, change):
    store.add(KEYED, None)
    with pytest.raises(ServiceError, match="Idempotency-Key") as refused:
        store.add(replace(KEYED, **change), None)
    assert (refused.value.code, refused.value.field) == ("invalid_request", "Idempotency-Key")
    claimed(store)
    assert store.claim() is None


def test_keys_are_their_owner_s_and_requests_without_one_are_all_new(store):
    ids = [store.add(request, owner).id for request in (KEYED, REQUEST) for owner in (None, "ann", "bob")]
    ids += [store.add(REQUEST, None).id, store.add(replace(KEYED, key="b key"), None).id]
    assert len(set(ids)) == 8


def test_a_key_is_free_again_when_its_job_is_deleted_or_over(store, clock):
    job = store.add(KEYED, None)
    assert store.remove(job.id, None)
    second = store.add(replace(KEYED, body="{}"), None)
    assert second.id != job.id
    assert store.finish(claimed(store), RENDERED)
    clock.now += TTL_S
    assert store.add(KEYED, None).id != second.id


def test_a_repeated_request_is_answered_by_a_full_queue(folder, clock):
    store = open_store(folder, clock, max_waiting=1)
    job = store.add(KEYED, None)
    assert store.add(KEYED, None).id == job.id
    with pytest.raises(ServiceError):
        store.add(replace(KEYED, key="b key"), None)
    store.close()


def test_a_store_of_the_first_version_is_taken_over(folder, clock):
    store = open_store(folder, clock)
    waiting, done = store.add(REQUEST, None), store.add(REQUEST, None)
    claimed(store)
    assert store.give_back() == 1
    store.close()
    file = sqlite3.connect(folder / FILE_NAME)
    file.executescript("DROP TABLE keys; ALTER TABLE jobs DROP COLUMN sha256; PRAGMA user_version = 1;")
    file.close()
    store = open_store(folder, clock)
    assert [state_of(store, job.id) for job in (waiting, done)] == ["queued", "queued"]
    keyed = store.add(KEYED, None)
    assert store.add(KEYED, None).id == keyed.id
    assert store.finish(claimed(store), RENDERED)
    assert read(store, waiting.id) == RENDERED.content
    store.close()


def test_a_store_of_a_newer_version_stops_the_start_and_is_left_as_it_is(folder, clock):
    open_store(folder, clock).close()
    file = sqlite3.connect(folder / FILE_NAME)
    file.executescript("PRAGMA user_version = 99;")
    file.close()
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(StartupError, match=r"format 99, which a newer version .* reads 1 to 2"):
        open_store(folder, clock)
    assert (folder / FILE_NAME).read_bytes() == before


def test_a_copy_of_the_folder_of_a_stopped_service_is_a_backup(folder, clock, tmp_path):
    store = open_store(folder, clock)
    waiting = store.add(REQUEST, None)
    done = store.add(REQUEST, None)
    claim = claimed(store)
    assert store.finish(claim, RENDERED)
    store.close()
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    store = open_store(copy, clock)
    finished, other = (waiting, done) if claim.id == waiting.id else (done, waiting)
    assert read(store, finished.id) == RENDERED.content
    assert state_of(store, other.id) == "queued"
    store.close()
