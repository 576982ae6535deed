"""Bond frames: for each vector a rotation that turns it onto the pole, and its Wigner matrices.

Convention: real spherical harmonics with m = -l..l about z, so l = 1 is (y, z, x) and the pole is m = 0. A frame's
rotation about the bond itself is arbitrary (it is chosen for numerical safety only); everything that uses a frame must
commute with that gauge.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.nn.irreps import coupling


def bond_rotations(vectors: Tensor) -> Tensor:
    """Proper rotations R with R @ (v / |v|) = z.

    Args:
        vectors: (edge, 3), none of them zero.

    Returns:
        (edge, 3, 3), Cartesian (x, y, z).
    """
    axis = torch.nn.functional.normalize(vectors, dim=-1)
    # the helper is the Cartesian axis least aligned with the bond: never closer than 54 degrees, so no pole is special
    helper = torch.nn.functional.one_hot(axis.abs().argmin(dim=-1), 3).to(axis.dtype)
    first = torch.nn.functional.normalize(torch.linalg.cross(helper, axis), dim=-1)
    second = torch.linalg.cross(axis, first)
    return torch.stack([first, second, axis], dim=-2)


class WignerMatrices(nn.Module):
    """D^l of rotations, l = 0..lmax, by coupling D^(l-1) with D^1; the coupling tables are its buffers.

    Args:
        lmax: highest l.
    """

    def __init__(self, lmax: int) -> None:
        super().__init__()
        self.lmax = lmax
        for ang in range(2, lmax + 1):
            self.register_buffer(f"table{ang}", torch.from_numpy(coupling(ang - 1, 1, ang)), persistent=False)

    def forward(self, rotations: Tensor) -> list[Tensor]:
        """Matrices that act on components m = -l..l.

        Args:
            rotations: (edge, 3, 3), proper rotations in Cartesian (x, y, z).

        Returns:
            for each l, (edge, 2l + 1, 2l + 1).
        """
        matrices = [torch.ones_like(rotations[:, :1, :1])]
        if self.lmax == 0:
            return matrices
        order = [1, 2, 0]  # (y, z, x)
        vector = rotations[:, order][:, :, order]
        matrices.append(vector)
        for ang in range(2, self.lmax + 1):
            table = getattr(self, f"table{ang}").to(rotations.dtype)
            left = torch.einsum("eac,cdn->eadn", matrices[-1], table)
            left = torch.einsum("ebd,eadn->eabn", vector, left)
            matrices.append(torch.einsum("abm,eabn->emn", table, left))
        return matrices


def wigner_matrices(rotations: Tensor, lmax: int) -> list[Tensor]:
    """:class:`WignerMatrices` without keeping the tables."""
    made: list[Tensor] = WignerMatrices(lmax).to(rotations.device)(rotations)
    return made


def harmonics_from_wigner(matrices: list[Tensor]) -> Tensor:
    """Spherical harmonics of the bond directions, each of norm 1: the rows of D^l that belong to the pole.

    Args:
        matrices: from :func:`wigner_matrices`.

    Returns:
        (edge, (lmax + 1)^2).
    """
    return torch.cat([matrix[:, ang, :] for ang, matrix in enumerate(matrices)], dim=-1)
