"""The product with harmonics by e3nn's own tensor product: what the network is; the fast path is held against it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.architectures.deeph_e3.parts import Parts
from model.architectures.deeph_e3.slots import ProductPath, Slots
from model.nn.default_dtype import default_dtype

if TYPE_CHECKING:
    from model.architectures.deeph_e3.product import SeparateProduct


def product(parameters: SeparateProduct, parts: Parts, harmonics: Tensor) -> Parts:
    """Slots ``parameters.sources`` of each edge times its harmonics -> slots ``parameters.targets``."""
    like = parts[0]
    module = _e3nn_product(
        parameters.sources, parameters.targets, parameters.harmonics_lmax, parameters.paths, like.dtype, like.device
    )
    weights = torch.cat([weight.flatten() for weight in parameters.weights()])
    features = torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1)
    out: Tensor = module(features, harmonics, weights)
    sizes = [(2 * slot.ang + 1) * slot.channels for slot in parameters.targets]
    return tuple(
        part.unflatten(1, (slot.channels, -1)).transpose(1, 2)
        for part, slot in zip(out.split(sizes, dim=1), parameters.targets, strict=True)
    )


def spherical_harmonics(vectors: Tensor, lmax: int) -> Tensor:
    """Harmonics in "component" normalisation, of (y, z, x), so that m = -l..l is about z; of a zero vector l = 0 only."""
    from e3nn import o3  # takes seconds to import; the fast path does without

    out: Tensor = o3.spherical_harmonics(
        o3.Irreps.spherical_harmonics(lmax), vectors[:, [1, 2, 0]], normalize=True, normalization="component"
    )
    return out


@cache
def _e3nn_product(
    sources: Slots, targets: Slots, lmax: int, paths: Sequence[ProductPath], dtype: torch.dtype, device: torch.device
) -> nn.Module:
    from e3nn import o3

    with torch.inference_mode(False), default_dtype(dtype):
        module: nn.Module = o3.TensorProduct(
            o3.Irreps([(slot.channels, slot.irrep) for slot in sources]),
            o3.Irreps.spherical_harmonics(lmax),
            o3.Irreps([(slot.channels, slot.irrep) for slot in targets]),
            [(path.source, path.harmonic, path.target, "uvw", True) for path in paths],
            internal_weights=False,
            shared_weights=True,
        )
        return module.to(device)
