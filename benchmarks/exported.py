"""Is an exported network faster? torch.export with dynamic sizes, AOTInductor, loaded again; against eager, in one process.

``python benchmarks/exported.py [--models QHNetV2 ...]`` needs a C++ compiler. An experiment: the service does not use it.

Process CPU seconds on one thread, median of interleaved repeats; float32, random weights. One package serves all sizes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from backbones import DAMPING, MODELS, batch_of, cpu_seconds, network_of, row_of
from machine import describe
from torch import Tensor, nn

from model.architectures.interface import InputCoefficients
from model.network import HamiltonianNetwork
from model.pairs.graph import AtomGraph

EXPORTABLE = [name for name in MODELS if MODELS[name]["backbone"] in ("qhnet", "qhnetv2")]
MOLECULES = ("water", "ethanol", "c6h11no2", "lisinopril")
REPEATS = 9


class SymbolicGraph(AtomGraph):
    """A graph whose number of atoms may stay a symbol."""

    @property
    def n_atoms(self) -> int:
        return self.numbers.shape[0]


class Flat(nn.Module):
    """The network with tensors as arguments, as an exported program wants them."""

    def __init__(self, network: HamiltonianNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        numbers: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        pair_index: Tensor,
        pair_vectors: Tensor,
        diagonal: Tensor,
        pair: Tensor,
    ) -> tuple[Tensor, Tensor]:
        graph = SymbolicGraph(numbers, numbers, edge_index, edge_vectors, pair_index, pair_vectors, 1)
        output = self.network(graph, InputCoefficients(diagonal, pair))
        return output.diagonal, output.pair


def arguments_of(molecule: str, network: HamiltonianNetwork) -> tuple[Tensor, ...]:
    """Inputs of ``Flat``."""
    graph, known = batch_of(molecule, network)
    vectors = (graph.edge_index, graph.edge_vectors, graph.pair_index, graph.pair_vectors)
    return (graph.numbers, *vectors, known.diagonal, known.pair)


def compiled(network: HamiltonianNetwork, package: Path) -> None:
    """Writes an AOTInductor package for any number of atoms, edges and pairs."""
    example = arguments_of("ethanol", network)
    atoms, edges, pairs = (torch.export.Dim(name, min=2, max=limit) for name, limit in SIZES.items())
    shapes = ({0: atoms}, {1: edges}, {0: edges}, {1: pairs}, {0: pairs}, {0: atoms}, {0: pairs})
    with torch.no_grad():
        program = torch.export.export(Flat(network), example, dynamic_shapes=shapes)
        torch._inductor.aoti_compile_and_package(program, package_path=str(package))


SIZES = {"atoms": 2**14, "edges": 2**24, "pairs": 2**24}


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=EXPORTABLE, choices=EXPORTABLE)
    chosen = parser.parse_args().models
    torch.set_num_threads(1)
    print(describe(), f"weights times {DAMPING}", sep="; ", end="\n\n")
    columns = ["compile, s", "package, MB", "load, s", "eager, s", "exported, s", "speed", "largest deviation"]
    print(row_of("model, molecule", columns))
    print("|" + "---|" * (len(columns) + 1), flush=True)
    for name in chosen:
        network = network_of(MODELS[name], "both")
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():  # read-outs start at zero, and there would be nothing to compare
                    parameter.normal_(std=0.1)
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "network.pt2"
            started = time.perf_counter()
            compiled(network, package)
            compile_seconds = time.perf_counter() - started
            started = time.perf_counter()
            loaded = torch._inductor.aoti_load_package(str(package))
            load_seconds = time.perf_counter() - started
            size = package.stat().st_size / 1e6
        eager = Flat(network)
        for molecule in MOLECULES:
            with torch.inference_mode():
                arguments = arguments_of(molecule, network)
                ours, theirs = eager(*arguments), loaded(*arguments)
                deviation = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(ours, theirs, strict=True))
                times: tuple[list[float], list[float]] = ([], [])
                for _ in range(REPEATS):
                    times[0].append(cpu_seconds(lambda: eager(*arguments)))  # noqa: B023
                    times[1].append(cpu_seconds(lambda: loaded(*arguments)))  # noqa: B023
            one, other = (statistics.median(found) for found in times)
            figures = [f"{compile_seconds:.0f}", f"{size:.0f}", f"{load_seconds:.2f}", f"{one:.4f}", f"{other:.4f}"]
            print(row_of(f"{name}, {molecule}", [*figures, f"{one / other:.2f}x", f"{deviation:.0e}"]), flush=True)


if __name__ == "__main__":
    main()
