"""The error of a batch: blocks made hermitian, their means per structure, and, for molecules, whole matrices.

Blocks are (item, component, template row, template column), on-site ones first, then listed pairs (``model.pairs.graph``).
A listed pair of unlike atoms stands for its reverse too and counts twice; of like atoms both are computed, and averaged with
each other's adjoint as ``TemplateMap.to_blocks`` does. No index of the size of a matrix is kept: where an entry belongs
follows from the elements, and the matrix is made symmetric by adding its transpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from model.blocks.spaces import BlockSpace
from model.orbitals.space import OrbitalSpace
from model.pairs.graph import AtomGraph

STATES, LEFT_OUT = "bloch_states", "bloch_states_left_out"
"""Names of a crystal's states at k-points among what terms prepare, and of the part that kinetic damping takes off."""


class Assembler(nn.Module):
    """What is the same for all batches of a run: which template rows an element has, and signs of the adjoint.

    Args:
        space: the orbitals.
        block_space: what components mean.
    """

    has_row: Tensor
    adjoint_sign: Tensor

    def __init__(self, space: OrbitalSpace, block_space: BlockSpace) -> None:
        super().__init__()
        rows = torch.zeros((max(space.elements) + 1, space.template_size), dtype=torch.bool)
        for number in space.elements:
            rows[number, torch.from_numpy(space.template_places[number][0])] = True
        self.register_buffer("has_row", rows, persistent=False)
        sign = torch.from_numpy(block_space.adjoint_sign.astype(np.float32))[:, None, None]
        self.register_buffer("adjoint_sign", sign, persistent=False)


@dataclass(frozen=True, eq=False)
class BatchErrors:
    """Error of a batch.

    Attributes:
        assembler: of the run.
        raw: predicted less labelled blocks, (item, component, row, column), hartree, not hermitian yet.
        graph: the batch.
        pair_partner: listed pair that is the reverse of each listed pair, -1 where it is not computed, (pair,).
        extras: what the terms prepared, padded, (structure, ...).
    """

    assembler: Assembler
    raw: Tensor
    graph: AtomGraph
    pair_partner: Tensor
    extras: Mapping[str, Tensor]

    @cached_property
    def items(self) -> Tensor:
        """First and second atom of each item, (2, item)."""
        atoms = torch.arange(self.graph.n_atoms, device=self.raw.device)
        return torch.cat([torch.stack([atoms, atoms]), self.graph.pair_index], dim=1)

    @cached_property
    def partner(self) -> Tensor:
        """Item that holds the reverse of each item: itself on-site, -1 where it is not computed, (item,)."""
        atoms, pair = torch.arange(self.graph.n_atoms, device=self.raw.device), self.pair_partner
        return torch.cat([atoms, torch.where(pair < 0, pair, pair + self.graph.n_atoms)])

    @cached_property
    def structure_of_item(self) -> Tensor:
        """Structure of each item, (item,)."""
        return self.graph.structure_index[self.items[0]]

    @cached_property
    def _rows(self) -> Tensor:
        """Whether an atom has a template row, (atom, row)."""
        return self.assembler.has_row[self.graph.numbers]

    @cached_property
    def _entries(self) -> Tensor:
        """Whether an entry exists, (item, 1, row, column)."""
        first, second = self._rows[self.items]
        return (first[:, :, None] & second[:, None, :])[:, None]

    @cached_property
    def blocks(self) -> Tensor:
        """The error made hermitian; 0 where there is no entry, (item, component, row, column), hartree."""
        alone = (self.partner < 0)[:, None, None, None]
        reverse = self.assembler.adjoint_sign * self.raw[self.partner.clamp(min=0)].transpose(2, 3)
        return torch.where(alone, self.raw, 0.5 * (self.raw + reverse)) * self._entries

    @cached_property
    def _multiplicity(self) -> Tensor:
        """How many blocks of the whole matrix an item stands for, (item,)."""
        return 1.0 + (self.partner < 0).to(self.raw.dtype)

    def _per_structure(self, values: Tensor) -> Tensor:
        """Sum over the items of each structure, reverses counted, (structure,)."""
        total = values.new_zeros(self.graph.n_structures)
        return total.index_add(0, self.structure_of_item, values * self._multiplicity)

    @cached_property
    def _count(self) -> Tensor:
        """Real numbers of each structure's matrix, (structure,)."""
        return self._per_structure(self._entries.sum(dim=(1, 2, 3)).to(self.raw.dtype)) * self.raw.shape[1]

    @cached_property
    def mae(self) -> Tensor:
        """Mean |dH| of each structure, (structure,), hartree."""
        return self._per_structure(self.blocks.abs().sum(dim=(1, 2, 3))) / self._count

    @cached_property
    def rmse(self) -> Tensor:
        """Root mean square of dH of each structure, (structure,), hartree."""
        return (self._per_structure(self.blocks.square().sum(dim=(1, 2, 3))) / self._count + 1e-16).sqrt()

    def _places(self, width: int) -> Tensor:
        """Where each entry of an item's block is in matrices (structure, width, width), flat, (item, row, column).

        Orbitals are in the standard order. What does not exist goes behind the last matrix.
        """
        graph, rows = self.graph, self._rows
        count = graph.n_structures
        # an orbital's number in its molecule: a running number less that of the molecule's first
        running = rows.flatten().cumsum(0).view_as(rows) - 1
        sizes = torch.zeros(count, dtype=running.dtype, device=rows.device)
        sizes = sizes.index_add(0, graph.structure_index, rows.sum(dim=1))
        place = running - (sizes.cumsum(0) - sizes)[graph.structure_index][:, None]
        first, second = place[self.items]
        base = self.structure_of_item[:, None, None] * width
        target = (base + first[:, :, None]) * width + second[:, None, :]
        return torch.where(self._entries[:, 0], target, count * width * width)

    @cached_property
    def _halves(self) -> Tensor:
        """What of each item's block, added to its adjoint, makes the matrix, (item, row, column), hartree.

        An item that stands for its reverse too is written once and added to its adjoint; the others are halved before.
        """
        return (0.5 * self._multiplicity)[:, None, None] * self.blocks[:, 0]

    @cached_property
    def matrix(self) -> Tensor:
        """The error as matrices of molecules, orbitals in the standard order, padded with 0, (structure, ao, ao), hartree."""
        width, count = (
            self.extras["occupied"].shape[1],
            self.graph.n_structures,
        )  # a shape: nothing is read from the device
        target, half = self._places(width).flatten(), self._halves.flatten()
        upper = half.new_zeros(count * width * width + 1).scatter(0, target, half)[:-1].view(count, width, width)
        return upper + upper.transpose(1, 2)

    @cached_property
    def bloch_matrices(self) -> Tensor:
        """The error at k-points, ``extras["k_vectors"]`` (structure, k, 3) in 1/Å; complex, (structure, k, ao, ao), hartree.

        sum over images of e^{i k (r_j + R - r_i)} times the block: the phases of distances, not of lattice vectors alone.
        """
        points, width, graph = self.extras["k_vectors"], self.extras[STATES].shape[-1], self.graph
        vectors = torch.cat([graph.pair_vectors.new_zeros(graph.n_atoms, 3), graph.pair_vectors])
        angles = (points[self.structure_of_item] * vectors[:, None]).sum(dim=2).T[:, :, None, None]
        half, target = self._halves, self._places(width).flatten()
        values = torch.cat([half * angles.cos(), half * angles.sin()]).flatten(1)
        size = graph.n_structures * width * width
        flat = values.new_zeros(len(values), size + 1).index_add(1, target, values)[:, :-1]
        real, imaginary = flat.view(2, -1, graph.n_structures, width, width).transpose(1, 2)
        upper = torch.complex(real, imaginary)
        return upper + upper.mH

    @cached_property
    def squares_between_states(self) -> Tensor:
        """|C^H (dH - G dH G) C|^2 between the states that ``bloch`` stored, (structure, k, state, state), hartree^2.

        G is 0 where it stored none.
        """

        def between(name: str) -> Tensor:
            states = torch.complex(*self.extras[name].unbind(dim=1))
            return states.mH @ self.bloch_matrices @ states

        mixed = between(STATES) - between(LEFT_OUT) if LEFT_OUT in self.extras else between(STATES)
        return mixed.real.square() + mixed.imag.square()

    @cached_property
    def on_occupied(self) -> Tensor:
        """dH C of the label's occupied orbitals, (structure, ao, occupied), hartree."""
        return self.matrix @ self.extras["occupied"]
