"""A guess as a QCSchema v2 document: an ``AtomicResult`` of the driver ``properties``, with the wavefunction.

    molecule (bohr), input_data (what was asked), properties (counts), return_result (frontier levels),
    wavefunction (basis, orbitals, eigenvalues, occupations, density, Fock matrix), extras["tracegrad"] (conventions)

No energy is in it, since a guess has none. What the schema leaves open is decided here and repeated in the extras:

* AOs are in CCA order, m = -l..l in every shell (a p shell is y, z, x), as the writers of QCSchema wavefunctions do. The
  shells are those of ``wavefunction.basis``, atom by atom.
* Contraction coefficients are of normalised primitives, as in the Basis Set Exchange, and every contraction is
  normalised, so that a reader who normalises again changes nothing.
* Matrices are flat and row-major: the schema's text says column-major, but QCElemental reads and writes rows. Only for
  the orbitals is there a difference.
* Alpha means alpha: in a closed shell the occupations are 1, and the density is half of the electrons'.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from model.errors import NumericalError
from model.orbitals.orders import e3nn_to_pyscf, pyscf_to_e3nn

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.electronic.guess import InitialGuess
    from model.predictor import Prediction
    from model.structure import Structure

_CONTENT: Final = (
    "A predicted starting point for an SCF calculation, not a converged one: scf_fock_a is the predicted Kohn-Sham "
    "Hamiltonian, the density and the orbitals follow from it, and there is no total energy."
)
_AO_ORDER: Final = "cca: m = -l..l in every shell, so p is y, z, x; shells as in wavefunction.basis, atom by atom"
_NORMALISATION: Final = "coefficients of normalised primitives; every contraction is normalised"
_PROVENANCE: Final = {"creator": "TraceGrad", "version": version("tracegrad-service"), "routine": "/v1/initial-guess"}


def document(prediction: Prediction, card: Card, mole: Any) -> dict[str, Any]:
    """The whole document; its arrays are NumPy's.

    Args:
        prediction: with orbitals and guess.
        card: of the model that gave it.
        mole: PySCF's molecule that the prediction's integrals are of.

    Raises:
        NumericalError: there are no orbitals or no guess.
    """
    guess = prediction.guess
    if guess is None:
        raise NumericalError("The prediction has no guess.")
    orbitals = guess.orbitals
    molecule = _molecule(prediction.structure, mole)
    shells = _angular_momenta(mole)
    order = pyscf_to_e3nn(shells)  # what is called e3nn's order here is CCA's: m = -l..l with plus signs
    frontier = {name: getattr(orbitals, name) for name in ("homo", "lumo", "gap")}
    return {
        "schema_name": "qcschema_atomic_result",
        "schema_version": 2,
        "input_data": {
            "schema_name": "qcschema_atomic_input",
            "schema_version": 2,
            "molecule": molecule,
            "specification": {
                "program": "tracegrad",
                "driver": "properties",
                "model": {"method": card.name, "basis": card.basis.name},
                "protocols": {"wavefunction": "all"},  # QCElemental drops what the protocol does not keep
            },
            "provenance": _PROVENANCE,
        },
        "molecule": molecule,
        "properties": {
            "calcinfo_nbasis": len(order),
            "calcinfo_nmo": len(orbitals.energies),
            "calcinfo_nalpha": orbitals.n_occupied,
            "calcinfo_nbeta": orbitals.n_occupied,
            "calcinfo_natom": len(prediction.structure.numbers),
        },
        "wavefunction": {
            "schema_name": "qcschema_wavefunction_properties",
            "basis": _basis(prediction.structure.symbols, card.basis.name, mole),
            "restricted": True,
            **_matrices(prediction.hamiltonian, guess, order),
        },
        "return_result": {name: value for name, value in frontier.items() if value is not None},
        "success": True,
        "provenance": _PROVENANCE,
        "extras": {
            "tracegrad": {
                "content": _CONTENT,
                "ao_order": _AO_ORDER,
                "matrix_layout": "row-major",
                "basis_normalisation": _NORMALISATION,
                "ao_labels": [prediction.ao_labels[index] for index in order],
                "pyscf_order": e3nn_to_pyscf(shells),
                "model": card.name,
                "version": card.version,
                "sha256": card.weights_sha256,
                "xc": card.xc,
                "in_domain": prediction.in_domain,
                "warnings": list(prediction.warnings),
            }
        },
    }


def _molecule(structure: Structure, mole: Any) -> dict[str, Any]:
    """The molecule, with the very coordinates that the integrals were computed from, in bohr."""
    return {
        "schema_name": "qcschema_molecule",
        "schema_version": 3,
        "symbols": list(structure.symbols),
        "geometry": np.ravel(mole.atom_coords()),
        "molecular_charge": float(structure.charge),
        "molecular_multiplicity": int(structure.multiplicity),
        # the matrices belong to this place and orientation
        "fix_com": True,
        "fix_orientation": True,
        # It was checked when it came in. QCElemental would else round the geometry to 8 decimals.
        "validated": True,
        "provenance": _PROVENANCE,
    }


def _matrices(
    hamiltonian: NDArray[np.float64], guess: InitialGuess, order: NDArray[np.int64]
) -> dict[str, NDArray[np.float64] | str]:
    """Everything indexed by orbitals, in the asked AO order; and which of the schema's fields is which result."""
    square, orbitals = np.ix_(order, order), guess.orbitals
    arrays = {
        "orbitals_a": np.ravel(orbitals.coefficients[order]),
        "density_a": np.ravel(0.5 * guess.density_matrix[square]),
        "fock_a": np.ravel(hamiltonian[square]),
        "eigenvalues_a": orbitals.energies,
        "occupations_a": 0.5 * orbitals.occupations,
    }
    return {f"scf_{name}": array for name, array in arrays.items()} | {name: f"scf_{name}" for name in arrays}


def _basis(symbols: Sequence[str], name: str, mole: Any) -> dict[str, Any]:
    """The basis set: one centre for each element, its shells in AO order."""
    centres = {symbol: {"electron_shells": _shells(mole, symbols.index(symbol))} for symbol in sorted(set(symbols))}
    return {
        "schema_name": "qcschema_basis_set",
        "schema_version": 2,
        "name": name,
        "description": f"As used by the model; {_NORMALISATION}.",
        "center_data": centres,
        "atom_map": list(symbols),
        "nbf": int(mole.nao),
    }


def _shells(mole: Any, atom: int) -> list[dict[str, Any]]:
    """The shells of an atom, one for each contraction: QCElemental counts a general contraction as one shell."""
    return [
        {
            "angular_momentum": [int(mole.bas_angular(shell))],
            "harmonic_type": "spherical",
            "exponents": mole.bas_exp(shell),
            "coefficients": [column],
        }
        for shell in mole.atom_shell_ids(atom)
        for column in np.ascontiguousarray(mole.bas_ctr_coeff(shell).T)
    ]


def _angular_momenta(mole: Any) -> list[int]:
    """Angular momentum of every contraction, in AO order."""
    return [int(mole.bas_angular(shell)) for shell in range(mole.nbas) for _ in range(int(mole.bas_nctr(shell)))]
