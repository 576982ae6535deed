"""All figures of one prediction against its label."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from model.electronic.comparison import ENERGIES, compare, density_mixing, first_order_density
from model.electronic.solve import Orbitals, density_matrix, solve
from model.predictor import Prediction
from model.units import MICROHARTREE_PER_HARTREE
from training.data.sources import Frame

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class FrameErrors:
    """Figures of one prediction; energies and matrices in µEh (1e-6 hartree), definitions in docs/metrics.md.

    Attributes:
        hamiltonian, hamiltonian_diagonal, hamiltonian_off_diagonal: mean |dH| of all entries and of the blocks.
        hamiltonian_reference: the same of H0, all entries; None if the checkpoint has no H0.
        occupied_energies: mean |de| of the occupied orbitals.
        homo, lumo, gap: signed errors.
        psi, psi_overlap: mean |cos| of occupied orbitals in percent, without and with the overlap.
        subspace: distance of the occupied spaces.
        homo_distance, lumo_distance: distance of the frontier levels; ``intruder`` if one is above 0.7.
        protected: whether the predictor found an intruder and protected the guess from it.
        error_oo, error_ov, error_vv: shares of the squared error in the reference's eigenbasis.
        density, density_reference: first-order |D_ia| of the prediction and of H0 (None if there is no H0).
        density_exact, density_reference_exact, density_minao: |D_ia| of the very densities of prediction, H0, minao.
        density_per_electron: ``density`` over sqrt(occupied orbitals).
        prediction_ms: wall time of the prediction, alone in its batch.
    """

    molecule: str
    index: int
    smiles: str
    heavy_atoms: int
    atoms: int
    orbitals: int
    occupied: int
    hamiltonian: float
    hamiltonian_diagonal: float
    hamiltonian_off_diagonal: float
    hamiltonian_reference: float | None
    occupied_energies: float
    homo: float
    lumo: float
    gap: float
    psi: float
    psi_overlap: float
    subspace: float
    homo_distance: float
    lumo_distance: float
    intruder: bool
    protected: bool
    error_oo: float
    error_ov: float
    error_vv: float
    density: float
    density_per_electron: float
    density_exact: float
    density_reference: float | None
    density_reference_exact: float | None
    density_minao: float | None
    prediction_ms: float


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Orbitals of the label and of H0 (None if the checkpoint has none), solved once per frame."""

    label: Orbitals
    reference: Orbitals | None

    @classmethod
    def of(cls, frame: Frame, prediction: Prediction) -> Eigenpairs:
        """Solve both in the prediction's overlap."""
        electrons = frame.structure.n_electrons
        has_reference = bool(prediction.reference.any())
        return cls(
            label=solve(frame.fock, prediction.overlap, electrons),
            reference=solve(prediction.reference, prediction.overlap, electrons) if has_reference else None,
        )


def frame_errors(
    frame: Frame, prediction: Prediction, *, minao: Matrix | None = None, solved: Eigenpairs | None = None
) -> FrameErrors:
    """Compare a prediction with a label.

    Args:
        frame: with the converged Fock matrix.
        prediction: with orbitals.
        minao: PySCF's minao density, (ao, ao); None leaves its figure out.
        solved: orbitals of label and H0, if they are at hand.
    """
    assert prediction.orbitals is not None, "predict with orbitals"
    solved = solved or Eigenpairs.of(frame, prediction)
    label, served, overlap = solved.label, prediction.orbitals, prediction.overlap
    n_occupied = label.n_occupied
    protected = prediction.guess is not None and prediction.guess.has_intruder
    # published figures are of the predicted matrix itself; the occupied space and its density are those that are served
    predicted = solve(prediction.hamiltonian, overlap, frame.structure.n_electrons) if protected else served
    found = compare(
        frame.fock,
        prediction.hamiltonian,
        overlap,
        prediction.atom_offsets,
        label=label,
        predicted=predicted,
        served=served,
    )
    figures = {field.name: getattr(found, field.name) for field in fields(found)}
    figures |= {name: MICROHARTREE_PER_HARTREE * figures[name] for name in ENERGIES}
    del figures["density_exact_per_electron"]  # summaries make it of the mean

    def exact(matrix: Matrix) -> float:
        return density_mixing(matrix, overlap, label.coefficients, n_occupied)

    reference_error = reference_density = reference_exact = None
    if solved.reference is not None:
        wrong = prediction.reference - frame.fock
        reference_error = float(MICROHARTREE_PER_HARTREE * np.abs(wrong).mean())
        reference_density = first_order_density(wrong, label.energies, label.coefficients, n_occupied)
        reference_exact = exact(density_matrix(solved.reference))
    return FrameErrors(
        molecule=frame.molecule,
        index=frame.index,
        smiles=frame.smiles,
        heavy_atoms=frame.heavy_atoms,
        atoms=len(frame.structure),
        orbitals=len(frame.fock),
        occupied=n_occupied,
        hamiltonian_reference=reference_error,
        intruder=found.intruder,
        protected=protected,
        density_reference=reference_density,
        density_reference_exact=reference_exact,
        density_minao=None if minao is None else exact(minao),
        prediction_ms=float(sum(prediction.timings_ms.values())),
        **figures,
    )
