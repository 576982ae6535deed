"""HamiltonianModel: all that turns a structure into blocks: preparation, network and standardisation.

    structure -> pairs, known matrices, H0 (``prepare``: numpy, float64, CPU)
              -> standardised inputs -> network -> blocks in hartree (``forward``: tensors, differentiable)
              (``run``: a batch without gradients) -> BlockSet (``collect``)

Service and training call these and nothing else, so a batch of training and a request differ in nothing but their loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.architectures.interface import InputCoefficients
from model.blocks.block_set import BlockSet, Spin
from model.blocks.spaces import BlockSpace
from model.blocks.standardise import Standardisation
from model.errors import CheckpointError, NumericalError
from model.integrals.two_centre_tables import TwoCentreTables
from model.network import HamiltonianNetwork, Output
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import AtomGraph, join_graphs
from model.preparation import INPUTS, PairRule, Prepared, Preparer
from model.reference.interface import Reference
from model.reference.none import NoReference
from model.structure import Structure


@dataclass(frozen=True)
class ModelOutput:
    """What the model says of a batch.

    Attributes:
        blocks: on-site blocks of all atoms, then of all listed pairs, (block, component, template row, template column),
            hartree: the part of H that is not H0; components are the block space's.
        network: standardised coefficients and trace.
    """

    blocks: Tensor
    network: Output


class CompiledForward(Protocol):
    """A compiled form of the forward pass, for inference; see ``model.exported``."""

    def __call__(self, graph: AtomGraph, raw: InputCoefficients) -> Tensor | None:
        """As ``HamiltonianModel.forward``: the blocks of a batch; None where it does not take the batch."""


class HamiltonianModel(nn.Module):
    """The model of one checkpoint or run.

    Args:
        config: architecture and TraceGrad.
        space: orbitals.
        inputs, source, reference, pairs, tables: see ``Preparer``.
        spin: spin treatment of the blocks.
        time_reversal: whether spinor blocks obey time reversal.

    Attributes:
        exported: what ``run`` takes in place of ``forward`` where it can; None for ``forward`` alone.

    Raises:
        CheckpointError: parts that do not fit each other.
    """

    exported: CompiledForward | None

    def __init__(
        self,
        config: NetworkConfig,
        space: OrbitalSpace,
        *,
        inputs: Sequence[str] = INPUTS,
        source: str = "pyscf_molecule",
        reference: Reference | None = None,
        pairs: PairRule | None = None,
        spin: Spin = "restricted",
        time_reversal: bool = False,
        tables: TwoCentreTables | None = None,
    ) -> None:
        super().__init__()
        self.exported = None
        block_space = BlockSpace.of(space.template, spin, time_reversal=time_reversal)
        self.preparer = Preparer(
            space,
            block_space,
            config.edge_cutoff_angstrom,
            tuple(inputs),
            source,
            NoReference() if reference is None else reference,
            PairRule() if pairs is None else pairs,
            tables,
        )
        reads = config.backbone_config.n_inputs
        if config.declaration.reads_matrices and reads != len(self.preparer.inputs):
            raise CheckpointError(
                f"The network reads {reads} known matrices, but {len(self.preparer.inputs)} are declared: "
                f"{', '.join(inputs) or 'none'}.",
                hint=f"Set n_inputs of {config.backbone!r}, or the inputs ({', '.join(INPUTS)}).",
            )
        cutoffs = self.preparer.pairs.table(space.elements)
        self.network = HamiltonianNetwork(
            config, space, block_space, None if cutoffs is None else torch.from_numpy(cutoffs)
        )
        self.standardisation = Standardisation(space, len(self.preparer.inputs), block_space)

    @property
    def forward_form(self) -> Literal["eager", "exported"]:
        """What ``run`` takes: the network itself, or its package."""
        return "eager" if self.exported is None else "exported"

    @property
    def space(self) -> OrbitalSpace:
        """The orbitals."""
        return self.preparer.space

    @property
    def block_space(self) -> BlockSpace:
        """What blocks and coefficients mean."""
        return self.preparer.block_space

    @property
    def reference(self) -> Reference:
        """H0."""
        return self.preparer.reference

    def prepare(self, structure: Structure, given: Mapping[str, BlockSet] | None = None) -> Prepared:
        """See :meth:`Preparer.__call__`."""
        return self.preparer(structure, given)

    def forward(self, graph: AtomGraph, raw: InputCoefficients, *, with_trace: bool = False) -> ModelOutput:
        """One pass of a batch.

        Args:
            graph: the batch, in the network's type and on its device.
            raw: input coefficients as ``prepare`` makes them, (block, matrix, coefficient).
            with_trace: decode the trace labels too.
        """
        atom_type, pair_type = self.network.types(graph)
        inputs = self.standardisation.inputs(raw.diagonal, raw.pair, atom_type, pair_type)
        output = self.network(graph, InputCoefficients(*inputs), with_trace=with_trace)
        blocks = self.standardisation.blocks(output.diagonal, output.pair, atom_type, pair_type)
        return ModelOutput(blocks, output)

    def batch(self, prepared: Sequence[Prepared]) -> tuple[AtomGraph, InputCoefficients]:
        """Structures as one batch for ``forward``, in the network's type and on its device."""
        parameter = next(self.network.parameters())
        dtype, device = parameter.dtype, parameter.device
        graph = join_graphs([item.graph for item in prepared]).to(dtype=dtype, device=device)

        def tensor(parts: list[NDArray[np.float64]]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device=device, dtype=dtype)

        raw = InputCoefficients(tensor([item.on_site for item in prepared]), tensor([item.pair for item in prepared]))
        return graph, raw

    @torch.inference_mode()
    def run(self, prepared: Sequence[Prepared]) -> list[NDArray[np.float64]]:
        """A batch through the network, without gradients.

        Returns:
            each structure's template blocks, (item, component, row, column), hartree; what ``collect`` takes.
        """
        graph, raw = self.batch(prepared)
        found = None if self.exported is None else self.exported(graph, raw)
        blocks = (self(graph, raw).blocks if found is None else found).double().cpu().numpy()
        results, atoms, pairs = [], 0, graph.n_atoms
        for item in prepared:
            n_atoms, n_pairs = item.blocks.pairs.n_atoms, len(item.blocks.listed)
            results.append(np.concatenate([blocks[atoms : atoms + n_atoms], blocks[pairs : pairs + n_pairs]]))
            atoms, pairs = atoms + n_atoms, pairs + n_pairs
        return results

    def collect(self, item: Prepared, blocks: NDArray[np.float64]) -> BlockSet:
        """The part of H that is not H0, hermitian, from a structure's template blocks.

        Raises:
            NumericalError: a value that is not finite.
        """
        if not np.isfinite(blocks).all():
            raise NumericalError("The predicted Hamiltonian is not finite.", hint="Check the geometry.")
        return item.blocks.to_blocks(blocks, self.block_space)
