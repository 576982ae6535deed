"""Jobs on the wire: what is submitted, and what is told of a job."""

from __future__ import annotations

from typing import Literal

from service.schemas.base import WireModel
from service.schemas.requests import GuessRequest, PathName, PathPoints, States, Width, Window
from service.schemas.responses import ProblemBody

Kind = Literal["predict", "initial-guess", "bands", "dos"]
State = Literal["queued", "running", "done", "failed"]
Stage = Literal["parse", "integrals", "forward", "eigensolve", "serialise"]


class JobSubmission(GuessRequest):
    """JSON body of ``POST /v1/jobs``: that of the route whose answer is wanted, and which route that is.

    Attributes:
        kind: the route.
        path, npoints, states, window_ev, sigma_ev: as of ``/v1/bands`` and ``/v1/dos``.
    """

    kind: Kind = "predict"
    path: PathName | None = None
    npoints: PathPoints | None = None
    states: States | None = None
    window_ev: Window | None = None
    sigma_ev: Width | None = None


class Progress(WireModel):
    """How far a job is.

    Attributes:
        stage: what is being done, or where the job failed; null while it waits and when it is done.
        fraction: 0 to 1, of the usual time.
        position: place in the queue, from 1; null once the job has left it.
        k_points: how many k-points are solved in this stage; null where none are counted.
        k_points_solved: of them, so far.
    """

    stage: Stage | None = None
    fraction: float = 0.0
    position: int | None = None
    k_points: int | None = None
    k_points_solved: int | None = None


class JobLinks(WireModel):
    """Paths of a job.

    Attributes:
        status: GET for this document, DELETE to delete the job with all its data.
        result: GET for the answer.
    """

    status: str
    result: str


class Artifact(WireModel):
    """A file that a job gave.

    Attributes:
        name: for people and disks.
        media_type: content type.
        bytes: its size.
        sha256: of its content, hexadecimal; null of a job that an earlier version of the service finished.
        link: GET for it.
    """

    name: str
    media_type: str
    bytes: int
    sha256: str | None
    link: str


class JobStatus(WireModel):
    """What is told of a job; times are UTC, ISO 8601.

    Attributes:
        id: unguessable; whoever has it (and the key that submitted the job, where keys are on) has the job.
        kind: the route whose answer it is.
        format_out: format of the result.
        state: where in its life the job is; a deleted one is unknown.
        created: when it was accepted.
        started: when it was last begun.
        finished: when it was done or failed.
        expires: it is kept until then at least: until it finishes, the time to live from its creation, and then from
            its end. A job that waits or runs does not expire.
        attempts: how often it was begun; more than once if the server died meanwhile.
        request_id: X-Request-ID of the submission; names the job in the server's log.
        progress: how far it is.
        problem: why it failed, as its result route answers.
        links: where it is.
        artifacts: what it gave, once it is done.
    """

    id: str
    kind: Kind
    format_out: str
    state: State
    created: str
    started: str | None
    finished: str | None
    expires: str
    attempts: int
    request_id: str
    progress: Progress
    problem: ProblemBody | None
    links: JobLinks
    artifacts: list[Artifact]
