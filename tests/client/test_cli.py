"""Laws of the command: what it writes is what the server sent, and every way to fail has its status and its reason."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tracegrad_client.cli import main
from tracegrad_client.files import write_atomically

XYZ = "3\nwater\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"


@pytest.fixture
def xyz(tmp_path: Path) -> Path:
    path = tmp_path / "water.xyz"
    path.write_text(XYZ)
    return path


@pytest.mark.parametrize("suffix", ["chk", "npz", "molden", "cube"])
def test_the_suffix_chooses_the_format_and_the_bytes_arrive(
    server: Any, xyz: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = xyz.with_name(f"guess.{suffix}")
    assert main(["guess", str(xyz), "-o", str(output), "--url", server.url]) == 0
    assert output.read_bytes() == f"bytes of {suffix}".encode()
    assert server.seen[-1].query == {"format_out": suffix}
    assert str(output) in capsys.readouterr().out
    assert sorted(path.name for path in xyz.parent.iterdir()) == sorted(["water.xyz", output.name])


def test_options_become_form_fields_beside_the_file(server: Any, xyz: Path) -> None:
    output = xyz.with_name("guess.out")
    options = ["--charge", "0", "--multiplicity", "1", "--xc", "b3lyp", "--model", "oracle", "--format", "extxyz"]
    assert main(["guess", str(xyz), "-o", str(output), "--to", "chk", "--url", server.url, *options]) == 0
    fields = server.fields(server.seen[-1])
    assert fields.pop("structure")["numbers"] == [8, 1, 1]
    assert fields == {
        "file": XYZ, "charge": "0", "multiplicity": "1", "xc": "b3lyp", "model": "oracle", "format": "extxyz",
    }  # fmt: skip


def test_a_warning_of_the_server_is_passed_on(server: Any, xyz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["guess", str(xyz), "-o", str(xyz.with_name("g.chk")), "--xc", "pbe", "--url", server.url]
    assert main(arguments) == 0
    assert 'warning: The model\'s "functional" is b3lyp.' in capsys.readouterr().err


def test_an_older_output_is_replaced_whole_or_not_at_all(
    server: Any, xyz: Path, problem_reply: Callable[..., Any]
) -> None:
    output = xyz.with_name("guess.chk")
    output.write_bytes(b"old")
    server.fault = lambda _: problem_reply(503, "queue_full")
    assert main(["guess", str(xyz), "-o", str(output), "--url", server.url]) == 1
    assert output.read_bytes() == b"old"
    server.fault = None
    assert main(["guess", str(xyz), "-o", str(output), "--url", server.url]) == 0
    assert output.read_bytes() == b"bytes of chk"


def test_what_is_no_regular_file_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"content")
    reader.join(10)
    assert read == [b"content"]
    assert pipe.is_fifo()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"old")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    null = Path(os.devnull)
    write_atomically(null, b"content")
    assert null.is_char_device()


def test_standard_input_and_output(server: Any, capsysbinary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(XYZ.encode())))
    assert main(["guess", "-", "--format", "xyz", "-o", "-", "--to", "npz", "--url", server.url]) == 0
    assert capsysbinary.readouterr().out == b"bytes of npz"
    assert server.fields(server.seen[-1])["format"] == "xyz"
    for arguments in (["guess", "-", "-o", "g.npz"], ["energies", "-"], ["guess", "a.xyz", "-o", "-"]):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--url", server.url])
        assert caught.value.code == 2


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "guess.chk"
    target.mkdir()
    (target / "kept").touch()
    with pytest.raises(OSError, match=r"guess\.chk"):
        write_atomically(target, b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["guess.chk"]


def test_the_file_has_the_permissions_that_the_user_wants(tmp_path: Path) -> None:
    (tmp_path / "reference").write_bytes(b"")
    write_atomically(tmp_path / "written", b"")
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "reference").stat().st_mode


def test_energies_are_listed_with_their_frontier(server: Any, xyz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["energies", str(xyz), "--unit", "eV", "--url", server.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = [line.split() for line in lines if not line.startswith("#")]
    assert [row[1] for row in values] == ["2.0"] * 5 + ["0.0"] * 19
    homo, lumo, gap = (float(line.split()[-1]) for line in lines[-3:])
    assert homo == float(values[4][2])
    assert lumo == float(values[5][2])
    assert gap == pytest.approx(lumo - homo, abs=1e-5)
    assert -9 < homo < -7  # B3LYP's HOMO of water in eV; in hartree it would be -0.3


def test_models_are_listed(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", server.url]) == 0
    assert capsys.readouterr().out.startswith("oracle 1  b3lyp/")


def test_a_refusal_is_status_one_with_code_detail_and_hint(
    server: Any, xyz: Path, problem_reply: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda _: problem_reply(422, "unsupported_element", hint="Use another.", request_id="r-1")
    assert main(["guess", str(xyz), "-o", str(xyz.with_name("g.chk")), "--url", server.url]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "tracegrad: unsupported_element: This is unsupported_element.",
        "hint: Use another.",
        "request: r-1",
    ]
    assert not said.out


def test_no_server_and_no_file_are_status_one(
    xyz: Path, dead_url: str, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "--url", dead_url]) == 1
    assert "unreachable" in capsys.readouterr().err
    assert main(["energies", str(xyz.with_name("none.xyz")), "--url", server.url]) == 1
    assert "none.xyz" in capsys.readouterr().err
    assert main(["guess", str(xyz), "-o", str(xyz.parent / "no" / "g.chk"), "--url", server.url]) == 1
    assert "g.chk" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["guess", "{xyz}"],
        ["guess", "{xyz}", "-o", "guess"],
        ["guess", "{xyz}", "-o", "guess.gbw"],
        ["guess", "{xyz}", "-o", "{xyz}", "--to", "chk"],
        ["guess", "{xyz}", "-o", "g.chk", "--charge", "one"],
        ["energies", "{xyz}", "--unit", "kcal"],
        ["models", "--url", "nowhere"],
        ["models", "--timeout", "-1"],
    ],
)
def test_wrong_usage_is_status_two_and_sends_nothing(
    arguments: list[str], xyz: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEGRAD_URL", server.url)
    with pytest.raises(SystemExit) as caught:
        main([argument.format(xyz=xyz) for argument in arguments])
    assert caught.value.code == 2
    assert not server.seen


def test_server_and_key_come_from_the_environment(server: Any) -> None:
    variables = {**os.environ, "TRACEGRAD_URL": server.url, "TRACEGRAD_API_KEY": "k"}
    command = [sys.executable, "-m", "tracegrad_client", "models"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert "oracle" in done.stdout
    assert server.seen[-1].headers["authorization"] == "Bearer k"


def test_the_command_and_its_requests_name_the_installed_version(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert main(["models", "--url", server.url]) == 0
    version = metadata.version("tracegrad-client")
    assert capsys.readouterr().out.splitlines()[0] == f"tracegrad-client {version}"
    assert server.seen[-1].headers["user-agent"] == f"tracegrad-client/{version}"
