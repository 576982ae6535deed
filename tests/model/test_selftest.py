"""Sound checkpoints pass the self-test; of an unsound one it names the law that breaks. PySCF is the oracle of motions."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.architectures.registry import ARCHITECTURES
from model.blocks.motions import orbital_representation
from model.checkpoint import self_test as self_tests
from model.checkpoint import store
from model.checkpoint.self_test import ENERGY_TOLERANCE_HARTREE, HAMILTONIAN_TOLERANCE_HARTREE
from model.errors import CheckpointError
from model.integrals.pyscf_molecule import build_mole
from model.predictor import Prediction, Predictor
from model.structure import Structure
from tests.conftest import make_tiny_checkpoint
from tests.laws.oracle import pyscf_transform
from tests.laws.systems import MOTIONS, shaken

ALL = {"rotation", "reflection", "translation", "permutation"}


def self_test(predictor: Any, seed: int = 0) -> list[self_tests.Deviation]:
    return self_tests.self_test(predictor, predictor.checkpoint.golden, seed=seed)


class Spoilt:
    """A sound predictor whose Hamiltonians have something added, hartree: a number for each structure."""

    def __init__(self, inner: Predictor, error: Callable[[Structure], float]) -> None:
        self._inner = inner
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def predict(self, structures: Sequence[Structure], *, orbitals: bool = True) -> list[Prediction]:
        return [
            dataclasses.replace(
                prediction, hamiltonian=prediction.hamiltonian + self._error(prediction.structure) * prediction.overlap
            )
            for prediction in self._inner.predict(structures, orbitals=orbitals)
        ]


def centred(structure: Structure) -> NDArray[np.float64]:
    return structure.positions_angstrom - structure.positions_angstrom.mean(axis=0)


def handedness(structure: Structure) -> float:
    """A pseudoscalar: the same for turned, moved and reordered atoms, the negative in the mirror."""
    positions = centred(structure)
    lengths = np.linalg.norm(positions, axis=1)
    vectors = [(structure.numbers * lengths**power) @ positions for power in (0, 1, 3)]
    return float(np.linalg.det(np.array(vectors)))


SPOILERS: dict[str, Callable[[Structure], float]] = {
    "rotation": lambda structure: 1e-2 * float(np.abs(centred(structure)[:, 0]).sum()),
    "reflection": lambda structure: 1e-2 * handedness(structure),
    "translation": lambda structure: 1e-2 * float(np.linalg.norm(structure.positions_angstrom.mean(axis=0))),
    "permutation": lambda structure: 1e-2 * float(np.linalg.norm(centred(structure)[0])),
}


@pytest.mark.parametrize("motion", list(MOTIONS))
def test_aos_transform_as_pyscf_says(motion: str, molecule: Callable[[str], Structure], released: Predictor) -> None:
    before = shaken("CH3CH2OH")
    transform = orbital_representation(released.space, before.numbers, MOTIONS[motion])
    assert np.abs(transform - pyscf_transform(before, MOTIONS[motion])).max() < 1e-9
    after = Structure(before.numbers, before.positions_angstrom @ MOTIONS[motion].T)
    old, new = (build_mole(structure, "def2-svp").intor("int1e_ovlp") for structure in (before, after))
    assert np.abs(transform @ old @ transform.T - new).max() < 1e-11


def test_sound_checkpoints_pass_every_motion(released: Predictor, tiny_checkpoint: Path) -> None:
    for predictor in (released, Predictor.load(tiny_checkpoint)):
        deviations = self_test(predictor)
        golden = {entry["name"] for entry in predictor.checkpoint.golden["structures"]}
        assert {(item.motion, item.structure) for item in deviations} == {(m, g) for m in ALL for g in golden}
        worst = max(item.hamiltonian for item in deviations)
        # float32 shows, and stays an order of magnitude away from the limit
        assert 0.0 < worst < 0.1 * HAMILTONIAN_TOLERANCE_HARTREE
        assert max(item.energy for item in deviations) < 0.1 * ENERGY_TOLERANCE_HARTREE


@pytest.mark.parametrize("motion", list(SPOILERS))
def test_a_broken_law_is_named(motion: str, released: Predictor) -> None:
    spoilt: Any = Spoilt(released, SPOILERS[motion])
    with pytest.raises(CheckpointError, match=f"not equivariant: after a {motion} of") as caught:
        self_test(spoilt)
    assert "hartree" in str(caught.value)
    assert "do not serve it" in str(caught.value)


def test_the_tolerance_decides(released: Predictor) -> None:
    """An error that changes by a known amount when the molecule moves away from the origin."""

    def away(limit: float) -> Any:
        return Spoilt(
            released, lambda structure: limit * float(np.abs(structure.positions_angstrom.mean(axis=0)).max() > 0.7)
        )

    # water and fluoromethanimine lie at the origin, and a rotation leaves them near it; the overlap's largest entry is 1
    self_test(away(0.5 * HAMILTONIAN_TOLERANCE_HARTREE))
    with pytest.raises(CheckpointError, match="translation"):
        self_test(away(2.0 * HAMILTONIAN_TOLERANCE_HARTREE))


def test_motions_come_from_the_seed(released: Predictor) -> None:
    first, again, other = (self_test(released, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_network_without_mirror_symmetry_by_design_is_not_asked_for_it(tmp_path: Path) -> None:
    predictor = Predictor.load(make_tiny_checkpoint(tmp_path / "strict", ARCHITECTURES["qhnet_published"].tiny))
    assert {item.motion for item in self_test(predictor)} == ALL - {"reflection"}


def test_without_a_golden_molecule_nothing_can_be_shown(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_checkpoint, folder)
    (folder / store.GOLDEN).write_text(json.dumps({"energy_unit": "hartree", "structures": []}))
    with pytest.raises(CheckpointError, match="no golden structure"):
        self_test(Predictor.load(folder))
