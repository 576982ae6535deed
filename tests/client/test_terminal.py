"""What a server says reaches the terminal as text, and nothing of it as a command."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracegrad_client.cli import main

HOSTILE = "\x1b]0;pwned\x07\x1b[2J\r\x9b31m\u202ework"


def test_a_problem_cannot_command_the_terminal(
    server: Any, problem_reply: Any, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    file = tmp_path / "water.xyz"
    file.write_text("1\n\nHe 0 0 0\n")
    status, headers, body = problem_reply(422, HOSTILE, hint=HOSTILE, request_id=HOSTILE)
    server.fault = lambda _: (status, headers, body)
    assert main(["guess", str(file), "-o", str(tmp_path / "x.chk"), "--url", server.url]) == 1
    told = capsys.readouterr()
    assert "pwned" in told.err
    assert all(char.isprintable() or char == "\n" for char in told.out + told.err)


def test_a_list_of_models_cannot_either(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    body = json.dumps({"models": [{"name": HOSTILE, "version": HOSTILE}]}).encode()
    server.fault = lambda _: (200, {"Content-Type": "application/json"}, body)
    assert main(["models", "--url", server.url]) == 0
    told = capsys.readouterr()
    assert "\\x1b]0;pwned" in told.out
    assert all(char.isprintable() or char == "\n" for char in told.out)
