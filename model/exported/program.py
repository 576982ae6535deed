"""Makes a package: the forward pass with tensors as arguments, exported for any sizes, compiled by AOTInductor.

Standardisation is part of it. Compiling takes minutes of CPU time and a C++ compiler, running the result neither.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from model.architectures.interface import InputCoefficients
from model.errors import CheckpointError
from model.exported import package
from model.exported.runner import SMALLEST, flat_arguments
from model.hamiltonian_model import HamiltonianModel
from model.nn import kernel_files
from model.pairs.graph import AtomGraph
from model.preparation import Prepared

MOST: Final = {"atoms": 2**14, "pairs": 2**24, "edges": 2**24}
"""Sizes of a batch that a package takes at most."""

OPTIONS: Final[dict[str, Any]] = {
    "cpp.threads": 1,
    "cpp.enable_floating_point_contract_flag": "fast",
    "cpp.vec_isa_ok": True,  # known from the processor; torch would compile a trial for every kind
}
"""Loops in one thread: a pass of a small molecule is too short for more; torch's own operators have theirs."""

VECTORS: Final = {"x86-64-v4": "VecAVX512", "x86-64-v3": "VecAVX2"}
"""What torch calls a level's vector unit."""


class Program(nn.Module):
    """The forward pass with tensors as arguments.

    Args:
        model: its network, and standardisation.
    """

    def __init__(self, model: HamiltonianModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        numbers: Tensor,
        pair_index: Tensor,
        pair_vectors: Tensor,
        diagonal: Tensor,
        pair: Tensor,
        edges: tuple[Tensor, ...],
    ) -> Tensor:
        """As ``flat_arguments`` has them -> blocks."""
        edge_index, edge_vectors = edges or (pair_index[:, :0], pair_vectors[:0])
        # which structure an atom is of is left out: a network that asks for it does not export
        nothing = cast(Any, None)
        graph = AtomGraph(numbers, nothing, edge_index, edge_vectors, pair_index, pair_vectors, nothing)
        blocks: Tensor = self.model(graph, InputCoefficients(diagonal, pair)).blocks
        return blocks


def compile_package(model: HamiltonianModel, example: Sequence[Prepared], folder: Path, level: str) -> Path:
    """Compile the forward pass of a model.

    Args:
        model, example: see :func:`export`.
        folder: where the package goes; made if it is not there.
        level: of processors, a key of ``VECTORS``; it runs on that one and above.

    Returns:
        the package.

    Raises:
        CheckpointError: no compiler, another processor, or a network that does not export.
    """
    _check_machine(level)
    exported = export(model, example)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / package.file_name(model, level)
    # beside its place, so that it can be renamed into it
    with tempfile.TemporaryDirectory(prefix=".compiling-", dir=folder) as temporary:
        library = _compiled(exported, Path(temporary), level)
        library.chmod(0o644)
        os.replace(library, path)
    return path


def export(model: HamiltonianModel, example: Sequence[Prepared]) -> torch.export.ExportedProgram:
    """The forward pass of a model as a program for batches of any size.

    Args:
        model: in float32, on the CPU.
        example: a batch with at least two atoms and two pairs of them.

    Raises:
        CheckpointError: a network that does not export.
    """
    reads_edges = model.network.config.edge_cutoff_angstrom > 0
    graph, raw = model.batch(example)
    tensors = flat_arguments(graph, raw, reads_edges=reads_edges)
    atoms, pairs, edges = (torch.export.Dim(name, min=SMALLEST, max=most) for name, most in MOST.items())
    of_edges = ({1: edges}, {0: edges}) if reads_edges else ()
    shapes = ({0: atoms}, {1: pairs}, {0: pairs}, {0: atoms}, {0: pairs}, of_edges)
    try:
        with torch.no_grad():
            return torch.export.export(Program(model), (*tensors[:5], tuple(tensors[5:])), dynamic_shapes=shapes)
    except Exception as error:  # whatever torch found in the network
        raise CheckpointError(
            f"This network cannot be exported: {type(error).__name__}: {str(error).splitlines()[0]:.200}",
            hint="It is served as it is, without a package.",
        ) from error


def _compiled(exported: torch.export.ExportedProgram, folder: Path, level: str) -> Path:
    """The shared library of a program, in a folder for all that the compiler writes."""
    from torch._inductor import aot_compile, cpu_vec_isa
    from torch._inductor.utils import fresh_cache

    # this one alone: torch would take AMX and others, which no level promises
    cpu_vec_isa.supported_vec_isa_list[:] = [getattr(cpu_vec_isa, VECTORS[level])()]
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    arguments, named = exported.example_inputs or ((), {})
    program = exported.module(check_guards=False)
    with fresh_cache(dir=str(folder), delete=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch
        made = aot_compile(program, arguments, named, options={**OPTIONS, "cpp.march": level})
    library = Path(str(made))
    if library.with_suffix(".json").exists():
        raise CheckpointError(
            "This network uses operators that a package cannot hold.", hint="It is served as it is, without a package."
        )
    return library


def _check_machine(level: str) -> None:
    if platform.machine() != "x86_64" or level not in kernel_files.levels():
        raise CheckpointError(
            f"A package of {level!r} cannot be made and tried here: x86-64-v3 is AVX2, x86-64-v4 AVX-512.",
            allowed=kernel_files.levels(),
            hint="The network is served as it is, without a package.",
        )
    from torch._inductor import config

    compiler = config.cpp.cxx[1]  # "g++" unless the environment's CXX names another
    if shutil.which(compiler) is None:
        raise CheckpointError(
            f"A package needs a C++ compiler, and there is no {compiler!r} here.",
            hint="Install g++ (Debian: apt-get install g++), or name another in the environment variable CXX.",
        )
