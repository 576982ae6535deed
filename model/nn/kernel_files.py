"""Kernels compiled beforehand, for machines without a compiler: which file beside the C source serves this processor.

An image's build runs this file alone, without torch: ``python model/nn/kernel_files.py SOURCE.c FOLDER`` writes one library
for each number type and each level of x86-64 (v3: AVX2, v4: AVX-512). A name holds the digest of the source, so that none of
another source is ever loaded.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from pathlib import Path

FLAGS = ("-O3", "-fno-strict-aliasing", "-shared", "-fPIC")
TYPES = ("float", "double")

LEVELS = {
    "x86-64-v4": frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
    "x86-64-v3": frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}),
}
"""What Linux calls the features beyond the next lower level; the best comes first."""


def file_name(source: Path, real: str, level: str) -> str:
    """Name of a compiled kernel.

    Args:
        source: the C file.
        real: a key of ``TYPES``.
        level: a key of ``LEVELS``.
    """
    return f"{source.stem}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}-{real}-{level}.so"


def find(source: Path, real: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> Path | None:
    """The compiled kernel beside a source that suits this processor best; None where there is none."""
    files = (source.with_name(file_name(source, real, level)) for level in levels(cpuinfo))
    return next((found for found in files if found.is_file()), None)


def levels(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The keys of ``LEVELS`` that this processor has, the best first."""
    flags = _flags(cpuinfo)
    needed: frozenset[str] = frozenset().union(*LEVELS.values())
    found = []
    for level, features in LEVELS.items():
        if needed <= flags:
            found.append(level)
        needed -= features
    return found


def compile_all(source: Path, folder: Path, compiler: str = "gcc") -> list[Path]:
    """Compile a source for every type and level; nothing on other processors than x86-64.

    Raises:
        CalledProcessError: the compiler refused it.
    """
    if platform.machine() != "x86_64":
        return []
    made = []
    for real in TYPES:
        for level in LEVELS:
            path = folder / file_name(source, real, level)
            command = [compiler, *FLAGS, f"-march={level}", f"-DREAL={real}", str(source), "-o", str(path)]
            subprocess.run(command, check=True)
            made.append(path)
    return made


def _flags(cpuinfo: Path) -> frozenset[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


if __name__ == "__main__":
    for written in compile_all(Path(sys.argv[1]), Path(sys.argv[2])):
        print(written)
