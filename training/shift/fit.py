"""Least squares of the difference of two functionals' Fock matrices, and what it brings on molecules left out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.shifts import FILE, FittedFunctional, Stored
from model.electronic.solve import density_matrix, solve
from model.integrals.pyscf_molecule import integrals
from model.level import fold_functional, same_functional
from model.predictor import Predictor
from model.reference.fitted import FittedReference, respond
from model.reference.shift import FunctionalShift
from model.reference.terms import TermLayout
from training.atomic import write_json
from training.data.frame import Frame
from training.fit.reference import NormalEquations, normal_equations, term_matrices
from training.pool import parallel_map
from training.predict.work import predictor_of
from training.shift.labels import Label, choose_frames, label
from training.tables import ConfigError

Matrix = NDArray[np.float64]

FEWEST: Final = 10
"""Molecules that a fit needs."""


def fit_shifts(options: argparse.Namespace) -> None:
    """Label, fit and measure each functional; the file keeps those of other functionals that it has.

    Args:
        options: of the command line.

    Raises:
        CheckpointError, DatasetError, ConfigError: of what came.
    """
    folder: Path = options.checkpoint
    predictor = predictor_of(folder, "cpu")
    reference = predictor.model.reference
    if not isinstance(reference, FittedReference):
        raise ConfigError("Shifts are made of the terms of a fitted reference, and this checkpoint has none.")
    for xc in options.xc:
        if same_functional(xc, predictor.card.level.xc):
            raise ConfigError(f"{xc} is the checkpoint's own functional; there is nothing to shift.")
    frames = [
        choose_frames(options.data, split, predictor, options.largest, count, options.seed)
        for split, count in (("train", options.molecules), ("val", options.test))
    ]
    for xc in options.xc:
        train, test = (_labels(each, xc, options) for each in frames)
        if len(train) < FEWEST or not test:
            raise ConfigError(f"Too few molecules converged with {xc}: {len(train)} of train, {len(test)} of val.")
        coefficients = _fit(train, reference, options.density_weight)
        shift = FunctionalShift(reference.basis, reference.exponents, coefficients)
        misplaced = measure(test, shift)
        found = FittedFunctional(xc=xc, coefficients=coefficients.tolist(), molecules=len(train), misplaced=misplaced)
        _write(folder, predictor, reference, found)
        print(
            f"{xc}: fitted to {len(train)} molecules; electrons misplaced in {len(test)} others: {misplaced[0]:.3f} without "
            f"the shift, {misplaced[1]:.3f} with it",
            flush=True,
        )


def measure(labels: Sequence[Label], shift: FunctionalShift) -> tuple[float, float]:
    """Electrons that are misplaced without and with a shift, means: half the sum of |eigenvalues| of S^1/2 (D - D') S^1/2."""
    found = []
    for each in labels:
        molecule = integrals(each.frame.structure, shift.basis.name)
        moved = each.predicted + shift.evaluate(each.predicted, molecule)
        factor, n_electrons = molecule.factor, 2 * molecule.n_occupied
        density = [density_matrix(solve(h, factor, n_electrons)) for h in (each.fock, each.predicted, moved)]
        root = (factor.vectors * np.sqrt(factor.values)) @ factor.vectors.T
        found.append([0.5 * np.abs(np.linalg.eigvalsh(root @ (d - density[0]) @ root)).sum() for d in density[1:]])
    before, after = np.mean(found, axis=0)
    return float(before), float(after)


def _labels(frames: Sequence[Frame], xc: str, options: argparse.Namespace) -> list[Label]:
    work = partial(_label, xc=xc, checkpoint=options.checkpoint, folder=options.labels)
    every = parallel_map(work, frames, total=len(frames), processes=options.processes, title=f"labels of {xc}", chunk=1)
    return [each for each in every if each is not None]


def _label(frame: Frame, *, xc: str, checkpoint: Path, folder: Path) -> Label | None:
    return label(frame, xc, predictor_of(checkpoint, "cpu"), folder)


def _fit(labels: Sequence[Label], reference: FittedReference, density_weight: float) -> Matrix:
    layout = TermLayout(reference.basis, len(reference.exponents))
    total: NormalEquations | None = None
    for each in labels:
        structure = each.frame.structure
        molecule = integrals(structure, reference.basis.name)
        response = respond(each.predicted, molecule, reference.basis.atom_offsets(structure.numbers))
        terms = term_matrices(layout, molecule, reference.exponents, response)
        part = normal_equations(terms, each.fock - each.predicted, each.fock, molecule)
        total = part if total is None else total + part
    assert total is not None
    return total.solve(density_weight)


def _write(folder: Path, predictor: Predictor, reference: FittedReference, found: FittedFunctional) -> None:
    path = folder / FILE
    before = Stored.model_validate_json(path.read_text()).functionals if path.is_file() else []
    others = [each for each in before if fold_functional(each.xc) != fold_functional(found.xc)]
    stored = Stored(
        weights_sha256=predictor.card.weights_sha256,
        exponents=reference.exponents.tolist(),
        functionals=sorted([*others, found], key=lambda each: each.xc),
    )
    write_json(path, stored.model_dump())
