"""Laws of the commands over many structures, of jobs, of ``check``, and of completion, against the service itself."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyscf import dft, gto

from tracegrad_client import Client, Guess
from tracegrad_client.cli import main
from tracegrad_client.commands.inputs import gather

XYZ = "3\nwater\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
METHANE = "5\n\nC 0 0 0\nH 0.63 0.63 0.63\nH -0.63 -0.63 0.63\nH -0.63 0.63 -0.63\nH 0.63 -0.63 -0.63\n"
BAD = XYZ.replace("H 0 0.763", "H 0 here")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: Client) -> Path:
    """A folder ``xyz`` with two molecules, a trajectory with a broken frame, and what is no structure."""
    monkeypatch.setenv("TRACEGRAD_URL", live.base_url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xyz").mkdir()
    (tmp_path / "xyz" / "water.xyz").write_text(XYZ)
    (tmp_path / "xyz" / "methane.xyz").write_text(METHANE)
    (tmp_path / "xyz" / "notes.txt").write_text("no structure")
    (tmp_path / "many.xyz").write_text(XYZ + BAD + METHANE)
    return tmp_path


def test_folders_patterns_and_frames_are_structures(folder: Path) -> None:
    found = gather(["xyz", "xyz/w*.xyz", "many.xyz", "none*.xyz", "gone.xyz"], None)
    assert [(each.name, each.stem) for each in found] == [
        ("xyz/methane.xyz", "methane"), ("xyz/water.xyz", "water"), ("xyz/water.xyz", "water"),
        ("many.xyz#1", "many_1"), ("many.xyz#2", "many_2"), ("many.xyz#3", "many_3"),
        ("none*.xyz", "none*"), ("gone.xyz", "gone"),
    ]  # fmt: skip
    assert [each.error is None for each in found] == [True] * 6 + [False] * 2
    (folder / "empty").mkdir()
    assert gather(["empty"], None)[0].error is not None


def test_a_bad_frame_costs_one_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["guess", "xyz", "many.xyz", "-o", "out", "--to", "npz"]) == 1
    written = sorted(path.name for path in (folder / "out").iterdir())
    assert written == ["many_1.npz", "many_3.npz", "methane.npz", "water.npz"]
    assert Guess.load("out/many_3.npz").n_electrons == 10
    np.testing.assert_allclose(
        Guess.load("out/many_1.npz").density_matrix, Guess.load("out/water.npz").density_matrix, atol=2e-5
    )
    said = capsys.readouterr()
    assert "many.xyz#2 (from line 6): unparsable_structure" in said.err
    assert "4 of 5 structures done, 1 not" in said.err
    assert "out/water.npz: npz" in said.out


def test_one_structure_may_go_into_a_folder(folder: Path) -> None:
    assert main(["guess", "xyz/water.xyz", "-o", "new/", "--to", "chk"]) == 0
    assert (folder / "new" / "water.chk").stat().st_size > 0


def test_standard_input_may_hold_frames(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((XYZ + METHANE).encode())))
    assert main(["guess", "-", "--format", "xyz", "-o", "out/", "--to", "npz"]) == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["structure_1.npz", "structure_2.npz"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["guess", "xyz", "-o", "out"],
        ["guess", "xyz", "-o", "-", "--to", "npz"],
        ["guess", "xyz", "-o", "out.npz"],
        ["guess", "xyz", "-o", "out.npz", "--to", "npz"],
        ["guess", "xyz", "-o", "many.xyz", "--to", "npz"],
        ["guess", "xyz", "xyz/water.xyz", "-o", "out", "--to", "npz"],
        ["guess", "xyz", "-o", "out", "--to", "npz", "--parallel", "0"],
        ["energies", "-"],
        ["jobs"],
        ["jobs", "cancel"],
        ["check", "xyz/water.xyz", "f.npz", "--ao-order", "alphabetical"],
    ],
)
def test_wrong_usage_is_status_two_and_writes_nothing(folder: Path, arguments: list[str]) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert sorted(folder.rglob("*")) == before


def test_energies_of_many_are_a_table_or_json_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["energies", "xyz", "many.xyz", "--unit", "eV"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["#", "structure", "HOMO", "LUMO", "gap", "eV"]
    assert [line.split()[0] for line in lines[1:]] == ["xyz/methane.xyz", "xyz/water.xyz", "many.xyz#1", "many.xyz#3"]
    assert main(["energies", "xyz", "many.xyz", "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["name"] for each in found][2:] == ["many.xyz#1", "many.xyz#2", "many.xyz#3"]
    assert found[3]["error"]["code"] == "unparsable_structure"
    homo, lumo = (float(word) for word in lines[2].split()[1:3])
    assert found[1]["homo"] * 27.2114 == pytest.approx(homo, abs=1e-3)
    assert found[1]["gap"] * 27.2114 == pytest.approx(lumo - homo, abs=1e-3)


def test_where_no_server_is_the_rest_is_not_tried(
    folder: Path, dead_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["energies", *["xyz"] * 20, "--url", dead_url, "--parallel", "1"]) == 1
    assert capsys.readouterr().err.count("unreachable") == 1


def test_a_wait_is_announced(
    server: Any, folder: Path, problem_reply: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    replies = [problem_reply(429, "quota_exceeded")]

    def fault(_: Any) -> Any:
        if not replies:
            return None
        status, headers, body = replies.pop()
        return status, {**headers, "Retry-After": "0.2"}, body

    server.fault = fault
    assert main(["models", "--url", server.url]) == 0
    assert "quota_exceeded. Waiting 0 s" in capsys.readouterr().err
    replies.append(problem_reply(429, "quota_exceeded"))
    assert main(["models", "--url", server.url, "--max-wait", "0"]) == 1


def test_a_job_from_submission_to_cancellation(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "submit", "xyz", "--to", "npz"]) == 0
    ids = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert len(ids) == 2
    assert main(["jobs", "wait", "--for", "60"]) == 0
    assert [line.split()[::2] for line in capsys.readouterr().out.splitlines()] == [[one, "done"] for one in ids]
    assert main(["jobs", "list"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        [ids[0], "xyz/methane.xyz", "done"], [ids[1], "xyz/water.xyz", "done"],
    ]  # fmt: skip
    assert main(["jobs", "results", "-o", "results"]) == 0
    assert Guess.load("results/water.npz").n_electrons == 10
    assert main(["jobs", "results", ids[0], "-o", "one.npz"]) == 0
    assert Guess.load("one.npz").n_electrons == 10
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["jobs", "results", "-o", "two.npz"])
    assert not (folder / "two.npz").exists()
    assert main(["jobs", "results", "xyz/water.xyz", "-o", "named.npz"]) == 0
    assert (folder / "named.npz").read_bytes() == (folder / "results" / "water.npz").read_bytes()
    capsys.readouterr()
    assert main(["jobs", "cancel", "--", ids[0][:8]]) == 0
    assert main(["jobs", "list"]) == 0
    assert ids[0] not in capsys.readouterr().out.splitlines()[-1]
    assert main(["jobs", "results", ids[0], "-o", "gone.npz"]) == 1
    assert "unknown_job" in capsys.readouterr().err
    Client().file_job(ids[1]).delete()
    assert main(["jobs", "list"]) == 0
    assert "gone" in capsys.readouterr().out
    assert main(["jobs", "list"]) == 0
    assert capsys.readouterr().out == ""


def test_a_reader_who_has_enough_and_a_folder_that_is_not_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        f"{sys.executable} -m tracegrad_client energies xyz xyz xyz --unit eV | head -n 1; echo ${{PIPESTATUS[1]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# structure")
    assert "Broken" not in done.stderr
    assert "Traceback" not in done.stderr
    assert main(["guess", "xyz/water.xyz", "-o", "none/g.npz"]) == 1
    assert "none/g.npz: there is no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([])
    assert "bands" in capsys.readouterr().err, "all commands"


def test_a_job_that_fails_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "submit", "many.xyz"]) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert "many.xyz#2" in said.err
    assert main(["jobs", "wait", "../models"]) == 1
    assert "no id of a job" in capsys.readouterr().err


def test_check_takes_two_files_or_a_chkfile(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mol = gto.M(atom=[("O", (0, 0, 0.119)), ("H", (0, 0.763, -0.477)), ("H", (0, -0.763, -0.477))], basis="def2-svp")
    mol.verbose = 0
    mf = dft.RKS(mol, xc="b3lyp")
    mf.chkfile = "run.chk"
    mf.kernel()
    np.savez("fock.npz", fock=mf.get_fock(), overlap=mf.get_ovlp())
    np.save("bare.npy", mf.get_fock())
    for arguments in (["xyz/water.xyz", "fock.npz"], ["run.chk"], ["xyz/water.xyz", "bare.npy"]):
        assert main(["check", *arguments]) == 0
        said = capsys.readouterr()
        assert "mean error of H" in said.out
        assert ("overlap" in said.err) == ("bare.npy" in arguments)
    assert main(["check", "xyz/water.xyz", "fock.npz", "--json", "--xc", "pbe"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["errors"]["hamiltonian"] < 2e-3
    assert "xc mismatch" in said.err
    np.savez("wrong.npz", matrix=mf.get_fock())
    (folder / "text.npz").write_text("text")
    for name, said_so in (("wrong.npz", "named fock"), ("text.npz", "npz"), ("none.npz", "No such file")):
        assert main(["check", "xyz/water.xyz", name]) == 1
        assert said_so in capsys.readouterr().err
    assert main(["check", "xyz/methane.xyz", "fock.npz"]) == 1
    assert "unsupported_basis" in capsys.readouterr().err
    assert main(["check", "xyz/water.xyz", "fock.npz", "--ao-order", "orca"]) == 1
    assert "ao_order=pyscf" in capsys.readouterr().err


def test_a_shell_is_told_how_a_word_may_go_on(tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    out = tmp_path / "out"
    line = "tracegrad jobs re"
    variables = {
        **os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(out), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "tracegrad_client.cli"], env=variables, check=False, capture_output=True)
    assert out.read_text().strip() == "results"
