"""Where geometries come from: SMILES -> RDKit -> GFN2-xTB minimum and dynamics.

RDKit and tblite are the optional extra ``generate`` and are imported when they are needed. Every geometry leaves with
its positions rounded to 1e-6 Å: exactly these are labelled and stored.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from training.generate.recipe import SmilesConfig
from training.tables import ConfigError

POSITION_DECIMALS: Final = 6
"""Of positions in Å."""

BONDED, BROKEN, FORMED = 1.3, 1.6, 1.15
"""Distances over sums of covalent radii: a pair is bonded below BONDED; a bond has broken above BROKEN and a new one has
formed below FORMED. The gaps between them let bonds vibrate."""

FORCE_TOLERANCE_EV_PER_ANGSTROM: Final = 0.01
RELAXATION_STEPS: Final = 500
FRICTION_PER_FS: Final = 0.02


class GeometryError(Exception):
    """No usable geometry; says why."""


@dataclass(frozen=True)
class Geometry:
    """A geometry before it is labelled.

    Attributes:
        positions: (atom, 3), Å, rounded.
        temperature: of the dynamics it comes from, kelvin; 0 for a minimum, NaN if unknown.
        kind: "xtb-min", "xtb-md" or "given".
    """

    positions: NDArray[np.float64]
    temperature: float
    kind: str


@dataclass(frozen=True)
class ParsedSmiles:
    """What a SMILES says, before any geometry.

    Attributes:
        canonical: RDKit's canonical SMILES.
        numbers: atomic numbers with hydrogens, (atom,).
        charge: sum of the formal charges.
        bonds: (atom, atom), bool.
        molecule: RDKit's molecule with hydrogens.
    """

    canonical: str
    numbers: NDArray[np.int64]
    charge: int
    bonds: NDArray[np.bool_]
    molecule: Any


def import_extra(module: str) -> Any:
    """A module of RDKit or tblite.

    Raises:
        ConfigError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"SMILES need {module.partition('.')[0]}, which is not installed; pip install tracegrad-service[generate], "
            "or give geometries under [structures]."
        ) from error


def rounded(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions as they are labelled and stored."""
    return np.asarray(np.round(positions, POSITION_DECIMALS), dtype=np.float64)


def bonds_of(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Bonded pairs by distance, (atom, atom)."""
    return np.asarray(_relative_distances(numbers, positions) < BONDED)


def bonds_changed(numbers: NDArray[np.int64], positions: NDArray[np.float64], bonds: NDArray[np.bool_]) -> bool:
    """Whether a bond of ``bonds`` has broken, or one that is not there has formed."""
    relative = _relative_distances(numbers, positions)
    return bool((relative[bonds] > BROKEN).any() or (relative[~bonds] < FORMED).any())


def _relative_distances(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    radii = np.array(covalent_radii, dtype=np.float64)[numbers]
    distances = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances / (radii[:, None] + radii[None, :]), dtype=np.float64)


def parse_smiles(smiles: str) -> ParsedSmiles:
    """Read a SMILES; it must be one closed-shell molecule or ion.

    Raises:
        GeometryError: it is not.
    """
    chem = import_extra("rdkit.Chem")
    import_extra("rdkit.RDLogger").DisableLog("rdApp.*")  # the reason is reported once, by the errors below
    bare = chem.MolFromSmiles(smiles)
    if bare is None or bare.GetNumAtoms() == 0:
        raise GeometryError(f"RDKit cannot read the SMILES {smiles[:60]!r}")
    molecule = chem.AddHs(bare)
    if len(chem.GetMolFrags(molecule)) != 1:
        raise GeometryError(f"{smiles[:60]!r} is more than one molecule; give each its own line")
    if any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
        raise GeometryError(f"{smiles[:60]!r} is a radical; only closed shells")
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    bonds = np.zeros((len(numbers), len(numbers)), dtype=bool)
    for bond in molecule.GetBonds():
        first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[first, second] = bonds[second, first] = True
    return ParsedSmiles(chem.MolToSmiles(bare), numbers, int(chem.GetFormalCharge(molecule)), bonds, molecule)


def geometries_of(smiles: str, config: SmilesConfig, seed: int) -> Iterator[Geometry]:
    """Minimum and dynamics frames of a SMILES, as they are made; bonds are checked by the caller.

    Args:
        smiles: one closed-shell molecule or ion.
        config: what is wanted.
        seed: of the recipe; mixed with the SMILES, so that a molecule's geometries do not depend on its neighbours.

    Raises:
        GeometryError: no conformer, no minimum, or the minimum is another molecule.
    """
    from ase import Atoms
    from ase.optimize import BFGS

    parsed = parse_smiles(smiles)
    words = [seed, *hashlib.sha256(parsed.canonical.encode()).digest()[:8]]
    atoms = Atoms(parsed.numbers, _embed(parsed, int(np.random.default_rng(words).integers(2**31 - 1))))
    atoms.calc = _tight_binding(parsed.charge)
    with BFGS(atoms, logfile=None) as optimiser:
        if not optimiser.run(fmax=FORCE_TOLERANCE_EV_PER_ANGSTROM, steps=RELAXATION_STEPS):
            raise GeometryError(f"no GFN2-xTB minimum in {RELAXATION_STEPS} steps")
    if bonds_changed(parsed.numbers, atoms.positions, parsed.bonds):
        raise GeometryError("the GFN2-xTB minimum has other bonds than the SMILES")
    if config.minimum:
        yield Geometry(rounded(atoms.positions), 0.0, "xtb-min")
    for number, temperature in enumerate(config.temperatures):
        yield from _dynamics(atoms.copy(), parsed.charge, temperature, config, [*words, number])


def _embed(parsed: ParsedSmiles, seed: int) -> NDArray[np.float64]:
    if len(parsed.numbers) == 1:
        return np.zeros((1, 3))
    force_field, distance_geometry = import_extra("rdkit.Chem.AllChem"), import_extra("rdkit.Chem.rdDistGeom")
    settings = distance_geometry.ETKDGv3()
    settings.randomSeed = seed
    if distance_geometry.EmbedMolecule(parsed.molecule, settings) != 0:
        settings.useRandomCoords = True
        if distance_geometry.EmbedMolecule(parsed.molecule, settings) != 0:
            raise GeometryError("RDKit finds no conformer")
    if force_field.MMFFHasAllMoleculeParams(parsed.molecule):
        force_field.MMFFOptimizeMolecule(parsed.molecule)
    return np.array(parsed.molecule.GetConformer().GetPositions())


def _tight_binding(charge: int) -> Any:
    return import_extra("tblite.ase").TBLite(method="GFN2-xTB", charge=charge, verbosity=0)


def _dynamics(
    atoms: Any, charge: int, temperature: float, config: SmilesConfig, seed: Sequence[int]
) -> Iterator[Geometry]:
    from ase import units
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import thermalize_momenta

    if config.frames_per_temperature == 0:
        return
    rng = np.random.default_rng(seed)
    atoms.calc = _tight_binding(charge)
    thermalize_momenta(atoms, temperature, rng=rng)
    dynamics = Langevin(
        atoms,
        config.timestep_fs * units.fs,
        temperature_K=temperature,
        friction=FRICTION_PER_FS / units.fs,
        fixcm=False,  # the centre of mass may drift: nothing here depends on where a molecule is
        rng=rng,
    )
    dynamics.run(config.equilibration_steps)
    for frame in range(config.frames_per_temperature):
        if frame:
            dynamics.run(config.spacing_steps)
        yield Geometry(rounded(atoms.positions), temperature, "xtb-md")
