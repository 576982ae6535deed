"""Writing the project's HDF5 file of crystals (``model.formats.crystal_h5`` reads it)."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np

from model.blocks.block_set import BlockSet
from model.formats.units import CODATA_EV
from training.generate.crystals.label import CrystalLabel

SMALLEST_BLOCK_EV: Final = 2.7e-6
"""Blocks whose entries are all smaller (1e-7 hartree) are left out; H of float32 is no better."""


def write_label(group: Any, label: CrystalLabel, attributes: dict[str, Any]) -> None:
    """Write one structure into an empty HDF5 group.

    Args:
        group: of h5py.
        label: what to write.
        attributes: further ones, such as ``split`` and ``kind``.
    """
    matrices = label.matrices.in_unit(CODATA_EV).in_order("openmx")
    structure, hamiltonian, overlap = matrices.structure, matrices.require_hamiltonian(), matrices.overlap
    assert structure.cell_angstrom is not None
    assert overlap is not None
    overlap = overlap.on_pairs(hamiltonian.pairs)
    kept = _kept(hamiltonian)
    pairs = hamiltonian.pairs
    group["cell"] = structure.cell_angstrom
    group["positions"] = structure.positions_angstrom
    group["atomic_numbers"] = structure.numbers
    group["pairs"] = np.column_stack([pairs.shift, pairs.first, pairs.second])[kept].astype(np.int32)
    for name, shapes, blocks in (("hamiltonian_eV", "shapes", hamiltonian), ("overlap", "overlap_shapes", overlap)):
        own = [_spinful(blocks.block(pair)) for pair in kept]
        group[shapes] = np.array([block.shape for block in own], dtype=np.int32)
        dtype = np.complex64 if blocks.spin == "spinor" else np.float32
        flat = np.concatenate([block.ravel() for block in own]).astype(dtype)
        group.create_dataset(name, data=flat, compression="gzip", shuffle=True)
    shells = [list(hamiltonian.space.shells_of(z)) for z in structure.numbers.tolist()]
    group.attrs["orbital_types"] = json.dumps(shells)
    group.attrs["spinful"] = hamiltonian.spin == "spinor"
    group.attrs["code"] = matrices.program
    group.attrs["level"] = label.level
    group.attrs["folded"] = matrices.is_folded
    group.attrs["cycles"] = label.cycles
    group.attrs["energy_hartree"] = label.energy_hartree
    if matrices.fermi_energy is not None:
        group.attrs["fermi_level_eV"] = matrices.fermi_energy
    if matrices.k_points is not None:
        group.attrs["k_points"] = np.array(matrices.k_points)
    if matrices.n_electrons is not None:
        group.attrs["n_electrons"] = matrices.n_electrons
    group.attrs.update(attributes)


def _spinful(block: Any) -> Any:
    """(orbital, orbital) of one spin part, or [[uu, ud], [du, dd]] of four."""
    return block[0] if len(block) == 1 else np.block([[block[0], block[1]], [block[2], block[3]]])


def _kept(blocks: BlockSet) -> list[int]:
    """Pairs to store: of (i, j, R) and (j, i, -R) the first, without the smallest; on-site ones always."""
    kept = []
    for pair, (i, j, *shift) in enumerate(blocks.pairs.keys.tolist()):
        if pair < blocks.pairs.n_atoms or (
            (i, j, *shift) < (j, i, *(-r for r in shift)) and np.abs(blocks.block(pair)).max() > SMALLEST_BLOCK_EV
        ):
            kept.append(pair)
    return kept
