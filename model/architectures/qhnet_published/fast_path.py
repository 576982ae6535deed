"""The published QHNet evaluated fast: the same function of the same parameters as ``reference_path``.

Plain torch, except that an own kernel may take over the products of pairs (``pair_products``).

Where the time is saved:
  * convolutions run in the bond's frame, where harmonics have m = 0 only (exact); one frame serves both directions of a
    pair, because the reversed bond is the same bond seen by parity-flipped features;
  * radial weights, inner products and the coupled products of a PairNet are computed once for both directions:
    <i, j> = <j, i>, and (l1 of i, l2 of j) -> l3 is (-1)^(l1 + l2 + l3) times (l2 of j, l1 of i) -> l3;
  * everything that depends on one atom only is computed per atom, before pairs gather it;
  * the read-out weights depend on elements only, and its 19 paths are one GEMM per l.
Pairs are worked on in chunks, so peak memory grows with the features alone. Index lists aside (``lists``), it exports with
dynamic sizes, once the constant tables have been made by a first call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu

from model.architectures.qhnet_published.fast_parts import (
    PAIRS_PER_CHUNK,
    Parts,
    couple,
    frame_weights,
    hidden_of,
    inner_products,
    linear,
    norm_gate,
    per_path,
    take,
)
from model.architectures.qhnet_published.lists import BlockPairs, UnorderedPairs
from model.architectures.qhnet_published.pair_products import weighted_products
from model.architectures.qhnet_published.parameters import ConvolutionParameters, PairParameters, SelfParameters
from model.nn.frames import WignerMatrices, bond_rotations


@dataclass(frozen=True)
class Bonds:
    """Geometry of the message edges.

    Attributes:
        pairs: every bonded pair once.
        wigner: D^l of each pair's frame, l = 0..lmax, rows sorted m = 0, -1, 1, -2, 2, ...
        radial: radial functions, (unordered pair, function).
    """

    pairs: UnorderedPairs
    wigner: Sequence[Tensor]
    radial: Tensor

    @classmethod
    def of(cls, pairs: UnorderedPairs, radial: Tensor, wigner: WignerMatrices) -> Bonds:
        matrices = wigner(bond_rotations(pairs.vectors))
        order = [0] + [sign * m for m in range(1, wigner.lmax + 1) for sign in (-1, 1)]
        rows = [[ang + m for m in order[: 2 * ang + 1]] for ang in range(wigner.lmax + 1)]
        return cls(pairs, [matrix[:, row] for matrix, row in zip(matrices, rows, strict=True)], radial)

    def chunks(self) -> list[slice]:
        return chunks(self.pairs.low.shape[0])


def chunks(count: int) -> list[slice]:
    """Slices of at most ``PAIRS_PER_CHUNK`` pairs, as even as possible; one slice in a graph that is being exported."""
    if torch.compiler.is_compiling():
        return [slice(None)]
    number = -(-count // PAIRS_PER_CHUNK)  # none, if there are no pairs: a lone atom
    return [slice(count * index // number, count * (index + 1) // number) for index in range(number)]


def flip_parity(parts: Parts) -> Parts:
    """What inversion does to features of natural parity."""
    return [-part if ang % 2 else part for ang, part in enumerate(parts)]


def first_convolution(scalars: Tensor, parameters: ConvolutionParameters, bonds: Bonds) -> Parts:
    """The first layer: scalars (atom, channel) times the bond's harmonics.

    Its invariants are the destination's scalars twice, so its weights are made per atom.
    """
    pairs, channels, n_paths = bonds.pairs, scalars.shape[1], len(parameters.paths)
    first = parameters.invariant.first
    hidden = hidden_of(scalars @ (first[:channels] + first[channels:]), parameters.invariant)
    invariant = per_path(hidden, parameters.invariant.second, n_paths)
    radial_hidden = hidden_of(bonds.radial @ parameters.radial.first, parameters.radial)
    totals = [scalars.new_zeros((2, scalars.shape[0], 2 * ang + 1, channels)) for ang in range(n_paths)]
    for part in bonds.chunks():
        low, high = pairs.low[part], pairs.high[part]
        radial = per_path(radial_hidden[part], parameters.radial.second, n_paths)
        for direction, (source, target) in enumerate(((low, high), (high, low))):
            weights = invariant.index_select(1, target) * radial * scalars.index_select(0, source)
            for ang, path in enumerate(parameters.paths):
                # sqrt(2l + 1) of the harmonics cancels that of the 3j symbol (0, l, l)
                harmonics = bonds.wigner[ang][part, 0, :, None] * path.coefficient
                totals[ang][direction].index_add_(0, target, harmonics * weights[ang].unsqueeze(1))
    summed = [(t[0] - t[1] if ang % 2 else t[0] + t[1]).transpose(0, 1) for ang, t in enumerate(totals)]
    return linear(summed, parameters.linear_out)


def convolution(node: Parts, parameters: ConvolutionParameters, bonds: Bonds) -> Parts:
    """A later layer, residual included."""
    pairs, n_atoms, channels = bonds.pairs, node[0].shape[1], node[0].shape[2]
    mlp = parameters.invariant
    invariant_node = linear(node, parameters.linear_invariant)
    whole, lmax = torch.cat(invariant_node), len(node) - 1
    per_target = invariant_node[0][0] @ (mlp.first[:channels] + mlp.first[channels : 2 * channels])
    gated = linear(norm_gate(node, parameters.gate), parameters.linear)
    table = torch.cat([torch.cat(gated), torch.cat(flip_parity(gated))], dim=1)
    radial_hidden = hidden_of(bonds.radial @ parameters.radial.first, parameters.radial)
    to_high, to_low = ([gated[0].new_zeros((n_atoms, 2 * len(part) * channels)) for part in gated] for _ in range(2))
    for part in bonds.chunks():
        low, high = pairs.low[part], pairs.high[part]
        shared = inner_products(whole, low, high, lmax) @ mlp.first[2 * channels :]
        # directions alternate (low -> high, high -> low), so that one frame's matrices meet both side by side
        targets = torch.stack([high, low], dim=1)
        hidden = per_target.index_select(0, targets.flatten()).view(low.shape[0], 2, -1) + shared.unsqueeze(1)
        hidden = hidden_of(hidden, mlp)
        weights = _convolution_weights(hidden, radial_hidden[part], parameters)
        sources = take(table, torch.stack([low, high + n_atoms], dim=1).flatten(), lmax)
        wigner = [matrix[part] for matrix in bonds.wigner]
        for ang, message in enumerate(_convolve_in_frame(sources, wigner, weights)):
            # whole rows, of which one half is used in the end: adding strided halves is ten times slower
            to_high[ang].index_add_(0, high, message.flatten(1))
            to_low[ang].index_add_(0, low, message.flatten(1))
    forward = [total.view(n_atoms, -1, 2 * channels)[..., :channels].transpose(0, 1) for total in to_high]
    backward = [total.view(n_atoms, -1, 2 * channels)[..., channels:].transpose(0, 1) for total in to_low]
    summed = [own + a + b for own, a, b in zip(gated, forward, flip_parity(backward), strict=True)]
    return [old + new for old, new in zip(node, linear(summed, parameters.linear_out), strict=True)]


def _convolution_weights(
    hidden: Tensor, radial_hidden: Tensor, parameters: ConvolutionParameters
) -> list[list[Tensor]]:
    """Weights in the frame: for each l1 and m, (l3 = m..lmax, pair, direction * channel).

    Args:
        hidden: (pair, direction, n), of the MLP of invariants.
        radial_hidden: (pair, n).
    """
    counts = parameters.paths_per_source
    lmax = len(counts) - 1
    invariant = per_path(hidden.flatten(0, 1), parameters.invariant.second, len(parameters.paths))
    radial = per_path(radial_hidden, parameters.radial.second, len(parameters.paths))
    weights = invariant.unflatten(1, (-1, 2)).mul_(radial.unsqueeze(2)).flatten(1)
    matrices = frame_weights(lmax, weights.dtype, weights.device)
    return [
        list(
            (matrix @ part).view(len(matrix), radial_hidden.shape[0], -1).split([lmax + 1 - m for m in range(left + 1)])
        )
        for left, (matrix, part) in enumerate(zip(matrices, weights.split(counts), strict=True))
    ]


def _convolve_in_frame(sources: Parts, wigner: Sequence[Tensor], weights: list[list[Tensor]]) -> list[Tensor]:
    """Messages per l3, (pair, 2 l3 + 1, direction * channel); sources list (pair, direction) flattened."""
    lmax, n_pairs = len(sources) - 1, wigner[0].shape[0]
    by_pair = [part.view(len(part), n_pairs, -1).transpose(0, 1) for part in sources]
    # a scalar needs no turning
    rotated = [by_pair[0], *[torch.bmm(matrix, part) for matrix, part in zip(wigner[1:], by_pair[1:], strict=True)]]
    per_m = []
    for m in range(lmax + 1):
        rows = slice(2 * m - 1, 2 * m + 1) if m else slice(0, 1)
        total = weights[m][m].unsqueeze(2) * rotated[m][:, rows]
        for left in range(m + 1, lmax + 1):
            total.addcmul_(weights[left][m].unsqueeze(2), rotated[left][:, rows])
        per_m.append(total.unbind())
    back = [
        torch.bmm(wigner[ang].transpose(1, 2), torch.cat([per_m[m][ang - m] for m in range(ang + 1)], dim=1))
        for ang in range(1, lmax + 1)
    ]
    return [per_m[0][0], *back]


def self_block(node: Parts, old: Parts | None, parameters: SelfParameters) -> Parts:
    """SelfNet."""
    left = linear(norm_gate(node, parameters.gate_left), parameters.linear_left)
    right = linear(norm_gate(node, parameters.gate_right), parameters.linear_right)
    weights = parameters.product.unbind()
    totals = [part.clone() for part in node]
    for (a, b), group in parameters.groups.items():
        products = couple(left[a], right[b], group)
        for path, product, weight in zip(group.paths, products, weights[group.start :], strict=False):
            totals[path.out].addcmul_(product, weight)
    new = linear(norm_gate(totals, parameters.gate), parameters.linear)
    return new if old is None else [a + b for a, b in zip(old, new, strict=True)]


def pair_block(
    node: Parts, old: Tensor | None, parameters: PairParameters, pairs: BlockPairs, radial: Tensor, *, kernels: bool
) -> Tensor:
    """PairNet.

    Args:
        node: features of the atoms.
        old: features of both directions, (component, direction, unordered pair, channel), or None in the first block.
        radial: radial functions of the unordered pairs.
        kernels: let an own kernel do what it can do faster than torch.

    Returns:
        new features, like ``old``.
    """
    low_atom, high_atom, channels = pairs.unordered.low, pairs.unordered.high, node[0].shape[2]
    first = parameters.invariant.first
    invariant_node = linear(node, parameters.linear_invariant)
    scalars = invariant_node[0][0]
    as_row, as_column, of_inner = first.weight.split([channels, channels, first.in_features - 2 * channels], dim=1)
    row_hidden, column_hidden = torch.addmm(first.bias, scalars, as_row.T), scalars @ as_column.T
    whole, whole_invariant = (
        torch.cat(parts)
        for parts in (linear(norm_gate(node, parameters.gate_node), parameters.linear_node), invariant_node)
    )
    lmax = len(node) - 1
    radial_hidden = hidden_of(radial @ parameters.radial.first, parameters.radial)
    done = []
    for part in chunks(low_atom.shape[0]):
        low, high = low_atom[part], high_atom[part]
        rows, columns = torch.cat([high, low]), torch.cat([low, high])
        shared = inner_products(whole_invariant, low, high, lmax) @ of_inner.T
        summed = row_hidden.index_select(0, rows) + column_hidden.index_select(0, columns)
        hidden = silu(summed.view(2, low.shape[0], -1) + shared).flatten(0, 1)
        totals = weighted_products(whole, low, high, hidden, radial_hidden[part], parameters, kernels=kernels)
        new = torch.cat(linear(norm_gate(totals, parameters.gate), parameters.linear)).unflatten(1, (2, -1))
        done.append(new if old is None else new + old[:, :, part])
    if not done:
        return scalars.new_zeros((sum(len(part) for part in node), 2, 0, channels))
    return torch.cat(done, dim=2) if len(done) > 1 else done[0]
