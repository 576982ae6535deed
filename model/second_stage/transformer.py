"""The 3D graph Transformer: tokens are blocks of H, directed edges and on-site ones, and talk through their atoms.

Written from the published equations (the same group's NextHAM code has this network; no code was taken). One block, with
silu as s, LayerNorm as LN, i the receiving (row) atom and j the other:

    merge      e <- s LN W [s LN W1 e ; s LN W2 Y ; s LN W3 radial]                 (Y in the faithful mode only)
    attention  z = [x_j ; e ; x_i] is query, key and value; weight of an edge, in each head, w exp(<q, k> / sqrt(width)) over
               the sum of the same over all edges of i; x <- LN(x + Wo sum), x <- Wb s LN(Wa x + x)
    edges      e <- Wd s LN Wc [x_j ; e ; x_i]

An atom starts as its on-site token. Deviations from the published network, each for a law:

  * w, the smooth cutoff of a bond, 1 on-site: without it H jumps where an edge enters the sum;
  * an atom's bonds with its own images are edges like any other and no part of its start;
  * of two unlike atoms one block is computed, so its token sends a message to both of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from model.nn.layers import sum_per_target
from model.nn.modules import Modules

LARGEST_SCORE: Final = 5.0
"""Scores of the attention are clipped to plus and minus this, as published."""


@dataclass(frozen=True)
class EdgeContext:
    """Geometry of a batch's tokens: on-site ones of all atoms first, then pairs.

    Attributes:
        n_atoms: number of atoms.
        row, column: atoms of each token, (token,).
        token, target, other: of each message: the token that sends it, the atom that gets it and the other one, (message,).
        weight: smooth cutoff of each message, (message, 1).
        radial: radial functions, zero on-site, (token, radial).
        harmonics: spherical harmonics, (token, harmonic), or None.
    """

    n_atoms: int
    row: Tensor
    column: Tensor
    token: Tensor
    target: Tensor
    other: Tensor
    weight: Tensor
    radial: Tensor
    harmonics: Tensor | None


class NormedLinear(nn.Module):
    """silu(LN(W x + b))."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.norm = nn.LayerNorm(n_out)

    def forward(self, values: Tensor) -> Tensor:
        """(item, n_in) -> (item, n_out)."""
        return silu(self.norm(self.linear(values)))


class EndsAndEdge(nn.Module):
    """W [x_other ; e ; x_own], as three maps: those of atoms are applied once an atom, not once an edge.

    Args:
        hidden: width of atoms and tokens.
        n_out: width of the result.
    """

    def __init__(self, hidden: int, n_out: int) -> None:
        super().__init__()
        self.other = nn.Linear(hidden, n_out, bias=False)
        self.edge = nn.Linear(hidden, n_out)
        self.own = nn.Linear(hidden, n_out, bias=False)

    def forward(self, atom: Tensor, edge: Tensor, other: Tensor, token: Tensor | None, own: Tensor) -> Tensor:
        """Atoms (atom, hidden), tokens (token, hidden) and what belongs together -> (message, n_out).

        Args:
            other, token, own: indices, (message,); no index of tokens if they are taken as they stand.
        """
        edges = self.edge(edge)
        if token is not None:
            edges = edges.index_select(0, token)
        out: Tensor = edges + self.other(atom).index_select(0, other) + self.own(atom).index_select(0, own)
        return out


class TransformerBlock(nn.Module):
    """Merge, attention to atoms, and edges from their atoms.

    Args:
        hidden: width.
        heads: of the attention.
        n_radial: radial functions.
        n_harmonics: spherical harmonics; 0 for none.
    """

    def __init__(self, hidden: int, heads: int, n_radial: int, n_harmonics: int) -> None:
        super().__init__()
        self.heads = heads
        self.merge_edge = NormedLinear(hidden, hidden)
        self.merge_radial = NormedLinear(n_radial, hidden)
        self.merge_harmonics = NormedLinear(n_harmonics, hidden) if n_harmonics else None
        self.merge = NormedLinear(hidden * (3 if n_harmonics else 2), hidden)
        self.attention = EndsAndEdge(hidden, 3 * hidden)
        self.message = nn.Linear(hidden, hidden)
        self.message_norm = nn.LayerNorm(hidden)
        self.atom_in = nn.Linear(hidden, hidden)
        self.atom_norm = nn.LayerNorm(hidden)
        self.atom_out = nn.Linear(hidden, hidden)
        self.edge_in = EndsAndEdge(hidden, hidden)
        self.edge_norm = nn.LayerNorm(hidden)
        self.edge_out = nn.Linear(hidden, hidden)

    def merged(self, edge: Tensor, context: EdgeContext) -> Tensor:
        """Tokens with the geometry mixed in."""
        parts = [self.merge_edge(edge), self.merge_radial(context.radial)]
        if self.merge_harmonics is not None and context.harmonics is not None:
            parts.append(self.merge_harmonics(context.harmonics))
        out: Tensor = self.merge(torch.cat(parts, dim=1))
        return out

    def forward(self, atom: Tensor, edge: Tensor, context: EdgeContext) -> tuple[Tensor, Tensor]:
        """Atoms (atom, hidden) and merged tokens (token, hidden) -> both, updated."""
        atom = self._atoms(atom, self._sums(atom, edge, context))
        hidden = self.edge_in(atom, edge, context.column, None, context.row)
        return atom, self.edge_out(silu(self.edge_norm(hidden)))

    def _sums(self, atom: Tensor, edge: Tensor, context: EdgeContext) -> Tensor:
        """What the attention gives each atom, (atom, hidden)."""
        both = self.attention(atom, edge, context.other, context.token, context.target)
        query, key, value = both.unflatten(1, (3, self.heads, -1)).unbind(1)
        scores = (query * key).sum(dim=2) / math.sqrt(query.shape[2])
        shares = torch.exp(scores.clamp(-LARGEST_SCORE, LARGEST_SCORE)) * context.weight
        n_atoms = context.n_atoms
        total = sum_per_target(shares, context.target, n_atoms)  # at least what the on-site token gives
        summed = sum_per_target((value * shares.unsqueeze(2)).flatten(1), context.target, n_atoms)
        return (summed.unflatten(1, (self.heads, -1)) / total.unsqueeze(2)).flatten(1)

    def _atoms(self, atom: Tensor, summed: Tensor) -> Tensor:
        atom = self.message_norm(atom + self.message(summed))
        out: Tensor = self.atom_out(silu(self.atom_norm(self.atom_in(atom) + atom)))
        return out


class GraphTransformer(nn.Module):
    """All blocks.

    Args:
        hidden, heads, n_radial, n_harmonics: of a block.
        blocks: how many.
    """

    def __init__(self, hidden: int, blocks: int, heads: int, n_radial: int, n_harmonics: int) -> None:
        super().__init__()
        self.blocks = Modules[TransformerBlock](
            [TransformerBlock(hidden, heads, n_radial, n_harmonics) for _ in range(blocks)]
        )

    def forward(self, edge: Tensor, context: EdgeContext) -> Tensor:
        """Tokens (token, hidden) -> tokens."""
        atom: Tensor | None = None
        for block in self.blocks:
            edge = block.merged(edge, context)
            if atom is None:
                atom = edge[: context.n_atoms]
            atom, edge = block(atom, edge, context)
        return edge
