"""The Expansion read-out evaluated fast: irrep coefficients of blocks without building the blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.architectures.qhnet_published.fast_parts import Parts, linear
from model.architectures.qhnet_published.parameters import ReadOutParameters


def element_weights(
    embedding: nn.Embedding, numbers: Tensor, parameters: ReadOutParameters
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Expansion weights and biases for each combination of elements that occurs.

    Args:
        numbers: atomic numbers of the atoms of each item, (item, 1 or 2): row atom, column atom.

    Returns:
        weights per l, (combination, bottleneck, shell pair); biases of l = 0, (combination, shell pair); combination of
        each item.
    """
    rows = embedding.num_embeddings
    key = numbers[:, 0] if numbers.shape[1] == 1 else numbers[:, 0] * rows + numbers[:, 1]
    unique, combination = torch.unique(key, return_inverse=True)
    atoms = unique[:, None] if numbers.shape[1] == 1 else torch.stack([unique // rows, unique % rows], dim=1)
    embedded = embedding(atoms).flatten(1)
    counts = [path.n_rows * path.n_columns for path in parameters.paths]
    n_in = parameters.linear.weight.shape[2]
    flat = parameters.weight(embedded).split([n_in * count for count in counts], dim=1)
    weights = [
        torch.cat(
            [
                part.unflatten(1, (n_in, -1))
                for part, path in zip(flat, parameters.paths, strict=True)
                if path.ang == ang
            ],
            dim=2,
        )
        for ang in range(max(path.ang for path in parameters.paths) + 1)
    ]
    return weights, parameters.bias(embedded), combination


def expand(features: Parts, embedding: nn.Embedding, numbers: Tensor, parameters: ReadOutParameters) -> Tensor:
    """Parts of the block features -> flat expansion coefficients (item, l * m * shell pair), see ``expansion_order``."""
    bottleneck = linear(features, parameters.linear)
    weights, biases, combination = element_weights(embedding, numbers, parameters)
    out = [
        torch.bmm(part.transpose(0, 1), weight.index_select(0, combination))
        for part, weight in zip(bottleneck, weights, strict=False)  # a template may not reach the highest l
    ]
    out[0] = out[0] + biases.index_select(0, combination).unsqueeze(1)
    return torch.cat([part.flatten(1) for part in out], dim=1)
