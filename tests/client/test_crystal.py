"""Crystals through the client, against the service itself: matrices at k, sisl's eigenvalues, files, and refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from ase import Atoms
from ase.io import write
from local_server import local_server
from pyscf.pbc import gto

from model.blocks.matrices import BlochSum
from model.predictor import Predictor
from model.structure import Structure
from tests.model.test_crystals import sheet, write_checkpoint
from tracegrad_client import AsyncClient, Client, Crystal, InvalidAnswerError, InvalidInputError, UnsupportedError
from tracegrad_client.cli import main
from tracegrad_client.crystal import read_crystal
from tracegrad_client.energies import EV_PER_HARTREE
from tracegrad_client.structure import as_molecule
from tracegrad_client.wire import Tensors

K_POINTS = [(0.0, 0.0, 0.0), (0.21, -0.13, 0.0), (1 / 3, 1 / 3, 0.0)]
SAME_HARTREE = 2e-5
"""A forward pass in float32, twice."""
SISL_EV = 1e-8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    write_checkpoint(folder / "bn")
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Iterator[tuple[Client, Crystal]]:
    """The service with a model of sheets of boron nitride, random weights, and its answer for one."""
    settings = {"TRACEGRAD_CHECKPOINTS": str(folder), "OMP_NUM_THREADS": "1", "TRACEGRAD_DEVICE": "cpu"}
    with local_server(environment=settings) as url, Client(url) as client:
        yield client, client.crystal(sheet())


def test_matrices_at_k_are_the_model_s(found: tuple[Client, Crystal], folder: Path) -> None:
    atoms, crystal = sheet(), found[1]
    pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
    structure = Structure(atoms.numbers, atoms.positions, cell_angstrom=np.asarray(atoms.cell), pbc=pbc)
    (own,) = Predictor.load(folder / "bn", device="cpu").predict_crystals([structure])
    overlap: Any = own.integrals.overlap
    sums = [BlochSum(blocks.in_order("e3nn")) for blocks in (own.hamiltonian, overlap)]
    for k in K_POINTS:
        for mine, theirs in zip(crystal.at(k), (matrix(k) for matrix in sums), strict=True):
            assert np.abs(mine - theirs).max() < SAME_HARTREE
            assert np.abs(mine - mine.conj().T).max() < 1e-12
        assert np.abs(crystal.energies(k) - scipy.linalg.eigvalsh(*crystal.at(k))).max() < 1e-10
    assert crystal.model == "bn"
    assert crystal.ao_labels[0] == "0 B s1"


def test_bands_and_dos_are_those_of_the_matrices(found: tuple[Client, Crystal]) -> None:
    client, crystal = found
    points = [list(k) for k in K_POINTS]
    bands = client.bands(sheet(), kpts=points, kmesh="6x6x1", unit="hartree")
    assert np.allclose(bands.energies, [crystal.energies(k) for k in K_POINTS], atol=SAME_HARTREE)
    named = client.bands(sheet(), path="GMK", npoints=20, kmesh="6x6x1", window_ev=(-30.0, 5.0))
    assert [label for _, label in named.labels] == ["G", "M", "K"]
    assert (named.unit, named.model, len(named.kpts)) == ("eV", "bn", len(named.distances))
    assert named.gap is not None
    assert named.is_metal is (named.gap == 0)
    distances = np.abs(named.energies[0][:, None] - bands.energies[0] * EV_PER_HARTREE)
    assert distances.min(axis=1).max() < 1e-3, "at Gamma, those that enter the window"
    dos = client.dos(sheet(), kmesh="6x6x1", window_ev=(-60.0, 3.0))
    inside = np.searchsorted(dos.energies, dos.fermi_energy)
    assert dos.integrated[inside] == pytest.approx(8.0, abs=0.3), "the valence electrons, smeared"
    assert len(named.plot().lines) > len(named.energies.T)
    assert len(dos.plot().lines) == 2
    with pytest.raises(InvalidInputError, match="no periodic direction"):
        client.bands(Atoms("BN", [[0, 0, 0], [0, 0, 1.4]]))
    with pytest.raises(ValueError, match="unit"):
        client.dos(sheet(), unit="Ry")  # type: ignore[arg-type]


def test_the_other_client_gets_the_same_by_awaiting(found: tuple[Client, Crystal], tmp_path: Path) -> None:
    client, crystal = found
    points = [list(k) for k in K_POINTS]
    write(tmp_path / "POSCAR", sheet(), format="vasp")

    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(client.base_url) as other:
            return await asyncio.gather(
                other.crystal(sheet()),
                other.crystal_guess(sheet(), kpts=points),
                other.bands(sheet(), kpts=points, kmesh="6x6x1", unit="hartree"),
                other.dos(sheet(), kmesh="3x3x1"),
                other.levels_of_file("bands", "POSCAR", (tmp_path / "POSCAR").read_bytes(), format_out="png"),
            )

    theirs, guess, bands, dos, picture = asyncio.run(ask())
    assert np.array_equal(theirs.pairs, crystal.pairs)
    assert np.abs(theirs.hamiltonian - crystal.hamiltonian).max() < SAME_HARTREE
    expected = [crystal.energies(k) for k in K_POINTS]
    assert np.allclose(guess.mo_energy_kpts, expected, atol=SAME_HARTREE)
    assert np.allclose(bands.energies, expected, atol=SAME_HARTREE)
    assert np.allclose(dos.dos, client.dos(sheet(), kmesh="3x3x1").dos)
    assert picture.body.startswith(b"\x89PNG")

    async def molecule() -> None:
        async with AsyncClient(client.base_url) as other:
            await other.bands(Atoms("BN", [[0, 0, 0], [0, 0, 1.4]]))

    with pytest.raises(InvalidInputError, match="no periodic direction"):
        asyncio.run(molecule())


def test_a_cell_of_pyscf_is_a_crystal_too(found: tuple[Client, Crystal]) -> None:
    client, crystal = found
    atoms = sheet()
    rows = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True))
    cell = gto.M(a=np.asarray(atoms.cell), atom=rows, basis="gth-szv", pseudo="gth-pbe", dimension=2, verbose=0)
    assert client.crystal(cell).fermi_energy == pytest.approx(crystal.fermi_energy, abs=SAME_HARTREE)
    guess = client.crystal_guess(cell, kpts=[list(k) for k in K_POINTS])
    assert np.allclose(guess.mo_energy_kpts, [crystal.energies(k) for k in K_POINTS], atol=SAME_HARTREE)
    assert (guess.n_electrons, guess.basis, guess.model) == (8, "gth-szv", "bn")


@pytest.mark.parametrize(("command", "suffix", "start"), [("bands", "png", b"\x89PNG"), ("dos", "svg", b"<?xml")])
def test_the_commands_draw(
    found: tuple[Client, Crystal], tmp_path: Path, command: str, suffix: str, start: bytes
) -> None:
    write(tmp_path / "POSCAR", sheet(), format="vasp")
    output = tmp_path / f"{command}.{suffix}"
    options = ["--kmesh", "3x3x1", "--window", "-5", "5", "--format", "vasp"]
    assert main([command, str(tmp_path / "POSCAR"), "-o", str(output), "--url", found[0].base_url, *options]) == 0
    assert output.read_bytes().startswith(start)
    with pytest.raises(SystemExit):
        main([command, str(tmp_path / "POSCAR"), "-o", str(tmp_path / "x.cube"), "--url", found[0].base_url])


@pytest.mark.parametrize("ending", ["TSHS", "HSX"])
def test_sisl_has_the_same_bands_and_reads_what_it_wrote(
    found: tuple[Client, Crystal], tmp_path: Path, ending: str
) -> None:
    sisl = pytest.importorskip("sisl")
    crystal = found[1]
    made = crystal.to_sisl()
    path = str(tmp_path / f"bn.{ending}")
    made.write(path)
    again = sisl.get_sile(path).read_hamiltonian()
    for k in K_POINTS:
        expected = (crystal.energies(k) - crystal.fermi_energy) * EV_PER_HARTREE
        for hamiltonian in (made, again):
            assert np.abs(hamiltonian.eigh(k=k) - expected).max() < SISL_EV


def test_a_saved_file_holds_all_of_it(found: tuple[Client, Crystal], tmp_path: Path) -> None:
    crystal = found[1]
    crystal.save(tmp_path / "bn.npz")
    with np.load(tmp_path / "bn.npz", allow_pickle=False) as file:
        assert np.array_equal(file["hamiltonian"], crystal.hamiltonian)
        assert file["ao_labels"].tolist() == list(crystal.ao_labels)
        assert np.allclose(file["cell"], np.asarray(sheet().cell))
        assert float(file["fermi_energy"]) == crystal.fermi_energy


def test_what_is_no_crystal_is_refused(found: tuple[Client, Crystal]) -> None:
    client, crystal = found
    with pytest.raises(InvalidInputError, match="no periodic direction"):
        client.crystal(Atoms("BN", [[0, 0, 0], [0, 0, 1.4]]))
    with pytest.raises(UnsupportedError, match=r".+"):
        client.crystal(Atoms("C2", [[0, 0, 0], [0, 0, 1.4]], cell=[3, 3, 3], pbc=True))
    with pytest.raises(InvalidInputError, match="k-point"):
        crystal.at((0.0, float("nan"), 0.0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pairs": np.array([[0, 0, 0, 0, 2]])}, "beyond"),
        ({"pairs": np.zeros((0, 5), dtype=int)}, "no list of pairs"),
        ({"hamiltonian": np.zeros(3)}, "hamiltonian"),
        ({"overlap": np.full(16, np.nan)}, "not finite"),
        ({"labels": ["0 B s1"]}, "no orbitals"),
        ({"labels": ["0 B s1", "7 N s1"]}, "names no orbital"),
        ({"order": "pyscf"}, "order"),
        ({"level": None}, "Fermi"),
    ],
)
def test_an_answer_that_does_not_fit_is_no_crystal(change: dict[str, Any], reason: str) -> None:
    labels = change.get(
        "labels", [f"{atom} {name}" for atom, z in ((0, "B"), (1, "N")) for name in [f"{z} s1", f"{z} s2"]]
    )
    meta = {"ao_order": change.get("order", "e3nn"), "energy_unit": "hartree", "ao_labels": labels}
    pairs = np.array([[0, 0, 0, i, j] for i in (0, 1) for j in (0, 1)])
    arrays = {"pairs": pairs, "hamiltonian": np.zeros(16), "overlap": np.ones(16)} | {
        name: value for name, value in change.items() if isinstance(value, np.ndarray)
    }
    document = json.loads(json.dumps({"meta": meta, "results": {"fermi_energy": change.get("level", 0.1)}}))
    sent = as_molecule(Atoms("BN", [[0, 0, 0], [0, 0, 1.4]], cell=[3, 3, 3], pbc=True))
    with pytest.raises(InvalidAnswerError, match=reason):
        read_crystal(Tensors(arrays, document), sent)
