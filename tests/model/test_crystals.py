"""Crystals through the whole model: preparation, network, H(R), bands; and a checkpoint made for them. PySCF gives S(R)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import graphene
from safetensors.torch import load_file, save_file

from model.architectures.qhnetv2.tiny import TINY
from model.blocks.block_set import BlockSet
from model.blocks.motions import unfold
from model.checkpoint import store
from model.checkpoint.golden import golden_record
from model.checkpoint.self_test import self_test
from model.electronic.bands import band_energies
from model.errors import CheckpointError, IntegralError, UnsupportedPeriodicityError
from model.hamiltonian_model import HamiltonianModel
from model.integrals.pyscf_crystal import PySCFCrystal
from model.integrals.pyscf_molecule import load_basis
from model.integrals.two_centre_fit import fit_two_centre
from model.integrals.two_centre_tables import TwoCentreTables
from model.network_config import NetworkConfig
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.predictor import Predictor
from model.preparation import PairRule
from model.structure import Structure

FLOAT32_TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-10
INTERPOLATED = 1e-6
"""Predictions with overlaps of tables, hartree."""
CUTOFFS = {"B-B": 4.0, "B-N": 4.5, "N-N": 4.0}


def structure_of(atoms: Atoms) -> Structure:
    return Structure(
        atoms.numbers, atoms.positions, cell_angstrom=np.asarray(atoms.cell), pbc=tuple(atoms.pbc.tolist())
    )


def sheet(seed: int = 2) -> Atoms:
    """A shaken monolayer of boron nitride; the vacuum is no periodic direction."""
    atoms = graphene("BN", a=2.50, vacuum=5.0)
    atoms.pbc = (True, True, False)
    atoms.rattle(0.05, seed=seed)
    return atoms


def space() -> OrbitalSpace:
    loaded = load_basis("gth-szv", [5, 7])
    return OrbitalSpace("gth-szv", loaded.shells, loaded.fingerprint, "pyscf", {5: 3, 7: 5})


def architecture(n_inputs: int) -> dict[str, Any]:
    sizes: Mapping[str, Any] = TINY["qhnetv2"]  # type: ignore[assignment]
    return {**TINY, "qhnetv2": {**sizes, "n_inputs": n_inputs, "cutoff_angstrom": 5.0}}


def two_centre_tables() -> TwoCentreTables:
    """Fitted to PySCF's overlaps of eight shaken sheets, which end a little behind the pairs of the model."""
    overlaps = []
    for seed in range(8):
        structure = structure_of(sheet(seed))
        pairs = PairList.within(structure, 5.5)
        overlap = PySCFCrystal(space()).integrals(structure, pairs, {}).overlap
        assert isinstance(overlap, BlockSet)
        overlaps.append(overlap)
    return fit_two_centre(overlaps)[0]


def write_checkpoint(folder: Path, source: str = "pyscf_crystal") -> Path:
    folder.mkdir()
    torch.manual_seed(5)
    inputs = [] if source == "none" else ["overlap"]
    config = NetworkConfig.from_mapping(architecture(len(inputs)))
    tables = two_centre_tables() if source == "two_centre" else None
    model = HamiltonianModel(config, space(), inputs=inputs, source=source, pairs=PairRule(CUTOFFS), tables=tables)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "read_out.linear.weights" in name:  # they start at zero
                weight.copy_(0.1 * torch.randn(weight.shape))
    card = store.load(Path(__file__).resolve().parents[2] / "checkpoints" / "default").card.model_dump()
    basis = model.space
    card |= {
        "name": "bn",
        "description": "random weights, for tests",
        "architecture": config.to_mapping(),
        "elements": [5, 7],
        "basis": {
            "name": basis.name,
            "shells": {"B": list(basis.shells[5]), "N": list(basis.shells[7])},
            "fingerprint": basis.fingerprint,
            "order": basis.order,
            "valence": {"B": 3, "N": 5},
        },
        "periodic": True,
        "inputs": inputs,
        "integrals": source,
        "pair_cutoffs_angstrom": CUTOFFS,
        "target": "hamiltonian",
        "metrics": {},
        "weights_sha256": store.save_weights(folder / store.WEIGHTS, model),
    }
    card["reference"] |= {"kind": "none", "overlap_damping": 0.0}
    store.save_json(folder / store.CARD, card)
    store.save_json(folder / store.GOLDEN, {"energy_unit": "hartree", "structures": []})
    if source != "given":
        predictor = Predictor.load(folder, verify_golden=False)
        store.save_json(folder / store.GOLDEN, golden_record(predictor, {"h-BN": structure_of(sheet())}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("crystal") / "bn")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor.load(folder, dtype=torch.float64)


def test_it_loads_answers_and_passes_its_self_test(folder: Path) -> None:
    predictor = Predictor.load(folder)
    deviations = self_test(predictor, predictor.checkpoint.golden)
    assert {item.motion for item in deviations} == {"rotation", "reflection", "translation", "permutation"}
    assert 0.0 < max(item.hamiltonian for item in deviations) < FLOAT32_TOLERANCE


def test_wrong_golden_norms_are_refused(folder: Path) -> None:
    predictor = Predictor.load(folder)
    predictor.checkpoint.golden["structures"][0]["block_norms"][3] += 1e-3
    with pytest.raises(CheckpointError, match="block norms differ by 1"):
        predictor.verify_golden()


def test_blocks_end_where_the_card_says(predictor: Predictor) -> None:
    blocks = predictor.predict_crystals([structure_of(sheet())])[0].hamiltonian
    kinds = np.sort(np.stack([blocks.numbers[blocks.pairs.first], blocks.numbers[blocks.pairs.second]]), axis=0)
    longest = np.array([4.5 if pair[0] != pair[1] else 4.0 for pair in kinds.T])
    assert (blocks.pairs.distances_angstrom < longest).all()
    assert blocks.hermitian_error() == 0.0
    assert np.abs(blocks.values).min() >= 0.0
    assert all(np.abs(block).max() > 1e-8 for block in blocks)


def test_a_supercell_is_the_cell(predictor: Predictor) -> None:
    atoms = sheet()
    small, large = predictor.predict_crystals([structure_of(atoms), structure_of(atoms.repeat((2, 3, 1)))])
    expected = unfold(small.hamiltonian, (2, 3, 1))
    assert np.array_equal(expected.pairs.keys, large.hamiltonian.pairs.keys)
    assert np.abs(expected.values - large.hamiltonian.values).max() < FLOAT64_TOLERANCE


def test_batch_is_single_and_wrapping_atoms_relabels(predictor: Predictor) -> None:
    one, other = sheet(1), sheet(2).repeat((2, 1, 1))
    together = predictor.predict_crystals([structure_of(one), structure_of(other)])
    for atoms, prediction in zip((one, other), together, strict=True):
        alone = predictor.predict_crystals([structure_of(atoms)])[0]
        assert np.abs(alone.hamiltonian.values - prediction.hamiltonian.values).max() < FLOAT64_TOLERANCE
    moved = one.copy()
    moved.positions[0] += 2 * np.asarray(one.cell)[0] - np.asarray(one.cell)[1]
    away = predictor.predict_crystals([structure_of(moved)])[0].hamiltonian
    assert np.abs(np.sort(away.values) - np.sort(together[0].hamiltonian.values)).max() < FLOAT64_TOLERANCE


def test_bands_need_nothing_but_the_structure(predictor: Predictor) -> None:
    prediction = predictor.predict_crystals([structure_of(sheet())])[0]
    overlap = prediction.integrals.overlap
    assert isinstance(overlap, BlockSet)
    bands = band_energies(
        prediction.hamiltonian, overlap, [[0.0, 0.0, 0.0], [1 / 3, 1 / 3, 0.0], [-1 / 3, -1 / 3, 0.0]]
    )
    assert bands.energies.shape == (1, 3, 8)
    assert np.abs(bands.energies[0, 1] - bands.energies[0, 2]).max() < FLOAT64_TOLERANCE, "E(k) = E(-k) of real H(R)"
    assert predictor.space.count_electrons(prediction.structure.numbers) == 8


def test_caller_brings_the_overlap(tmp_path: Path, predictor: Predictor) -> None:
    """The same weights with S given in another program's order predict the same H(R)."""
    structure = structure_of(sheet())
    computed = predictor.predict_crystals([structure])[0]
    given = Predictor.load(write_checkpoint(tmp_path / "given", "given"), dtype=torch.float64)
    overlap = computed.integrals.overlap
    assert isinstance(overlap, BlockSet)
    brought = given.predict_crystals([structure], [{"overlap": overlap.in_order("siesta")}])[0]
    assert np.abs(brought.hamiltonian.values - computed.hamiltonian.values).max() < FLOAT64_TOLERANCE
    with pytest.raises(IntegralError, match="Send the overlap blocks"):
        given.predict_crystals([structure])
    other = overlap.with_values(overlap.values)
    with pytest.raises(IntegralError, match="other atoms"):
        given.predict_crystals([structure_of(sheet().repeat((2, 1, 1)))], [{"overlap": other}])


def test_two_centre_tables_come_with_the_checkpoint(tmp_path: Path, predictor: Predictor) -> None:
    """The same weights with S from tables predict the same H(R); the self-test passes; what was not fitted is said."""
    folder = write_checkpoint(tmp_path / "tables", "two_centre")
    loaded = Predictor.load(folder)
    assert max(item.hamiltonian for item in self_test(loaded, loaded.checkpoint.golden)) < FLOAT32_TOLERANCE
    exact = Predictor.load(folder, dtype=torch.float64)
    structure = structure_of(sheet(3))
    computed, found = (one.predict_crystals([structure])[0] for one in (predictor, exact))
    assert np.abs(computed.hamiltonian.values - found.hamiltonian.values).max() < INTERPOLATED
    assert found.warnings == computed.warnings
    for k in ([0.0, 0.0, 0.0], [1 / 3, 1 / 3, 0.0]):
        bands = [band_energies(one.hamiltonian, one.integrals.overlap, [k]) for one in (computed, found)]  # type: ignore[arg-type]
        assert np.abs(bands[0].energies - bands[1].energies).max() < 10 * INTERPOLATED
        assert bands[1].smallest_overlap.min() > 0.0
    stretched = sheet(3)
    stretched.set_cell(np.asarray(stretched.cell) * np.array([[1.12], [1.12], [1.0]]), scale_atoms=True)
    warned = exact.predict_crystals([structure_of(stretched)])[0]
    assert warned.in_domain == found.in_domain
    assert any("overlaps of B-N" in sentence and "interpolated" in sentence for sentence in warned.warnings)
    pressed = sheet(3)
    pressed.set_cell(np.asarray(pressed.cell) * np.array([[0.8], [0.8], [1.0]]), scale_atoms=True)
    with pytest.raises(IntegralError, match=r"B-B atoms are 2\.000 Å apart; the two-centre tables begin at 2\.5"):
        exact.predict_crystals([structure_of(pressed)])


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("B-N/coefficients", (40, 3), "needs"),
        ("B-N/covered", None, "is missing"),
        ("N/on_site", (3,), "needs"),
        ("C-N/grid", (2,), "'C-N/grid' was not expected"),
    ],
)
def test_tables_of_another_basis_are_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...] | None, message: str
) -> None:
    folder = write_checkpoint(tmp_path / "tables", "two_centre")
    tensors = load_file(folder / store.WEIGHTS)
    if shape is None:
        del tensors[f"integrals/{name}"]
    else:
        tensors[f"integrals/{name}"] = torch.zeros(shape, dtype=torch.float64)
    save_file(tensors, folder / store.WEIGHTS)
    card = json.loads((folder / store.CARD).read_text())
    store.save_json(folder / store.CARD, card | {"weights_sha256": store.sha256_of(folder / store.WEIGHTS)})
    with pytest.raises(CheckpointError, match=message):
        store.load(folder)


def test_a_network_may_read_nothing(tmp_path: Path) -> None:
    blind = Predictor.load(write_checkpoint(tmp_path / "blind", "none"))
    prediction = blind.predict_crystals([structure_of(sheet())])[0]
    assert np.abs(prediction.hamiltonian.values).max() > 1e-3
    with pytest.raises(IntegralError):
        _ = prediction.integrals.overlap


def test_molecules_and_crystals_go_to_their_own_models(predictor: Predictor, released: Predictor) -> None:
    molecule = Structure.from_symbols(["B", "N"], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]])
    with pytest.raises(UnsupportedPeriodicityError, match="is for crystals"):
        predictor.predict_crystals([molecule])
    with pytest.raises(UnsupportedPeriodicityError, match="is for molecules"):
        released.predict([structure_of(sheet())])


def test_parts_that_do_not_fit_are_refused() -> None:
    config = NetworkConfig.from_mapping(architecture(1))
    with pytest.raises(CheckpointError, match="reads 1 known matrices, but 0"):
        HamiltonianModel(config, space(), inputs=[], source="none")
    with pytest.raises(CheckpointError, match="has none"):
        HamiltonianModel(config, space(), inputs=["density"], source="pyscf_crystal")
    with pytest.raises(CheckpointError, match="'guess'"):
        HamiltonianModel(config, space(), inputs=["guess"])
    with pytest.raises(CheckpointError, match="needs tables"):
        HamiltonianModel(config, space(), inputs=["overlap"], source="two_centre")
    tables = two_centre_tables()
    with pytest.raises(CheckpointError, match="of no use to the source 'given'"):
        HamiltonianModel(config, space(), inputs=["overlap"], source="given", tables=tables)
    other = OrbitalSpace("other", {5: (0, 0, 1), 7: (0, 1)})
    with pytest.raises(CheckpointError, match=r"shells \(0, 1\) for B; the basis has \(0, 0, 1\)"):
        HamiltonianModel(config, other, inputs=["overlap"], source="two_centre", tables=tables)
    more = OrbitalSpace("more", {1: (0,), 5: (0, 1), 7: (0, 1)})
    with pytest.raises(CheckpointError, match="fitted to structures without H"):
        HamiltonianModel(config, more, inputs=["overlap"], source="two_centre", tables=tables)
    with pytest.raises(CheckpointError, match="'siesta' is not known"):
        HamiltonianModel(config, space(), inputs=["overlap"], source="siesta")
