"""Model to wire: a ``Prediction`` becomes named arrays in the asked AO order and unit, with meta and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.blocks.block_set import BlockSet
from model.geometry import doubts
from model.orbitals.orders import pyscf_to_e3nn
from model.units import EV_PER_HARTREE
from service.schemas.requests import AOOrder, CommonOptions, EnergyUnit, PredictOptions
from service.schemas.responses import Checks, Expected, Meta, Timings

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import Prediction

NEEDS_ORBITALS = frozenset({"orbital_energies", "mo_coeff", "occupations", "density_matrix"})
GUESS_OUTPUTS = ("density_matrix", "mo_coeff", "occupations", "orbital_energies")


@dataclass(frozen=True)
class Result:
    """An answer before encoding.

    Attributes:
        arrays: name -> array; what binary formats store.
        scalars: name -> number, text or short list; the entries of ``results`` that are no arrays.
        blocks: (i, j) -> Hamiltonian block, or None where blocks were not asked for.
        meta: provenance and conventions.
        checks: sanity of the guess.
        warnings: what the caller should know.
        defaults_applied: what the caller left open.
        lattice_blocks: output -> blocks with their cells R, of a crystal, in the asked order and unit.
    """

    arrays: dict[str, NDArray[Any]]
    scalars: dict[str, Any]
    blocks: dict[tuple[int, int], NDArray[np.float64]] | None
    meta: Meta
    checks: Checks
    warnings: list[str]
    defaults_applied: list[str]
    lattice_blocks: Mapping[str, BlockSet] = field(default_factory=dict)


def ao_permutation(prediction: Prediction, ao_order: str) -> NDArray[np.int64]:
    """Index array p with ``matrix_asked = matrix_pyscf[np.ix_(p, p)]``, (ao,)."""
    if ao_order == "pyscf":
        return np.arange(len(prediction.ao_labels))
    return pyscf_to_e3nn([ang for number in prediction.structure.numbers for ang in prediction.space.shells_of(number)])


def select_arrays(
    prediction: Prediction, outputs: Sequence[str], order: NDArray[np.int64], factor: float
) -> dict[str, NDArray[Any]]:
    """The asked arrays (without ``blocks``) in the asked order and unit.

    Args:
        prediction: in PySCF order and hartree.
        outputs: names of the contract, and ``occupations``.
        order: from :func:`ao_permutation`.
        factor: from hartree to the asked unit.
    """
    square = np.ix_(order, order)
    arrays: dict[str, NDArray[Any]] = {}
    if "hamiltonian" in outputs:
        arrays["hamiltonian"] = prediction.hamiltonian[square] * factor
    if "overlap" in outputs:
        arrays["overlap"] = prediction.overlap[square]
    orbitals, guess = prediction.orbitals, prediction.guess
    if orbitals is not None:
        if "orbital_energies" in outputs:
            arrays["orbital_energies"] = orbitals.energies * factor
        if "orbital_energies" in outputs or "occupations" in outputs:
            arrays["occupations"] = orbitals.occupations
        if "mo_coeff" in outputs:
            arrays["mo_coeff"] = orbitals.coefficients[order]
    if guess is not None and "density_matrix" in outputs:
        arrays["density_matrix"] = guess.density_matrix[square]
    if "blocks" in outputs:
        arrays["atom_offsets"] = np.asarray(prediction.atom_offsets, dtype=np.int64)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def select_blocks(
    prediction: Prediction, order: NDArray[np.int64], factor: float
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Hamiltonian block of every ordered pair of atoms, in the asked order and unit.

    Both AO orders only move functions inside an atom, so the atoms' offsets hold for either.
    """
    matrix = prediction.hamiltonian[np.ix_(order, order)] * factor
    offsets = prediction.atom_offsets
    atoms = range(len(offsets) - 1)
    return {
        (i, j): np.ascontiguousarray(matrix[offsets[i] : offsets[i + 1], offsets[j] : offsets[j + 1]])
        for i in atoms
        for j in atoms
    }


def make_result(
    prediction: Prediction,
    card: Card,
    options: CommonOptions,
    outputs: Sequence[str],
    about: Mapping[str, Any],
    warnings: Sequence[str],
    defaults_applied: Sequence[str],
) -> Result:
    """Put together everything that an answer says.

    Args:
        prediction: the model's answer.
        card: of the model that gave it.
        options: order and unit.
        outputs: names of the arrays to send.
        about: the entries of ``Meta`` that tell how it came about: device, request_id, timings_ms, batch_size, cached.
        warnings: of the service; those of the prediction are added.
        defaults_applied: as reported.
    """
    factor = EV_PER_HARTREE if options.energy_unit == "eV" else 1.0
    order = ao_permutation(prediction, options.ao_order)
    scalars: dict[str, Any] = {}
    if prediction.orbitals is not None and isinstance(options, PredictOptions) and "orbital_energies" in outputs:
        for name in ("homo", "lumo", "gap"):
            scalars[name] = _scaled(getattr(prediction.orbitals, name), factor)
    checks = prediction.checks
    labels = [prediction.ao_labels[index] for index in order]
    meta = make_meta(prediction, card, options.ao_order, options.energy_unit, labels, about)
    return Result(
        arrays=select_arrays(prediction, outputs, order, factor),
        scalars=scalars,
        blocks=select_blocks(prediction, order, factor) if "blocks" in outputs else None,
        meta=meta,
        checks=Checks(
            trace_error=None if checks is None else checks.trace_error,
            idempotency_error=None if checks is None else checks.idempotency_error,
            symmetry_error=None if checks is None else checks.symmetry_error,
            gap=None if checks is None else _scaled(checks.gap, factor),
            in_domain=prediction.in_domain,
            out_of_domain=_words(prediction, card),
            expected=None if prediction.expected is None else Expected.model_validate(asdict(prediction.expected)),
        ),
        warnings=[*prediction.warnings, *warnings],
        defaults_applied=list(defaults_applied),
    )


def make_meta(
    prediction: Prediction,
    card: Card,
    ao_order: AOOrder,
    energy_unit: EnergyUnit,
    labels: Sequence[str],
    about: Mapping[str, Any],
) -> Meta:
    """Where the numbers of a molecule come from and how to read them; ``labels`` are in the order ``ao_order``."""
    return Meta(
        model=card.name,
        version=card.version,
        sha256=card.weights_sha256,
        xc=card.xc,
        basis=prediction.space.name,
        ao_order=ao_order,
        ao_labels=list(labels),
        energy_unit=energy_unit,
        n_electrons=prediction.structure.n_electrons,
        n_ao=len(prediction.ao_labels),
        projected=prediction.space.fingerprint != card.basis.fingerprint,
        **{**about, "timings_ms": Timings(**{name: round(value, 3) for name, value in about["timings_ms"].items()})},
    )


def _words(prediction: Prediction, card: Card) -> list[str]:
    """Why a molecule is out of the domain."""
    if prediction.in_domain:
        return []
    structure, limit = prediction.structure, card.largest_tested
    holds = {
        "size": len(structure) > limit.atoms or int((structure.numbers > 1).sum()) > limit.heavy_atoms,
        "distances": bool(doubts(structure.numbers, structure.positions_angstrom)),
        "intruder": prediction.guess is not None and prediction.guess.has_intruder,
    }
    return [word for word, so in holds.items() if so]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
