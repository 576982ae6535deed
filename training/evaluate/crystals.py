"""All figures of one predicted crystal against its label, in meV.

Energies of a crystal have no common zero, so both matrices are compared with theirs: H - mu S (``model.blocks.gauge``).
Errors are those of the label's pairs; |dH| of a complex element is its modulus, and of several spin parts the mean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.blocks.gauge import gauge_shift, shifted
from model.electronic.bands import PROJECTION_THRESHOLD
from model.electronic.kinetic_damping import KineticDamping
from model.errors import ElectronCountError, IntegralError, NumericalError
from model.integrals.pyscf_crystal import CrystalIntegrals
from model.predictor import CrystalPrediction
from model.structure import SYMBOLS
from model.units import EV_PER_HARTREE
from training.data.sources import DatasetError, Frame
from training.evaluate.spectra import MAXIMUM_ORBITALS, Spectra, compare_spectra, electrons_of

MEV_PER_HARTREE: Final = 1e3 * EV_PER_HARTREE
DISTANCE_STEP_ANGSTROM: Final = 1.0
DISTANCE_BINS: Final = 40
"""The first is of on-site blocks, each other one of a step; what lies beyond goes to the last."""


@dataclass(frozen=True)
class CrystalErrors:
    """Figures of one prediction; energies and matrices in meV, definitions in docs/metrics.md.

    Attributes:
        hamiltonian, on_site, off_site: mean |dH| of all elements of the label's blocks, of an atom's with itself, of others.
        hamiltonian_rms: root mean square |dH|.
        zero: mu of the prediction less mu of the label; None without an overlap.
        fermi_label: of the label, its common zero taken off, eV; None without spectra.
        bands_rms to smallest_overlap: see ``spectra.SpectralErrors``; None where nothing could be diagonalised.
        prediction_ms: wall time of the prediction, alone in its batch.
    """

    molecule: str
    index: int
    formula: str
    atoms: int
    orbitals: int
    hamiltonian: float
    hamiltonian_rms: float
    on_site: float
    off_site: float
    zero: float | None
    bands_rms: float | None
    bands_max: float | None
    gap: float | None
    gap_label: float | None
    fermi: float | None
    dos: float | None
    density: float | None
    smallest_overlap: float | None
    prediction_ms: float


@dataclass(frozen=True, eq=False)
class CrystalComparison:
    """Figures of one structure and what maps, curves and pictures are made of.

    Attributes:
        errors: figures.
        absolute: |dH| of the label's pairs, mean over spin parts, meV.
        spectra: None without an overlap, electrons or a positive overlap.
        note: why there are no spectra; empty if there are.
    """

    errors: CrystalErrors
    absolute: BlockSet
    spectra: Spectra | None
    note: str

    def by_distance(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum of |dH|, meV, and number of elements in each distance bin, (bin,)."""
        pairs = self.absolute.pairs
        on_site = (pairs.first == pairs.second) & ~pairs.shift.any(axis=1)
        bins = np.minimum(1 + (pairs.distances_angstrom / DISTANCE_STEP_ANGSTROM).astype(np.int64), DISTANCE_BINS - 1)
        bins = np.where(on_site, 0, bins)
        sizes = np.diff(self.absolute.starts)
        per_entry = np.repeat(bins, sizes)
        sums = np.bincount(per_entry, self.absolute.values[0], minlength=DISTANCE_BINS).astype(np.float64)
        return sums, np.bincount(bins, sizes, minlength=DISTANCE_BINS).astype(np.float64)


def compare_crystal(
    frame: Frame, prediction: CrystalPrediction, *, n_points: int, spectra: bool = True, kinetic_damping: float = 0.0
) -> CrystalComparison:
    """Compare a prediction with a label.

    Args:
        frame: the label, in the model's orbitals and order.
        prediction: of its structure.
        n_points: k-points of the path.
        spectra: diagonalise too.
        kinetic_damping: delta of ``KineticDamping`` of the predicted H(k); 0 for none.

    Raises:
        DatasetError: damping of a checkpoint whose kinetic energies nothing computes.
    """
    overlap, note = _overlap(frame, prediction)
    zeros: list[float] | None = None
    label, predicted = frame.hamiltonian, prediction.hamiltonian.in_order(frame.hamiltonian.space.order)
    if overlap is not None:
        zeros = [gauge_shift(blocks, overlap) for blocks in (label, predicted)]
        label, predicted = shifted(label, overlap, -zeros[0]), shifted(predicted, overlap, -zeros[1])
    difference = np.abs(predicted.on_pairs(label.pairs).values - label.values).mean(axis=0, keepdims=True)
    absolute = BlockSet(label.space, label.numbers, label.pairs, MEV_PER_HARTREE * difference)
    found: Spectra | None = None
    if spectra and overlap is not None:
        damping = _damping(prediction, overlap, kinetic_damping) if kinetic_damping else None
        found, note = _spectra(frame, label, predicted, overlap, zeros, n_points, damping)
    pairs = absolute.pairs
    is_on_site = np.repeat((pairs.first == pairs.second) & ~pairs.shift.any(axis=1), np.diff(absolute.starts))
    values = absolute.values[0]
    spectral: dict[str, Any] = dict.fromkeys(
        ("bands_rms", "bands_max", "gap", "gap_label", "fermi", "dos", "density", "smallest_overlap")
    )
    errors = CrystalErrors(
        molecule=frame.molecule,
        index=frame.index,
        formula=formula_of(frame.structure.numbers),
        atoms=len(frame.structure),
        orbitals=absolute.n_orbitals,
        hamiltonian=float(values.mean()),
        hamiltonian_rms=float(np.sqrt(np.mean(values**2))),
        on_site=float(values[is_on_site].mean()),
        off_site=float(values[~is_on_site].mean()) if not is_on_site.all() else 0.0,
        zero=None if zeros is None else MEV_PER_HARTREE * (zeros[1] - zeros[0]),
        prediction_ms=float(sum(prediction.timings_ms.values())),
        **(spectral if found is None else asdict(found.errors)),
    )
    return CrystalComparison(errors, absolute, found, "" if found is not None else note)


def formula_of(numbers: NDArray[np.int64]) -> str:
    """Like "B4N4": elements by atomic number."""
    kinds, counts = np.unique(numbers, return_counts=True)
    return "".join(f"{SYMBOLS[kind]}{count if count > 1 else ''}" for kind, count in zip(kinds, counts, strict=True))


def _overlap(frame: Frame, prediction: CrystalPrediction) -> tuple[BlockSet | None, str]:
    """The label's overlap, else the checkpoint's own."""
    if frame.overlap is not None:
        return frame.overlap, ""
    try:
        own = prediction.integrals.overlap
    except (IntegralError, NumericalError) as error:
        return None, str(error)
    if not isinstance(own, BlockSet):
        return None, "neither the label nor the checkpoint has an overlap"
    return own.in_order(frame.hamiltonian.space.order), ""


def _damping(prediction: CrystalPrediction, overlap: BlockSet, delta: float) -> KineticDamping:
    """With kinetic energies as far as the overlap reaches: both are divided by its smallest eigenvalues."""
    if not isinstance(prediction.integrals, CrystalIntegrals):
        raise DatasetError(
            "Kinetic damping needs kinetic energies, which are computed for checkpoints with [model] integrals = "
            '"pyscf_crystal"; leave out --kinetic-damping.'
        )
    known = CrystalIntegrals(prediction.structure, overlap.pairs, prediction.hamiltonian.space)
    return KineticDamping(known.kinetic.in_order(overlap.space.order), delta)


def _spectra(
    frame: Frame,
    label: BlockSet,
    predicted: BlockSet,
    overlap: BlockSet,
    zeros: list[float] | None,
    n_points: int,
    damping: KineticDamping | None,
) -> tuple[Spectra | None, str]:
    if label.n_orbitals > MAXIMUM_ORBITALS:
        return None, f"{label.n_orbitals} orbitals are more than {MAXIMUM_ORBITALS}"
    fermi = frame.fermi_energy_hartree
    if fermi is not None and zeros is not None:
        fermi -= zeros[0]
    electrons = electrons_of(frame.structure, label, overlap, fermi)
    if electrons is None:
        return None, "nothing says how many electrons there are: neither valences nor a Fermi level"
    try:
        return compare_spectra(frame.structure, label, predicted, overlap, electrons, n_points, damping), ""
    except (NumericalError, ElectronCountError) as error:
        return None, f"{error} (functions of S(k) up to {PROJECTION_THRESHOLD:g} were projected out)"
