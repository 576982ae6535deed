"""``/v1/evaluate``: the caller's converged matrix against the prediction, whatever order and unit it is in."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from pyscf import dft, gto

from model.electronic.solve import solve
from model.orbitals.orders import ORDERS, OrbitalOrder
from model.units import EV_PER_HARTREE

SAME = 1e-6
"""hartree: the service's overlap against PySCF's."""


class Converged:
    """PBE water in the tiny checkpoint's basis; what another program would have of it."""

    def __init__(self, basis: str, positions: list[list[float]], *, cart: bool = False) -> None:
        atoms = list(zip("OHH", positions, strict=True))
        self.mol = gto.M(atom=atoms, basis=basis, cart=cart, verbose=0)
        mf = dft.RKS(self.mol, xc="pbe")
        mf.grids.level = 1
        mf.kernel()
        self.fock, self.overlap = np.asarray(mf.get_fock()), np.asarray(mf.get_ovlp())
        self.energies = np.asarray(mf.mo_energy)

    def shells(self) -> list[int]:
        return [int(self.mol.bas_angular(i)) for i in range(self.mol.nbas) for _ in range(int(self.mol.bas_nctr(i)))]

    def ordered(self, matrix: np.ndarray, order: str) -> np.ndarray:
        """From PySCF's order to a program's."""
        standard = OrbitalOrder.of(self.shells(), "pyscf").index
        back = OrbitalOrder.of(self.shells(), order).inverse()
        there = matrix[np.ix_(standard, standard)][np.ix_(back.index, back.index)]
        return there * np.outer(back.sign, back.sign)


@pytest.fixture(scope="module")
def basis(client: Any) -> str:
    return str(client.get("/v1/models").json()["models"][0]["basis"]["name"])


@pytest.fixture(scope="module")
def converged(basis: str) -> Converged:
    return Converged(basis, [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def send(client: Any, xyz: str, fock: bytes, **options: str) -> Any:
    return client.post("/v1/evaluate", files={"file": ("water.xyz", xyz), "fock": ("fock.npz", fock)}, data=options)


def test_figures_are_those_of_the_matrices(client: Any, water: dict, water_xyz: str, converged: Converged) -> None:
    reply = send(client, water_xyz, npz(fock=converged.fock, overlap=converged.overlap))
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    predicted = client.post("/v1/predict", json={**water, "outputs": ["hamiltonian", "orbital_energies"]}).json()
    h = np.array(predicted["results"]["hamiltonian"])
    errors = answer["results"]["errors"]
    assert errors["hamiltonian"] == pytest.approx(np.abs(h - converged.fock).mean(), abs=SAME)
    np.testing.assert_allclose(answer["results"]["orbital_energies_given"], converged.energies, atol=1e-5)
    given, ours = answer["results"]["given"], answer["results"]["predicted"]
    assert given["gap"] == pytest.approx(converged.energies[5] - converged.energies[4], abs=1e-5)
    assert errors["gap"] == pytest.approx(ours["gap"] - given["gap"], abs=1e-9)
    assert answer["checks"]["overlap_error"] < SAME
    assert answer["meta"]["n_ao"] == len(converged.fock)
    # the density, by its own definition
    guess = client.post("/v1/initial-guess", json=water).json()["results"]
    c = solve(converged.fock, converged.overlap, 10).coefficients
    sc = converged.overlap @ c
    mixing = np.linalg.norm(sc[:, :5].T @ np.array(guess["density_matrix"]) @ sc[:, 5:]) / 2
    assert errors["density_exact"] == pytest.approx(mixing, rel=1e-4)
    assert errors["density_exact_per_electron"] == pytest.approx(mixing / np.sqrt(5), rel=1e-4)


def test_the_prediction_itself_has_no_error(client: Any, water: dict, water_xyz: str) -> None:
    """What ``/v1/predict`` gives may be sent back as it is, and is found to be right."""
    body = {**water, "outputs": ["hamiltonian", "overlap"]}
    for form in ("npz", "safetensors"):
        content = client.post(f"/v1/predict?format_out={form}", json=body).content
        errors = send(client, water_xyz, content).json()["results"]["errors"]
        assert max(abs(errors[name]) for name in ("hamiltonian", "occupied_energies", "gap", "density")) < 1e-6
        assert errors["psi_overlap"] == pytest.approx(100.0, abs=1e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_the_same(client: Any, water_xyz: str, converged: Converged, order: str) -> None:
    expected = send(client, water_xyz, npz(fock=converged.fock, overlap=converged.overlap)).json()["results"]
    fock, overlap = (converged.ordered(matrix, order) for matrix in (converged.fock, converged.overlap))
    found = send(client, water_xyz, npz(fock=fock, overlap=overlap), ao_order=order).json()["results"]
    assert found["errors"] == pytest.approx(expected["errors"], abs=1e-9)


def test_a_wrong_order_is_refused_and_the_right_one_named(client: Any, water_xyz: str, converged: Converged) -> None:
    content = npz(fock=converged.ordered(converged.fock, "e3nn"), overlap=converged.ordered(converged.overlap, "e3nn"))
    problem = send(client, water_xyz, content).json()
    assert (problem["status"], problem["code"], problem["field"]) == (422, "invalid_request", "ao_order")
    assert "e3nn" in problem["hint"]
    assert "pyscf" not in problem["hint"]


def test_the_unit_is_that_of_the_matrix(client: Any, water_xyz: str, converged: Converged) -> None:
    content = npz(fock=converged.fock * EV_PER_HARTREE, overlap=converged.overlap)
    expected = send(client, water_xyz, npz(fock=converged.fock, overlap=converged.overlap)).json()["results"]["errors"]
    found = send(client, water_xyz, content, energy_unit="eV").json()["results"]["errors"]
    assert found["gap"] == pytest.approx(expected["gap"] * EV_PER_HARTREE)
    assert found["psi"] == pytest.approx(expected["psi"])


def test_json_takes_the_file_in_base64(client: Any, water: dict, water_xyz: str, converged: Converged) -> None:
    content = safetensors.numpy.save({"fock": converged.fock, "overlap": converged.overlap})
    body = {**water, "fock": base64.b64encode(content).decode()}
    reply = client.post("/v1/evaluate", json=body)
    expected = send(client, water_xyz, npz(fock=converged.fock, overlap=converged.overlap)).json()
    assert reply.json()["results"]["errors"] == pytest.approx(expected["results"]["errors"], abs=1e-9)
    again = client.post("/v1/evaluate", json=body, headers={"If-None-Match": reply.headers["ETag"]})
    assert again.status_code == 304
    other = {**body, "fock": base64.b64encode(npz(fock=converged.fock)).decode()}
    assert client.post("/v1/evaluate", json=other, headers={"If-None-Match": reply.headers["ETag"]}).status_code != 304


def test_binary_answers_have_the_same(client: Any, water_xyz: str, converged: Converged) -> None:
    content = npz(fock=converged.fock, overlap=converged.overlap)
    expected = send(client, water_xyz, content).json()["results"]
    with np.load(io.BytesIO(send(client, water_xyz, content, format_out="npz").content)) as found:
        np.testing.assert_allclose(found["orbital_energies_given"], expected["orbital_energies_given"])
        assert json.loads(found["meta"].tobytes())["results"]["errors"] == pytest.approx(expected["errors"])


def test_other_functions_and_other_places_are_refused(
    client: Any, water_xyz: str, basis: str, converged: Converged
) -> None:
    """Of a basis with the same shells, of Cartesian functions, of a turned and of a moved molecule: each by its name."""
    positions = [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]]
    other = Converged("cc-pvdz", positions) if basis != "cc-pvdz" else Converged("def2-svp", positions)
    turned = Converged(basis, [[z, x, y] for x, y, z in positions])
    moved = Converged(basis, [positions[0], [0.0, 0.80, -0.477], positions[2]])
    cases = {
        "other": (npz(fock=other.fock, overlap=other.overlap), "unsupported_basis", basis),
        "turned": (npz(fock=turned.fock, overlap=turned.overlap), "invalid_request", "rotated"),
        "moved": (npz(fock=moved.fock, overlap=moved.overlap), "unsupported_basis", "geometry"),
    }
    if any(ang > 1 for ang in converged.shells()):
        cartesian = Converged(basis, positions, cart=True)
        cases["cartesian"] = (npz(fock=cartesian.fock), "unsupported_basis", "Cartesian")
    for name, (content, code, said) in cases.items():
        problem = send(client, water_xyz, content).json()
        assert (problem["status"], problem["code"]) == (422, code), name
        assert said in problem["detail"], name


def bomb(n: int) -> bytes:
    """An npz whose array is honest about its shape in the header, and holds far more."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"shape": (n, n), "fortran_order": False, "descr": "<f8"})
        archive.writestr("fock.npy", header.getvalue() + bytes(1 << 28))
    return buffer.getvalue()


def test_what_is_no_matrix_is_refused(client: Any, water_xyz: str, converged: Converged) -> None:
    n, fock = len(converged.fock), converged.fock
    skewed, infinite = fock.copy(), fock.copy()
    skewed[0, 1] += 0.1
    infinite[0, 0] = np.inf
    objects = io.BytesIO()
    np.savez(objects, fock=np.array([{}], dtype=object))
    cases = {
        "shape": (npz(fock=fock[:-1, :-1]), "unsupported_basis"),
        "huge": (npz(fock=np.zeros((1, 400))), "unsupported_basis"),
        "spins": (npz(fock=np.stack([fock, fock])), "invalid_request"),
        "skewed": (npz(fock=skewed), "invalid_request"),
        "triangle": (npz(fock=np.tril(fock)), "invalid_request"),
        "infinite": (npz(fock=infinite), "invalid_request"),
        "complex": (npz(fock=fock.astype(complex)), "invalid_request"),
        "none": (npz(overlap=converged.overlap), "invalid_request"),
        "both": (npz(fock=fock, hamiltonian=fock), "invalid_request"),
        "objects": (objects.getvalue(), "invalid_request"),
        "eV": (npz(fock=fock * EV_PER_HARTREE, overlap=converged.overlap), "invalid_request"),
        "rydberg": (npz(fock=fock * 2.0, overlap=converged.overlap), "invalid_request"),
        "bomb": (bomb(n), "invalid_request"),
        "cut": (npz(fock=fock)[:-100], "invalid_request"),
        "empty zip": (b"PK", "invalid_request"),
        "text": (b"these are no matrices at all", "invalid_request"),
        "nothing": (b"", "invalid_request"),
    }
    for name, (content, code) in cases.items():
        reply = send(client, water_xyz, content)
        assert (reply.status_code, reply.json()["code"]) == (422, code), (name, reply.text)
        assert reply.json().get("hint") or name == "nothing", name


def test_without_an_overlap_the_prediction_judges(
    client: Any, water: dict, water_xyz: str, converged: Converged
) -> None:
    """A checkpoint of random weights is near its own prediction alone, so this is sent back."""
    h = np.array(
        client.post("/v1/predict", json={**water, "outputs": ["hamiltonian"]}).json()["results"]["hamiltonian"]
    )
    reply = send(client, water_xyz, npz(fock=h))
    assert reply.status_code == 200, reply.text
    assert reply.json()["checks"]["overlap_error"] is None
    assert any("overlap" in text for text in reply.json()["warnings"])
    problem = send(client, water_xyz, npz(fock=converged.ordered(h, "orca"))).json()
    assert problem["field"] == "ao_order"
    assert "orca" in problem["hint"]
    far = send(client, water_xyz, npz(fock=h + 0.5 * np.eye(len(h)) + 0.1)).json()
    assert (far["code"], far["field"]) == ("unsupported_basis", "fock")


def test_what_a_raw_body_and_a_crystal_get(client: Any, water: dict, water_xyz: str, converged: Converged) -> None:
    reply = client.post("/v1/evaluate", content=water_xyz, headers={"Content-Type": "chemical/x-xyz"})
    assert (reply.status_code, reply.json()["code"]) == (415, "unsupported_media_type")
    body = {"structure": {**water["structure"], "cell": (8 * np.eye(3)).tolist(), "pbc": [True] * 3}, "fock": "AAAA"}
    problem = client.post("/v1/evaluate", json=body).json()
    assert problem["code"] == "unsupported_periodicity"
    assert client.post("/v1/evaluate", json=water).json()["field"] == "fock"
    assert client.post("/v1/evaluate", json={**water, "fock": "no base64!"}).json()["field"] == "fock"
