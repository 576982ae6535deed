"""Laws of access: what a key opens, what its quota allows, and that it is never seen again after it came in."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.access.key_ring import ApiKey, KeyRing, digest_of
from service.access.keys_file import load_keys
from service.access.new_key import new_key, table_of
from service.access.quota import Quotas
from service.app import create_app
from service.errors import StartupError
from service.http.access import MAX_KEY_BYTES, AccessMiddleware, presented_key
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TODAY = datetime.now(UTC).date()
KEYS = {name: new_key() for name in ("alice", "bob", "operator", "late", "boss")}
UNKNOWN = new_key()

Headers = list[tuple[bytes, bytes]]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    state: dict[str, Any]

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


def entry(name: str, *scopes: str, quota: int | None = None, expires: date | None = None) -> ApiKey:
    return ApiKey(name, digest_of(KEYS[name].encode()), frozenset(scopes), quota, expires)  # type: ignore[arg-type]


def ring() -> KeyRing:
    return KeyRing(
        [
            entry("alice", "predict", quota=3),
            entry("bob", "predict", quota=2),
            entry("late", "predict", "admin", expires=TODAY),
            entry("operator", "admin"),
            entry("boss", "predict", "admin", expires=TODAY + timedelta(days=2)),
        ]
    )


def guard(keys: KeyRing | None) -> Any:
    """The layer around an app that answers 200 to everything."""

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return AccessMiddleware(inside, keys)


def call(app: Any, path: str, headers: Iterable[tuple[bytes, bytes]] = (), root_path: str = "") -> Reply:
    """One GET; the body may not be touched."""
    sent: list[Any] = []
    scope = {
        "type": "http", "method": "GET", "path": path, "root_path": root_path, "query_string": b"",
        "headers": list(headers), "http_version": "1.1", "scheme": "http", "server": ("here", 80),
        "state": {"request_id": "r-1"},
    }  # fmt: skip

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start = sent[0]
    return Reply(
        start["status"],
        {name.decode().lower(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
        scope["state"],  # type: ignore[arg-type]
    )


def bearer(key: str) -> Headers:
    return [(b"authorization", b"Bearer " + key.encode())]


def with_key(name: str | None) -> Headers:
    return [] if name is None else bearer(KEYS.get(name, UNKNOWN))


@pytest.fixture(scope="module")
def guarded_app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The whole application with keys, before its models are loaded."""
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(table_of("alice", KEYS["alice"]))
    return create_app(Settings(api_keys_file=path, device="cpu"))


# -- what a key opens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v1/predict", "/v1/models/tiny", "/v1", "/v1/none", "/v1/jobs\n", "/v2/models", "/x"]
)
@pytest.mark.parametrize(
    ("name", "status"),
    [(None, 401), ("unknown", 401), ("late", 401), ("operator", 403), ("alice", 200), ("bob", 200), ("boss", 200)],
)
def test_what_is_not_open_needs_a_valid_key_for_predictions(path: str, name: str | None, status: int) -> None:
    assert call(guard(ring()), path, with_key(name)).status == status


@pytest.mark.parametrize("path", ["/v1/admin/models/tiny/load", "/v1/admin/", "/v1/admin", "/v1/admin\n"])
@pytest.mark.parametrize(
    ("name", "status"), [(None, 401), ("unknown", 401), ("late", 401), ("alice", 403), ("operator", 200), ("boss", 200)]
)
def test_admin_routes_need_an_admin_key(path: str, name: str | None, status: int) -> None:
    reply = call(guard(ring()), path, with_key(name))
    assert reply.status == status
    if status == 403:
        assert reply.code == "forbidden"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready"])
@pytest.mark.parametrize("name", [None, "unknown", "alice"])
def test_some_paths_are_open_to_everybody(path: str, name: str | None) -> None:
    reply = call(guard(ring()), path, with_key(name))
    assert (reply.status, reply.state["key_name"]) == (200, None)


@pytest.mark.parametrize("name", [None, "unknown", "boss"])
def test_without_a_keys_file_all_but_the_admin_routes_is_open(name: str | None) -> None:
    app = guard(None)
    reply = call(app, "/v1/predict", with_key(name))
    assert (reply.status, reply.state["key_name"]) == (200, None)
    refused = call(app, "/v1/admin/models/tiny/load", with_key(name))
    assert (refused.status, refused.code) == (403, "forbidden")
    assert "TRACEGRAD_API_KEYS_FILE" in json.loads(refused.body)["hint"]


def test_a_root_path_moves_the_doors_with_the_routes() -> None:
    app = guard(ring())
    for path, name, status in [("/v1/predict", None, 401), ("/v1/admin/x", "alice", 403), ("/health/live", None, 200)]:
        assert call(app, "/api" + path, with_key(name), root_path="/api").status == status


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer KEY")],
        [(b"authorization", b"bearer   KEY ")],
        [(b"x-api-key", b"KEY")],
        [(b"x-api-key", b"KEY"), (b"authorization", b"Basic dTpw")],
        [(b"x-api-key", b"KEY"), (b"authorization", b"Bearer of another gate")],
        [(b"x-api-key", b""), (b"authorization", b"Bearer KEY")],
    ],
)
def test_the_ways_to_send_a_key(headers: Headers) -> None:
    sent = [(name, value.replace(b"KEY", KEYS["alice"].encode())) for name, value in headers]
    reply = call(guard(ring()), "/v1/models", sent)
    assert (reply.status, reply.state["key_name"]) == (200, "alice")


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"KEY")],
        [(b"authorization", b"Basic KEY")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"BearerKEY")],
        [(b"x-api-key", b"Bearer KEY")],
        [(b"x-api-key", b"KEY KEY")],
        [(b"x-api-key", b"HASH")],
        [(b"cookie", b"KEY")],
    ],
)
def test_a_key_in_the_wrong_place_is_no_key(headers: Headers) -> None:
    key = KEYS["alice"].encode()
    stored = hashlib.sha256(key).hexdigest().encode()
    sent = [(name, value.replace(b"KEY", key).replace(b"HASH", stored)) for name, value in headers]
    reply = call(guard(ring()), "/v1/models", sent)
    assert (reply.status, reply.code, reply.headers["www-authenticate"]) == (401, "missing_key", "Bearer")


def test_missing_unknown_and_expired_keys_get_one_answer() -> None:
    app = guard(ring())
    replies = [call(app, "/v1/predict", with_key(name)) for name in (None, "unknown", "late")]
    replies.append(call(app, "/v1/admin/models/x/load"))
    assert len({(reply.body, tuple(sorted(reply.headers.items()))) for reply in replies}) == 1
    assert json.loads(replies[0].body)["request_id"] == "r-1"
    assert all(reply.state["key_name"] is None for reply in replies)


def test_the_name_of_the_key_stays_on_a_refused_request() -> None:
    app = guard(ring())
    assert call(app, "/v1/admin/x", with_key("alice")).state["key_name"] == "alice"


@settings(max_examples=150)
@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"x-api-key", b"x-request-id", b"content-length"])
            | st.binary(max_size=12),
            st.binary(max_size=40)
            | st.builds(bytes.__add__, st.sampled_from([b"Bearer ", b"bearer\t", b"Bearer  "]), st.binary(max_size=60))
            | st.integers(200, 100_000).map(lambda length: b"Bearer " + b"x" * length),
        ),
        max_size=5,
    )
)
def test_no_header_opens_or_breaks_anything(guarded_app: Any, headers: Headers) -> None:
    assert call(guarded_app, "/v1/models", headers).status == 401


@settings(max_examples=100)
@given(index=st.integers(0, 45), byte=st.integers(0, 255))
def test_a_key_that_differs_in_one_byte_is_unknown(index: int, byte: int) -> None:
    key = bytearray(KEYS["boss"].encode())
    same = key[index] == byte
    key[index] = byte
    found = ring().find(bytes(key), TODAY)
    assert (found is not None) == same


def test_access_comes_before_the_body_limit_and_the_models(guarded_app: Any) -> None:
    large = (b"content-length", b"999999999999")
    assert call(guarded_app, "/v1/predict", [large]).code == "missing_key"
    assert call(guarded_app, "/v1/predict", [large, *with_key("alice")]).code == "body_too_large"
    assert call(guarded_app, "/v1/models", with_key("alice")).code == "not_ready"


def test_the_document_says_where_keys_apply(guarded_app: Any) -> None:
    document = guarded_app.openapi()
    schemes = set(document["components"]["securitySchemes"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = {name for choice in operation.get("security", []) for name in choice}
            assert named == (schemes if path.startswith("/v1/") else set()), path
            assert ({"401", "403", "429"} <= set(operation["responses"])) == path.startswith("/v1/"), path
            if named:
                assert ({} in operation["security"]) != path.startswith("/v1/admin/")


# -- the search ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "boss", "late", "unknown", "empty", "long"])
def test_every_search_compares_with_every_entry_in_constant_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = {"unknown": UNKNOWN, "empty": "", "long": "x" * 10_000}.get(name) or KEYS.get(name, "")
    compared: list[bytes] = []
    real = hmac.compare_digest

    def spy(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    keys = ring()
    call(guard(keys), "/v1/models", [(b"x-api-key", key.encode())])
    assert compared == [entry.digest for entry in keys.keys]


@pytest.mark.parametrize("header", [(b"x-api-key", b""), (b"authorization", b"Bearer ")])
def test_what_is_hashed_for_a_stranger_is_bounded(header: tuple[bytes, bytes]) -> None:
    name, start = header
    assert presented_key([(name, start + b"x" * MAX_KEY_BYTES)]) == b"x" * MAX_KEY_BYTES
    assert presented_key([(name, start + b"x" * (MAX_KEY_BYTES + 1))]) == b""


def test_a_key_expires_when_its_day_begins() -> None:
    keys = KeyRing([entry("alice", "predict", expires=date(2027, 1, 1))])
    sent = KEYS["alice"].encode()
    assert keys.find(sent, date(2026, 12, 31)) is not None
    assert keys.find(sent, date(2027, 1, 1)) is None


# -- quotas -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stops the clock; the function that comes back moves it on."""
    now = [1_800_000_000.0]
    monkeypatch.setattr("service.access.quota.time", SimpleNamespace(monotonic=lambda: now[0]))

    def pass_seconds(seconds: float) -> None:
        now[0] += seconds

    return pass_seconds


def test_structures_count_all_or_none_and_more_than_the_quota_never_fit(clock: Callable[[float], None]) -> None:
    quotas, key = Quotas(), entry("alice", "predict", quota=10)
    assert quotas.take(key, 11) == 60
    assert quotas.take(key, 6) is None
    clock(20.0)
    assert quotas.take(key, 5) == 41  # the six are a minute old after 40 s
    assert quotas.take(key, 4) is None
    clock(40.5)
    assert quotas.take(key, 6) is None


def test_a_step_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    quotas, key = Quotas(), entry("alice", "predict", quota=1)
    assert quotas.take(key) is None
    for step in (3600.0, -3600.0):
        monkeypatch.setattr("time.time", lambda step=step: 1_800_000_000.0 + step)
        assert 59 <= (quotas.take(key) or 0) <= 60


def test_each_key_has_its_own_quota(clock: Callable[[float], None]) -> None:
    app = guard(ring())
    for name, quota in (("alice", 3), ("bob", 2)):
        statuses = [call(app, "/v1/models", with_key(name)).status for _ in range(quota + 2)]
        assert statuses == [200] * quota + [429] * 2
    assert {call(app, "/v1/models", with_key("boss")).status for _ in range(20)} == {200}


def test_who_waits_as_long_as_told_gets_in(clock: Callable[[float], None]) -> None:
    app = guard(ring())
    for pause in (20.5, 10.0):  # requests at 0 and 20.5 s, and the refused one at 30.5 s
        assert call(app, "/v1/models", with_key("bob")).status == 200
        clock(pause)
    refused = call(app, "/v1/models", with_key("bob"))
    assert (refused.status, refused.code, refused.state["key_name"]) == (429, "quota_exceeded", "bob")
    wait = int(refused.headers["retry-after"])
    assert wait == 30  # the first request is a minute old after 29.5 s
    clock(wait - 1)
    assert call(app, "/v1/models", with_key("bob")).status == 429
    clock(1)
    assert [call(app, "/v1/models", with_key("bob")).status for _ in range(2)] == [200, 429]


def test_the_wait_is_at_least_a_second_and_at_most_a_minute(clock: Callable[[float], None]) -> None:
    app = guard(KeyRing([entry("alice", "predict", quota=1)]))
    assert call(app, "/v1/models", with_key("alice")).status == 200
    assert call(app, "/v1/models", with_key("alice")).headers["retry-after"] == "60"
    clock(59.999)
    assert call(app, "/v1/models", with_key("alice")).headers["retry-after"] == "1"
    clock(-7200)  # the machine's clock was set back
    assert call(app, "/v1/models", with_key("alice")).headers["retry-after"] == "60"


def test_strangers_and_open_paths_spend_nobodys_quota() -> None:
    app = guard(ring())
    for _ in range(10):
        assert call(app, "/v1/models").status == 401
        assert call(app, "/v1/models", with_key("unknown")).status == 401
        assert call(app, "/health/live", with_key("bob")).status == 200
    assert [call(app, "/v1/models", with_key("bob")).status for _ in range(3)] == [200, 200, 429]


def test_a_forbidden_route_costs_its_caller(clock: Callable[[float], None]) -> None:
    app = guard(ring())
    assert [call(app, "/v1/admin/x", with_key("bob")).status for _ in range(3)] == [403, 403, 429]


# -- the file -----------------------------------------------------------------------------------------------------------

HASH = hashlib.sha256(b"x").hexdigest()
GOOD = f'sha256 = "{HASH}"\nscopes = ["predict"]\n'
BAD_FILES = {
    # what is wrong: text, words of the message
    "hash too short": (f'[keys.alice]\nsha256 = "{HASH[:-1]}"\nscopes = ["predict"]', ("alice", "sha256", "64")),
    "hash with a wrong digit": (f'[keys.alice]\nsha256 = "{HASH[:-1]}g"\nscopes = ["predict"]', ("alice", "sha256")),
    "the key for its hash": (f'[keys.alice]\nsha256 = "{UNKNOWN}"\nscopes = ["predict"]', ("alice", "sha256")),
    "hash of nothing": (
        f'[keys.alice]\nsha256 = "{hashlib.sha256(b"").hexdigest()}"\nscopes = ["predict"]',
        ("alice", "empty"),
    ),
    "hash is a number": ('[keys.alice]\nsha256 = 5\nscopes = ["predict"]', ("alice", "sha256")),
    "no hash": ('[keys.alice]\nscopes = ["predict"]', ("alice", "sha256", "missing")),
    "no scopes": (f'[keys.alice]\nsha256 = "{HASH}"', ("alice", "scopes", "missing")),
    "empty scopes": (f'[keys.alice]\nsha256 = "{HASH}"\nscopes = []', ("alice", "scopes")),
    "unknown scope": (f'[keys.alice]\nsha256 = "{HASH}"\nscopes = ["predict", "root"]', ("alice", "scopes.1", "admin")),
    "scope is text": (f'[keys.alice]\nsha256 = "{HASH}"\nscopes = "predict"', ("alice", "scopes")),
    "quota of nothing": (f"[keys.alice]\n{GOOD}requests_per_minute = 0", ("alice", "requests_per_minute")),
    "quota is true": (f"[keys.alice]\n{GOOD}requests_per_minute = true", ("alice", "requests_per_minute")),
    "a time": (f"[keys.alice]\n{GOOD}expires = 2027-01-01T12:00:00Z", ("alice", "expires")),
    "date as text": (f'[keys.alice]\n{GOOD}expires = "2027-01-01"', ("alice", "expires")),
    "misspelt": (f"[keys.alice]\n{GOOD}expire = 2027-01-01", ("alice", "'expire'")),
    "second entry": (f"[keys.bob]\n{GOOD}[keys.alice]\nsha256 = 'x'\nscopes = ['admin']", ("alice", "sha256")),
    "two names of one key": (f"[keys.alice]\n{GOOD}[keys.bob]\n{GOOD}", ("alice", "bob", "same")),
    "one name twice": (f"[keys.alice]\n{GOOD}[keys.alice]\n{GOOD}", ("alice", "line 4")),
    "name with a blank": (f'[keys."alice smith"]\n{GOOD}', ("alice smith", "letters")),
    "name with a newline": (f'[keys."alice\\n"]\n{GOOD}', ("alice", "letters")),
    "the key for its name": (f"[keys.{UNKNOWN}]\n{GOOD}", ("name", "tg_")),
    "not a table": (f'[keys]\nalice = "{HASH}"', ("alice", "not a table")),
    "other table": (f"[key.alice]\n{GOOD}", ("[keys.NAME]", "key")),
    "no table": (GOOD, ("[keys.NAME]", "sha256")),
    "no keys": ("# none yet\n", ("[keys.NAME]",)),
    "not TOML": (f"[keys.alice]\nsha256 = {HASH}\n", ("TOML", "line 2")),
    "hash as a name": (f"x = {{{HASH} = 1, {HASH} = 2}}", ("TOML",)),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_with_a_mistake_stops_the_start_and_names_it(name: str, tmp_path: Path) -> None:
    text, words = BAD_FILES[name]
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(StartupError, match="TRACEGRAD_API_KEYS_FILE") as caught:
        create_app(Settings(api_keys_file=path))
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said
    for secret in (HASH[:-1], UNKNOWN, hashlib.sha256(b"").hexdigest()):
        assert secret not in said


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path, word in ((tmp_path / "none", "No such file"), (tmp_path, "directory"), (tmp_path / "binary", "UTF-8")):
        with pytest.raises(StartupError, match=word):
            load_keys(path)


def test_the_file_says_what_each_key_may(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(
        table_of("alice", KEYS["alice"], requests_per_minute=600, expires=date(2100, 1, 1))
        + "\n"
        + table_of("boss", KEYS["boss"], admin=True).replace(
            digest_of(KEYS["boss"].encode()).hex(), digest_of(KEYS["boss"].encode()).hex().upper()
        )
    )
    path.chmod(0o644)
    keys = load_keys(path)
    assert [(key.name, key.scopes, key.requests_per_minute, key.expires) for key in keys.keys] == [
        ("alice", {"predict"}, 600, date(2100, 1, 1)),
        ("boss", {"predict", "admin"}, None, None),
    ]
    assert keys.find(KEYS["boss"].encode(), TODAY) is keys.keys[1]


def test_an_expired_key_in_the_file_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table_of("alice", KEYS["alice"], expires=date(2020, 1, 1)) + table_of("bob", KEYS["bob"]))
    load_keys(path)
    (message,) = caplog.messages
    assert "alice" in message


# -- secrecy ------------------------------------------------------------------------------------------------------------


def test_a_key_is_in_no_log_no_answer_and_no_repr(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    key = KEYS["alice"]
    stored = digest_of(key.encode())
    path = tmp_path / "keys.toml"
    path.write_text(table_of("alice", key, requests_per_minute=2))
    keys = load_keys(path)

    async def broken() -> None:
        raise RuntimeError("what happens inside")

    app = create_app(Settings(api_keys_file=path, device="cpu"))
    app.add_api_route("/v1/broken", broken)
    replies = [call(app, path, bearer(key)) for path in ("/v1/broken", "/v1/admin/x", "/v1/models")]
    replies += [call(app, "/v1/models", bearer(UNKNOWN)), call(app, "/v1/models", [(b"x-api-key", key.encode() * 9)])]
    assert [reply.status for reply in replies] == [500, 403, 429, 401, 401]
    assert "what happens inside" in caplog.text
    texts = [caplog.text, repr(keys), *map(repr, keys.keys), repr(keys.__dict__)]
    texts += [reply.body.decode() + repr(reply.headers) + repr(reply.state) for reply in replies]
    for text in texts:
        for secret in (key, key[3:], UNKNOWN, stored.hex(), repr(stored)):
            assert secret not in text


# -- the command --------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.access", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_shows_a_key_once_and_a_table_that_knows_it(tmp_path: Path) -> None:
    done = run("new", "alice", "--admin", "--requests-per-minute", "7", "--expires", "2100-01-01")
    assert done.returncode == 0
    (key,) = (word for word in done.stderr.split() if word.startswith("tg_"))
    assert len(key) == 46
    assert key not in done.stdout
    path = tmp_path / "keys.toml"
    path.write_text(done.stdout + table_of("bob", KEYS["bob"]))  # as >> does
    found = load_keys(path).find(key.encode(), TODAY)
    assert found is not None
    assert (found.name, found.scopes, found.requests_per_minute) == ("alice", {"predict", "admin"}, 7)


def test_keys_are_url_safe_and_never_the_same() -> None:
    keys = [new_key() for _ in range(50)]
    assert len(set(keys)) == 50
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert all(len(key) == 46 and key.startswith("tg_") and set(key) <= set(alphabet) for key in keys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["new"],
        ["new", "alice smith"],
        ["new", "KEY"],
        ["new", "alice", "--requests-per-minute", "0"],
        ["new", "alice", "--requests-per-minute", "1e3"],
        ["new", "alice", "--expires", "tomorrow"],
    ],
)
def test_wrong_usage_makes_no_key(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from service.access.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main([argument.replace("KEY", UNKNOWN) for argument in arguments])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    assert UNKNOWN not in said.err
