"""/v1/initial-guess for crystals: a start in k that obeys the laws of a density with PySCF's own overlap; and refusals."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.numpy
from ase import Atoms
from ase.build import graphene
from pyscf.pbc import gto

from service.app import create_app
from service.settings import Settings
from tests.contract.test_crystals import body_of

CHECKPOINT = Path(__file__).resolve().parents[2] / "checkpoints" / "bcn"
ELECTRONS = 8
ORBITALS = 26
FAR = 3e-3
"""What PySCF's overlap has beyond the model's pairs of 8 Å, as it shows in the orbitals."""
EXACT = 1e-9


def layer() -> Atoms:
    """Two atoms of graphene, one out of its place."""
    atoms = graphene(vacuum=5.0)
    atoms.pbc = (True, True, False)
    atoms.positions[1] += (0.03, -0.02, 0.01)
    return atoms


@pytest.fixture(scope="module")
def both(serve: Any, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A model for molecules, and the shipped one for graphene."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "default").symlink_to(tiny_checkpoint, target_is_directory=True)
    (folder / "bcn").symlink_to(CHECKPOINT, target_is_directory=True)
    settings = Settings(checkpoints=folder, device="cpu", max_k_cost=ORBITALS**3 * 500)
    with serve(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def npz(both: httpx.Client) -> dict[str, Any]:
    reply = both.post("/v1/initial-guess", json=body_of(layer(), kmesh="3x2x1", format_out="npz"))
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-disposition"] == 'attachment; filename="guess.npz"'
    return dict(np.load(io.BytesIO(reply.content), allow_pickle=False))


def test_the_density_in_k_is_one_with_pyscf_s_overlap(npz):
    atoms = layer()
    rows = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True))
    cell = gto.M(a=np.asarray(atoms.cell), atom=rows, basis="gth-dzvp-molopt-sr", unit="Angstrom", verbose=0)
    kpts = cell.make_kpts([3, 2, 1])
    assert np.allclose(npz["kpts"], cell.get_scaled_kpts(kpts), atol=1e-12)
    density, c, occupations = (npz[name] for name in ("dm_kpts", "mo_coeff_kpts", "mo_occ_kpts"))
    assert (density.shape, density.dtype) == ((6, ORBITALS, ORBITALS), np.complex128)
    assert np.abs(density - density.conj().swapaxes(1, 2)).max() < EXACT
    assert np.abs((c * occupations[:, None, :]) @ c.conj().swapaxes(1, 2) - density).max() < EXACT
    overlap = np.array(cell.pbc_intor("int1e_ovlp", hermi=1, kpts=kpts))
    electrons = np.einsum("kij,kji->k", density, overlap).real
    assert np.abs(electrons.mean() - ELECTRONS) < FAR
    assert np.abs(c.conj().swapaxes(1, 2) @ overlap @ c - np.eye(ORBITALS)).max() < FAR
    assert occupations.sum() / 6 == pytest.approx(ELECTRONS, abs=EXACT)
    about = json.loads(bytes(npz["meta"]))
    assert about["meta"]["ao_order"] == "pyscf"
    energies = npz["mo_energy_kpts"]
    middle = (energies[:, ELECTRONS // 2 - 1].max() + energies[:, ELECTRONS // 2].min()) / 2
    assert about["results"]["fermi_energy"] == pytest.approx(middle, abs=EXACT), "K is not on this mesh"


def test_own_points_and_other_formats_give_the_same(both, npz):
    turned = npz["kpts"].tolist()[::-1]
    whole = both.post("/v1/initial-guess", json=body_of(layer(), kpts=turned)).json()["results"]
    listed = np.array(whole["dm_kpts"])
    assert np.abs(listed[..., 0] + 1j * listed[..., 1] - npz["dm_kpts"][::-1]).max() < EXACT
    points = npz["kpts"][[4, 1]].tolist()
    reply = both.post("/v1/initial-guess?format_out=safetensors", json=body_of(layer(), kpts=points))
    some = safetensors.numpy.load(reply.content)
    assert np.abs(some["mo_energy_kpts"] - npz["mo_energy_kpts"][[4, 1]]).max() < EXACT
    assert some["dm_kpts"].shape == (2, ORBITALS, ORBITALS, 2)
    more = both.post("/v1/initial-guess", json=body_of(layer(), kmesh="2x1x1", outputs=["blocks"])).json()
    assert more["results"]["blocks"][0]["shift"] == [0, 0, 0]


def test_a_mesh_that_nobody_chose_is_said(both):
    answer = both.post("/v1/initial-guess", json=body_of(layer())).json()
    assert "kmesh=12x12x1" in answer["defaults_applied"]
    assert len(answer["results"]["kpts"]) == 144


@pytest.mark.parametrize(
    ("options", "status", "code", "field"),
    [
        ({"kmesh": "2x2x1", "kpts": [[0, 0, 0]]}, 422, "invalid_request", "kpts"),
        ({"kpts": [[0, 0, 0.5]]}, 422, "invalid_request", "kpts"),
        ({"kpts": []}, 422, "invalid_request", "kpts"),
        ({"kmesh": "3x3x3"}, 422, "invalid_request", "kmesh"),
        ({"kmesh": "40x40x1"}, 413, "too_many_k_points", "kmesh"),
        ({"outputs": ["mo_coeff"]}, 422, "invalid_request", "outputs"),
        ({"format_out": "chk"}, 422, "invalid_request", "format_out"),
        ({"format_out": "abacus"}, 422, "unsupported_basis", "format_out"),
    ],
)
def test_what_cannot_be_started_from_is_refused(both, options, status, code, field):
    reply = both.post("/v1/initial-guess", json=body_of(layer(), **options))
    problem = reply.json()
    assert (reply.status_code, problem["code"], problem["field"]) == (status, code, field), problem
    assert problem.get("hint") or problem.get("allowed") or options == {"kpts": []}


def test_k_points_of_a_molecule_are_refused(both, water):
    problem = both.post("/v1/initial-guess", json={**water, "kpts": [[0, 0, 0]]}).json()
    assert (problem["code"], problem["field"]) == ("invalid_request", "kpts")
