"""Scripts for batch systems, the Apptainer definition and the Parsl configuration: what they call is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import misspelt
from training.__main__ import _parser
from training.parts import Part

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "deploy" / "batch").iterdir())
APPTAINER = (ROOT / "deploy" / "apptainer" / "tracegrad.def").read_text()
SAID = {
    "SLURM_SUBMIT_DIR": ".",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "64",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_ID": "77",
    "PBS_O_WORKDIR": ".",
    "PBS_ARRAY_INDEX": "3",
    "NCPUS": "4",
    "RECIPE": "recipe.toml",
    "RUN": "run.toml",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_calls_a_command_that_there_is(script: Path, tmp_path: Path) -> None:
    """Run with what the batch system says, and a ``python`` that only repeats what it is asked."""
    for name in ("python", "srun"):
        (tmp_path / name).write_text('#!/bin/bash\nprintf "%q " "$@"\n')
    (tmp_path / "scontrol").write_text("#!/bin/bash\necho n1; echo n2\n")
    for file in tmp_path.iterdir():
        file.chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, str(script)],
        env={**SAID, "PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = shlex.split(done.stdout)
    if script.name.startswith("fit"):
        assert words[0] == "torchrun"
        assert words[words.index("--rdzv-endpoint") + 1] == "n1:29500"
    options = _parser().parse_args(words[words.index("training") + 1 :])
    assert options.command == script.stem.replace("merge", "predict")
    if options.command in ("predict", "generate") and script.name != "merge.slurm":
        assert Part.read(options.part).number == 3
    assert getattr(options, "merge", False) == (script.name == "merge.slurm")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_without_its_batch_system_ends_with_a_reason(script: Path) -> None:
    done = subprocess.run(
        ["/bin/bash", str(script)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "parameter null or not set" in done.stderr


def test_the_image_for_hpc_is_made_of_what_is_there() -> None:
    (files,) = re.findall(r"%files\n((?: +.*\n)+)", APPTAINER)
    for line in files.splitlines():
        source, target = line.split()
        assert (ROOT / source).exists()
        assert target == f"/src/{source}"
    project = (ROOT / "pyproject.toml").read_text()
    (extras,) = re.findall(r"'\.\[(.*)\]'", APPTAINER)
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra
    assert not misspelt(re.findall(r"export (TRACEGRAD_\w+)=", APPTAINER))


def test_the_parsl_configuration_can_be_read() -> None:
    """In a process of its own: Parsl keeps what it is told."""
    pytest.importorskip("parsl", reason="Parsl is not installed (extra parsl)")
    code = (
        "from pathlib import Path; from training.executors import read_config; "
        f"c = read_config(Path({str(ROOT / 'deploy' / 'parsl' / 'slurm.py')!r})); print(c.retries, c.executors[0].label)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.split() == ["2", "slurm"], done.stderr


def test_every_kernel_is_compiled_while_there_is_a_compiler() -> None:
    """In the image and in Apptainer's; neither has one later, and torch's own operations would take its place unnoticed."""
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "model").rglob("*.c")}
    compiled = re.findall(r"kernel_files\.py (\S+\.c) (\S+)", APPTAINER)
    assert {source for source, _ in compiled} == sources
    assert all(str(Path(source).parent) == folder for source, folder in compiled)
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert {Path(source).name for source, _ in re.findall(r"kernel_files\.py /build/(\S+\.c) (/\S+)", dockerfile)} == {
        Path(source).name for source in sources
    }
    for made in re.findall(r"kernel_files\.py /build/\S+\.c (/\w+)", dockerfile):
        assert f"COPY --from=kernel {made} " in dockerfile
