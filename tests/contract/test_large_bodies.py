"""A body above the limit is answered with its 413 whatever client sends it: those that look for an answer first, and those
that send everything first, with a declared length and without."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

LENGTH = 12_000_000
PIECE = b" " * 65536
JSON = {"Content-Type": "application/json"}


def pieces() -> Iterator[bytes]:
    """A body without a length."""
    for _ in range(LENGTH // len(PIECE)):
        yield PIECE


def by_urllib(url: str, _: Path) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(urllib.request.Request(url, b" " * LENGTH, JSON), timeout=30)
    assert refused.value.code == 413
    with refused.value as answer:
        return answer.read()


def by_urllib_in_pieces(url: str, _: Path) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, pieces(), JSON)  # type: ignore[arg-type]  # it takes them, and sends chunks
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request, timeout=30)
    assert refused.value.code == 413
    with refused.value as answer:
        return answer.read()


def by_http_client(url: str, _: Path) -> bytes:
    parts = httpx.URL(url)
    connection = http.client.HTTPConnection(parts.host, parts.port, timeout=30)
    try:
        connection.request("POST", parts.path, b" " * LENGTH, JSON)
        answer = connection.getresponse()
        assert answer.status == 413
        return answer.read()
    finally:
        connection.close()


def by_httpx(url: str, _: Path) -> bytes:
    answer = httpx.post(url, content=b" " * LENGTH, headers=JSON, timeout=30, trust_env=False)
    assert answer.status_code == 413
    return answer.content


def by_httpx_in_pieces(url: str, _: Path) -> bytes:
    answer = httpx.post(url, content=pieces(), headers=JSON, timeout=30, trust_env=False)
    assert answer.status_code == 413
    return answer.content


def by_curl(url: str, folder: Path) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    return _curl(url, folder, "-H", "Expect:")


def by_curl_that_asks_first(url: str, folder: Path) -> bytes:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    return _curl(url, folder, "-H", "Expect: 100-continue")


def _curl(url: str, folder: Path, *options: str) -> bytes:
    (folder / "body").write_bytes(b" " * LENGTH)
    own = ["--noproxy", "*", "-sS", "--fail-with-body", "-H", "Content-Type: application/json", *options]
    command = ["curl", *own, "--data-binary", f"@{folder}/body", url]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 22, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "send",
    [
        by_urllib,
        by_urllib_in_pieces,
        by_http_client,
        by_httpx,
        by_httpx_in_pieces,
        by_curl,
        by_curl_that_asks_first,
    ],
)
def test_every_client_gets_the_413(client: httpx.Client, tmp_path: Path, send: Callable[[str, Path], bytes]) -> None:
    for _ in range(5):  # a lost answer is a matter of moments
        assert json.loads(send(f"{client.base_url}/v1/predict", tmp_path))["code"] == "body_too_large"
