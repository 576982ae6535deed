"""Guesses for another functional than the model's: shifted where the checkpoint knows how, told where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyscf import dft, gto, scf

FORMALDEHYDE = {
    "kind": "atoms",
    "numbers": [6, 8, 1, 1],
    "positions": [[0, 0, -0.53], [0, 0, 0.68], [0, 0.94, -1.12], [0, -0.94, -1.12]],
}


def mole_in(basis: str) -> Any:
    atoms = list(zip(FORMALDEHYDE["numbers"], FORMALDEHYDE["positions"], strict=True))
    return gto.M(atom=atoms, basis=basis, verbose=0)


def ask(client, **options: Any) -> Any:
    reply = client.post("/v1/initial-guess", json={"structure": FORMALDEHYDE, **options})
    assert reply.status_code == 200, reply.text
    return reply.json()


def density(answer: Any) -> Any:
    return np.array(answer["results"]["density_matrix"])


@pytest.mark.parametrize("basis", ["def2-svp", "cc-pvdz"])
@pytest.mark.parametrize("xc", ["HF", "PBE"])
def test_the_guess_is_nearer_to_the_functional_that_was_asked_for(shipped, xc, basis):
    other = {} if basis == "def2-svp" else {"basis": basis, "project": True}
    plain, shifted = ask(shipped, **other), ask(shipped, **other, xc=xc)
    assert [text.split(":")[0] for text in shifted["warnings"] if text.startswith("xc")] == ["xc shifted"]
    assert shifted["meta"]["xc"] == "b3lyp", "the model is what it is"
    mole = mole_in(basis)
    mf = scf.RHF(mole) if xc == "HF" else dft.RKS(mole, xc=xc)
    if xc != "HF":
        mf.grids.level = 1
    energy = mf.kernel()
    above = [mf.energy_tot(dm=density(answer)) - energy for answer in (plain, shifted)]
    assert 0 < above[1] < 0.6 * above[0]
    overlap = mole.intor("int1e_ovlp")
    assert np.trace(density(shifted) @ overlap) == pytest.approx(16.0, abs=1e-8)


@pytest.mark.parametrize("options", [{"outputs": ["hamiltonian"]}, {"format_out": "qcschema"}])
def test_a_hamiltonian_is_the_models_own(shipped, options):
    reply = shipped.post("/v1/initial-guess", json={"structure": FORMALDEHYDE, "xc": "pbe", **options})
    assert reply.status_code == 200, reply.text
    assert "xc mismatch" in reply.headers["warning"]
    assert "xc shifted" not in reply.headers["warning"]


def test_what_nobody_fitted_is_told(shipped):
    plain, other = ask(shipped), ask(shipped, xc="tpss")
    assert any(text.startswith("xc mismatch") for text in other["warnings"])
    np.testing.assert_array_equal(density(plain), density(other))
