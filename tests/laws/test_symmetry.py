"""What happens to the atoms happens to the Hamiltonian: rotation, translation, mirror, permutation, batch.

The oracle is PySCF: its own overlap of the moved molecule says how AOs transform. With U the representation of the motion
on the AOs, S(moved) = U S U^T holds to rounding, and H must do the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from pyscf import dft, scf
from scipy.spatial.transform import Rotation

from model.integrals.pyscf_molecule import build_mole
from model.predictor import Predictor
from model.structure import Structure

FLOAT64_TOLERANCE = 1e-9
FLOAT32_TOLERANCE = 1e-5


def twisted(name: str, molecule: Callable[[str], Structure]) -> Structure:
    """A molecule shaken out of any symmetry of its own."""
    original = molecule(name)
    shake = np.random.default_rng(len(name)).normal(scale=0.05, size=original.positions_angstrom.shape)
    return Structure(original.numbers, original.positions_angstrom + shake)


def pyscf_transform(before: Structure, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """How PySCF's AOs transform under x -> matrix @ x, from PySCF's own integrals alone.

    A shell's AOs on a moved atom are U times those on the old one. U is read off the cross overlap between the molecule's
    AOs, evaluated on points r, and the moved molecule's AOs on matrix @ r: chi'(M r) = U chi(r).
    """
    after = Structure(before.numbers, before.positions_angstrom @ matrix.T)
    points = np.random.default_rng(0).normal(scale=2.0, size=(6000, 3))
    old = build_mole(before, "def2-svp").eval_gto("GTOval_sph", points)
    new = build_mole(after, "def2-svp").eval_gto("GTOval_sph", points @ matrix.T)
    mole = build_mole(before, "def2-svp")
    transform = np.zeros((mole.nao, mole.nao))
    locations = mole.ao_loc_nr()
    for shell in range(mole.nbas):
        part = slice(locations[shell], locations[shell + 1])
        solution = np.linalg.lstsq(old[:, part], new[:, part], rcond=None)[0]
        transform[part, part] = solution.T
    return transform


def random_rotation(seed: int) -> NDArray[np.float64]:
    return Rotation.random(random_state=seed).as_matrix()


MOTIONS = {
    "rotation": random_rotation(1),
    "mirror": np.diag([1.0, 1.0, -1.0]),
    "inversion": -np.eye(3),
    "rotoreflection": random_rotation(2) @ np.diag([-1.0, 1.0, 1.0]),
    "rotation onto the axes": Rotation.from_euler("z", 90, degrees=True).as_matrix(),
}


@pytest.mark.parametrize("motion", list(MOTIONS))
def test_the_oracle_is_right(motion: str, molecule: Callable[[str], Structure]) -> None:
    before = twisted("CH3CH2OH", molecule)
    transform = pyscf_transform(before, MOTIONS[motion])
    after = Structure(before.numbers, before.positions_angstrom @ MOTIONS[motion].T)
    old, new = build_mole(before, "def2-svp"), build_mole(after, "def2-svp")
    assert np.abs(transform @ old.intor("int1e_ovlp") @ transform.T - new.intor("int1e_ovlp")).max() < 1e-11
    core_old, core_new = scf.hf.get_hcore(old), scf.hf.get_hcore(new)
    assert np.abs(transform @ core_old @ transform.T - core_new).max() < 1e-9


@pytest.mark.parametrize("motion", list(MOTIONS))
@pytest.mark.parametrize("name", ["H2O", "CH3CH2OH", "CH3CN", "HCOOH"])
@pytest.mark.parametrize("weights", ["random", "random frames", "released"])
def test_hamiltonian_moves_with_the_atoms(
    motion: str,
    name: str,
    weights: str,
    molecule: Callable[[str], Structure],
    random_weights_float64: Predictor,
    random_frames_float64: Predictor,
    released_float64: Predictor,
) -> None:
    predictor = {
        "random": random_weights_float64,
        "random frames": random_frames_float64,
        "released": released_float64,
    }[weights]
    before = twisted(name, molecule)
    after = Structure(before.numbers, before.positions_angstrom @ MOTIONS[motion].T + np.array([1.3, -0.7, 2.1]))
    transform = pyscf_transform(before, MOTIONS[motion])
    old, new = predictor.predict([before, after])
    assert np.abs(old.hamiltonian - old.reference).max() > 1e-4, "the network must take part"
    assert np.abs(transform @ old.hamiltonian @ transform.T - new.hamiltonian).max() < FLOAT64_TOLERANCE


@pytest.mark.parametrize("motion", list(MOTIONS))
def test_as_served_in_float32(motion: str, molecule: Callable[[str], Structure], released: Predictor) -> None:
    before = twisted("CH3CH2OH", molecule)
    after = Structure(before.numbers, before.positions_angstrom @ MOTIONS[motion].T)
    transform = pyscf_transform(before, MOTIONS[motion])
    old, new = released.predict([before, after])
    assert np.abs(transform @ old.hamiltonian @ transform.T - new.hamiltonian).max() < FLOAT32_TOLERANCE


@pytest.mark.parametrize("weights", ["random", "random frames", "released"])
def test_atom_order_does_not_matter(
    weights: str,
    molecule: Callable[[str], Structure],
    random_weights_float64: Predictor,
    random_frames_float64: Predictor,
    released_float64: Predictor,
    rng: np.random.Generator,
) -> None:
    predictor = {
        "random": random_weights_float64,
        "random frames": random_frames_float64,
        "released": released_float64,
    }[weights]
    before = twisted("CH3CH2OH", molecule)
    order = rng.permutation(len(before))
    after = Structure(before.numbers[order], before.positions_angstrom[order])
    old, new = predictor.predict([before, after])
    offsets = old.atom_offsets
    aos = np.concatenate([np.arange(offsets[atom], offsets[atom + 1]) for atom in order])
    assert np.abs(old.hamiltonian[np.ix_(aos, aos)] - new.hamiltonian).max() < FLOAT64_TOLERANCE


def test_hamiltonian_is_symmetric(released: Predictor, molecule: Callable[[str], Structure]) -> None:
    hamiltonian = released.predict([twisted("CH3CH2OH", molecule)])[0].hamiltonian
    assert np.array_equal(hamiltonian, hamiltonian.T)


def test_batch_equals_single(released: Predictor, molecule: Callable[[str], Structure]) -> None:
    structures = [molecule(name) for name in ("H2O", "CH3CH2OH", "H2", "CH3CN", "HCOOH")]
    together = released.predict(structures)
    for structure, prediction in zip(structures, together, strict=True):
        alone = released.predict([structure])[0]
        assert np.abs(alone.hamiltonian - prediction.hamiltonian).max() < FLOAT32_TOLERANCE


def test_linear_and_axis_aligned_bonds_are_not_special(
    released_float64: Predictor, molecule: Callable[[str], Structure]
) -> None:
    """A bond exactly on a pole, or a hair beside it, is where frames go wrong."""
    base = Structure.from_symbols(["C", "N", "H"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.156], [0.0, 0.0, -1.064]])
    reference = np.linalg.eigvalsh(released_float64.predict([base])[0].hamiltonian)
    for axis in (np.eye(3)[0], np.eye(3)[1], -np.eye(3)[2], np.array([1e-9, 0.0, 1.0]), np.array([1.0, 1e-8, -1e-8])):
        unit = axis / np.linalg.norm(axis)
        positions = np.outer(base.positions_angstrom[:, 2], unit)
        values = np.linalg.eigvalsh(released_float64.predict([Structure(base.numbers, positions)])[0].hamiltonian)
        assert np.abs(values - reference).max() < FLOAT64_TOLERANCE


def test_converged_fock_matrix_obeys_the_same_law(molecule: Callable[[str], Structure]) -> None:
    """The transform is the right one for Fock matrices too, not only for one-electron integrals."""
    before = twisted("H2O", molecule)
    matrix = MOTIONS["rotoreflection"]
    transform = pyscf_transform(before, matrix)
    after = Structure(before.numbers, before.positions_angstrom @ matrix.T)
    focks = []
    for structure in (before, after):
        mf = dft.RKS(build_mole(structure, "def2-svp"), xc="hf")
        mf.conv_tol = 1e-13
        mf.kernel()
        focks.append(mf.get_fock())
    assert np.abs(transform @ focks[0] @ transform.T - focks[1]).max() < 1e-6
