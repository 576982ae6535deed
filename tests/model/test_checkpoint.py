"""A checkpoint that is not exactly what its card says is refused, and the error says what to do."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.checkpoint import store
from model.checkpoint.golden import golden_molecules, golden_record
from model.checkpoint.self_test import self_test
from model.errors import CheckpointError, DomainError, UnsupportedElementError, UnsupportedPeriodicityError
from model.predictor import Predictor
from model.structure import Structure


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint, folder)
    return folder


def edit_card(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / store.CARD).read_text())
    change(card)
    (folder / store.CARD).write_text(json.dumps(card))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights and put the right hash into the card: only the contents are wrong."""
    tensors = load_file(folder / store.WEIGHTS)
    change(tensors)
    save_file(tensors, folder / store.WEIGHTS)
    edit_card(folder, lambda card: card.update(weights_sha256=store.sha256_of(folder / store.WEIGHTS)))


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Predictor.load(folder)
    assert str(folder.parent) not in str(caught.value), "no server path in a message"
    return str(caught.value)


def test_a_good_one_loads(copy: Path) -> None:
    assert Predictor.load(copy).card.name == "tiny"


def test_missing_folder_and_files(copy: Path) -> None:
    assert "no checkpoint folder" in refused(copy.parent / "nothing")
    (copy / store.GOLDEN).unlink()
    assert "golden.json" in refused(copy)
    (copy / store.WEIGHTS).unlink()
    assert "weights.safetensors" in refused(copy)
    (copy / store.CARD).unlink()
    assert "training release" in refused(copy)


def test_one_flipped_bit(copy: Path) -> None:
    data = bytearray((copy / store.WEIGHTS).read_bytes())
    data[-5] ^= 1
    (copy / store.WEIGHTS).write_bytes(bytes(data))
    message = refused(copy)
    assert "SHA-256" in message
    assert "copy the checkpoint folder again" in message


def test_other_format_version(copy: Path) -> None:
    edit_card(copy, lambda card: card.update(format_version=99))
    assert "format version 99" in refused(copy)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda card: card.pop("xc"), "xc"),
        (lambda card: card.update(surprise=1), "surprise"),
        (lambda card: card["basis"].update(order="molpro"), "molpro"),
        (lambda card: card["units"].update(length="bohr"), "units.length"),
        (lambda card: card.update(name="../../etc"), "name"),
        (lambda card: card["architecture"].update(backbone="resnet"), "resnet"),
        (lambda card: card["architecture"]["qhnet"].update(colour=3), "colour"),
        (lambda card: card["architecture"]["tracegrad"].update(mode="maybe"), "maybe"),
        (lambda card: card.update(kinetic_damping=2.0), "kinetic_damping"),
        (lambda card: card.update(format_version=5, kinetic_damping=0.02), "they compute no kinetic energy"),
    ],
)
def test_card_that_does_not_read(copy: Path, change: Callable[[dict[str, Any]], None], expected: str) -> None:
    edit_card(copy, change)
    assert expected in refused(copy)


def set_shells(symbol: str, shells: list[int]) -> Callable[[dict[str, Any]], None]:
    return lambda card: card["basis"]["shells"].update({symbol: shells})


def set_network(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda card: card["architecture"]["qhnet"].update({name: value})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_shells("H", [0] * 10**5), "basis.shells.H"),
        (set_shells("H", [1000]), "basis.shells.H"),
        (set_shells("H", []), "basis.shells.H"),
        (set_shells("Xx", [0]), "basis.shells.Xx"),
        (lambda card: card.update(elements=[0]), "elements"),
        (lambda card: card.update(charges=[10**30]), "charges"),
        (lambda card: card.update(pair_cutoffs_angstrom={"H-H": 1e9}), "pair_cutoffs_angstrom"),
        (lambda card: card.update(pair_cutoffs_angstrom={"H-H": -1.0}), "pair_cutoffs_angstrom"),
        (lambda card: card.update(version="1." + "9" * 500 + ".0"), "version"),
        (lambda card: card["reference"].update(overlap_damping=1e300), "overlap_damping"),
        (lambda card: card["largest_tested"].update(atoms=-1), "largest_tested"),
        (lambda card: card.update(format_version="9" * 10**5), "format version"),
        (set_network("node_channels", 10**6), "qhnet.node_channels"),
        (set_network("radial_size", 10**9), "qhnet.radial_size"),
        (set_network("node_layers", 10**5), "qhnet.node_layers"),
        (set_network("node_lmax", 60), "qhnet.node_lmax"),
        (set_network("cutoff_angstrom", 1e9), "qhnet.cutoff_angstrom"),
        (set_network("cutoff_angstrom", -1), "qhnet.cutoff_angstrom"),
        (set_network("cutoff_angstrom", float("nan")), "qhnet.cutoff_angstrom"),
        (set_network("hidden", "64"), "qhnet.hidden"),
        (set_network("hidden", True), "qhnet.hidden"),
        (set_network("hidden", 4096), "more parameters than are stored"),
        (lambda card: card["architecture"].update(qhnet=[1]), "qhnet"),
        (lambda card: card["architecture"].update(backbone=["qhnet"]), "qhnet"),
    ],
)
def test_absurd_values_are_refused_by_name_and_in_time(
    copy: Path, change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    edit_card(copy, change)
    began = time.monotonic()
    message = refused(copy)
    assert expected in message
    assert len(message) < 1000, "what was found is not repeated at any length"
    assert time.monotonic() - began < 5.0


def test_files_of_absurd_size_or_depth_are_not_read(copy: Path) -> None:
    card = (copy / store.CARD).read_text()
    (copy / store.CARD).write_text("[" * 10**5)
    assert "cannot be read" in refused(copy)
    with (copy / store.CARD).open("wb") as file:
        file.truncate(2**34)  # holes: no disk is filled
    assert "at most 1048576 bytes" in refused(copy)
    (copy / store.CARD).write_text(card)
    golden = json.loads((copy / store.GOLDEN).read_text())
    (copy / store.GOLDEN).write_text(json.dumps({**golden, "structures": golden["structures"] * 100}))
    assert "at most 32 structures" in refused(copy)
    entry = golden["structures"][0] | {
        "numbers": [1] * 5000,
        "positions_angstrom": [[0.0, 0.0, 1.0 * k] for k in range(5000)],
    }
    (copy / store.GOLDEN).write_text(json.dumps({**golden, "structures": [entry]}))
    assert "more than 1000 atoms" in refused(copy)
    (copy / store.GOLDEN).unlink()
    os.mkfifo(copy / store.GOLDEN)
    assert "no regular file" in refused(copy)


def test_card_that_is_not_json(copy: Path) -> None:
    (copy / store.CARD).write_text("{")
    assert "cannot be read" in refused(copy)
    (copy / store.CARD).write_text("[1]")
    assert "format version None" in refused(copy)


def test_missing_extra_and_misshapen_tensors(copy: Path) -> None:
    name = "network/backbone.pair_read_out.scale"
    edit_weights(copy, lambda tensors: tensors.pop(name))
    assert f"missing {name}" in refused(copy)
    edit_weights(copy, lambda tensors: tensors.update({name: torch.zeros(2), "network/more": torch.zeros(1)}))
    message = refused(copy)
    assert "not expected network/more" in message
    assert f"another shape {name}" in message


def test_older_names_of_tensors_are_read(copy: Path) -> None:
    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "_read_out." in name]:
            tensors[name.replace("backbone.", "")] = tensors.pop(name)

    edit_weights(copy, rename)
    Predictor.load(copy)


def test_weights_that_are_not_finite_or_not_safetensors(copy: Path) -> None:
    edit_weights(copy, lambda tensors: tensors["network/backbone.pair_read_out.scale"].fill_(float("nan")))
    assert "not finite" in refused(copy)
    (copy / store.WEIGHTS).write_bytes(b"\x80\x04\x95pickle?")
    edit_card(copy, lambda card: card.update(weights_sha256=store.sha256_of(copy / store.WEIGHTS)))
    assert "not a safetensors file" in refused(copy)


def test_other_basis_data(copy: Path) -> None:
    edit_card(copy, lambda card: card["basis"].update(fingerprint="0" * 64))
    assert "not the one that the checkpoint was made with" in refused(copy)


def test_golden_numbers_are_compared(copy: Path) -> None:
    golden = json.loads((copy / store.GOLDEN).read_text())
    golden["structures"][0]["orbital_energies"][4] += 1e-3
    (copy / store.GOLDEN).write_text(json.dumps(golden))
    assert "does not reproduce its stored answer for water" in refused(copy)


def test_no_pickle_in_a_checkpoint(tiny_checkpoint: Path) -> None:
    assert sorted(path.name for path in tiny_checkpoint.iterdir()) == [store.CARD, store.GOLDEN, store.WEIGHTS]
    for path in tiny_checkpoint.iterdir():
        assert path.read_bytes()[:2] != b"\x80\x04"


def test_domain(tiny_checkpoint: Path, molecule: Callable[[str], Structure]) -> None:
    predictor = Predictor.load(tiny_checkpoint)
    with pytest.raises(UnsupportedElementError, match="does not know S"):
        predictor.predict([molecule("SH2")])
    water = molecule("H2O")
    with pytest.raises(DomainError, match="Charge 2"):
        predictor.predict([Structure(water.numbers, water.positions_angstrom, charge=2)])
    with pytest.raises(DomainError, match="Multiplicity 3"):
        predictor.predict([Structure(water.numbers, water.positions_angstrom, multiplicity=3)])
    periodic = Structure(water.numbers, water.positions_angstrom, cell_angstrom=10 * np.eye(3), pbc=(True, True, True))
    with pytest.raises(UnsupportedPeriodicityError):
        predictor.predict([periodic])


def test_prediction_has_what_it_promises(tiny_checkpoint: Path, molecule: Callable[[str], Structure]) -> None:
    predictor = Predictor.load(tiny_checkpoint)
    small, large = predictor.predict([molecule("H2O"), molecule("C6H6")])
    assert small.in_domain
    assert not small.warnings
    assert small.ao_labels[0] == "0 O 1s"
    assert small.atom_offsets == (0, 14, 19, 24)
    assert small.block(0, 1).shape == (14, 5)
    assert np.array_equal(small.block(0, 1), small.hamiltonian[:14, 14:19])
    assert small.checks is not None
    assert small.checks.ok
    assert not large.in_domain
    assert "6 heavy atoms" in large.warnings[0]
    bare = predictor.predict([molecule("H2O")], orbitals=False)[0]
    assert bare.orbitals is None
    assert bare.guess is None
    assert (
        np.array_equal(bare.hamiltonian, small.hamiltonian) or np.abs(bare.hamiltonian - small.hamiltonian).max() < 1e-5
    )


def test_a_checkpoint_for_anions_loads(copy: Path) -> None:
    """Its golden molecule has the charge that the card asks for, and so has everything that is made of it."""
    edit_card(copy, lambda card: card.update(charges=[-1], elements=[1, 6, 7, 8, 9]))
    assert "Charge 0" in refused_as_domain(copy), "the neutral golden molecule is not in the domain of the card"
    molecules = golden_molecules([1, 6, 7, 8, 9], [-1], [1])
    assert list(molecules) == ["hydroxide"]
    assert molecules["hydroxide"].n_electrons == 10
    store.save_json(copy / store.GOLDEN, golden_record(Predictor.load(copy, verify_golden=False), molecules))
    predictor = Predictor.load(copy)
    assert predictor.checkpoint.golden["structures"][0]["charge"] == -1
    assert {item.motion for item in self_test(predictor, predictor.checkpoint.golden)} >= {"rotation", "permutation"}
    orbitals = predictor.predict([molecules["hydroxide"]])[0].orbitals
    assert orbitals is not None
    assert orbitals.occupations.sum() == 10.0


def refused_as_domain(folder: Path) -> str:
    with pytest.raises(DomainError) as caught:
        Predictor.load(folder)
    return str(caught.value)


def test_golden_molecules_are_in_the_domain() -> None:
    for charge in (-2, -1, 0, 1, 2):
        found = golden_molecules([1, 6, 7, 8, 9, 16], [charge], [1])
        assert found
        assert all(structure.charge == charge for structure in found.values())
    assert not golden_molecules([1], [0], [1])
