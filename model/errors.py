"""Domain errors of the model, as one tree; each leaf has a stable ``code``.

    ModelError
    ├── StructureError             the structure itself is not a physical molecule or crystal
    │   ├── EmptyStructureError            empty_structure
    │   ├── NonFiniteCoordinatesError      non_finite_coordinates
    │   ├── AtomsTooCloseError             atoms_too_close
    │   ├── CellError                      invalid_structure     (lattice vectors that span no cell)
    │   ├── InvalidElementError            unsupported_element   (no such atomic number)
    │   └── ElectronCountError             electron_count
    ├── DomainError                a sound structure that this checkpoint was not made for
    │   ├── UnsupportedElementError        unsupported_element
    │   ├── UnsupportedChargeError         unsupported_charge
    │   ├── UnsupportedMultiplicityError   unsupported_multiplicity
    │   ├── UnsupportedPeriodicityError    unsupported_periodicity
    │   └── UnsupportedBasisError          unsupported_basis
    ├── IntegralError              invalid_request: matrices that the caller must bring are missing or do not fit
    ├── FormatError                a file or folder of matrices (model/formats) that cannot be used as it stands
    │   ├── UnknownFormatError             unknown_matrix_format   (none of the known ones, or another one than asked for)
    │   ├── MissingFileError               missing_file
    │   ├── DamagedFileError               damaged_file            (counts, shapes, NaN, links out of the file)
    │   ├── OrbitalsDoNotFitError          orbitals_do_not_fit     (matrix and stated shells disagree)
    │   ├── NoHamiltonianError             no_hamiltonian          (a folder with overlaps only)
    │   └── UnsupportedContentError        unsupported_content     (sound, but this format or reader has no place for it)
    ├── NumericalError             numerical_failure: a result that is not finite, or an eigensolver that failed
    └── CheckpointError            invalid_checkpoint: a checkpoint folder that must not be served

The codes are those of the HTTP contract (docs/api.md), but nothing here knows of HTTP: ``service/errors.py`` is the
one place where a code gets a status. A message says what came, what is allowed and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence


class ModelError(Exception):
    """Base of all domain errors.

    Attributes:
        code: stable, machine readable name of the error.
        detail: what came and why it cannot be used.
        hint: what to do next, or None.
        allowed: the values that would have been accepted, or None.
        field: the input field that is to blame (``numbers``, ``positions``, ``charge`` ...), or None.
    """

    code = "model_error"

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        allowed: Sequence[str | int | float] | None = None,
        field: str | None = None,
    ) -> None:
        self.detail = detail
        self.hint = hint
        self.allowed = list(allowed) if allowed is not None else None
        self.field = field
        parts = [detail]
        if self.allowed is not None:
            parts.append("Allowed: " + ", ".join(str(value) for value in self.allowed) + ".")
        if hint is not None:
            parts.append(hint)
        super().__init__(" ".join(parts))


class StructureError(ModelError):
    """The structure is not a physical molecule."""

    code = "invalid_structure"


class EmptyStructureError(StructureError):
    code = "empty_structure"


class NonFiniteCoordinatesError(StructureError):
    code = "non_finite_coordinates"


class AtomsTooCloseError(StructureError):
    code = "atoms_too_close"


class CellError(StructureError):
    """Lattice vectors that span no cell, or none where there must be some."""


class InvalidElementError(StructureError):
    code = "unsupported_element"


class ElectronCountError(StructureError):
    code = "electron_count"


class DomainError(ModelError):
    """The structure is sound, but outside what the checkpoint was made for."""

    code = "unsupported"


class UnsupportedElementError(DomainError):
    code = "unsupported_element"


class UnsupportedChargeError(DomainError):
    code = "unsupported_charge"


class UnsupportedMultiplicityError(DomainError):
    code = "unsupported_multiplicity"


class UnsupportedPeriodicityError(DomainError):
    code = "unsupported_periodicity"


class UnsupportedBasisError(DomainError):
    code = "unsupported_basis"


class IntegralError(ModelError):
    """Matrices that the caller must bring are missing, or do not belong to the structure."""

    code = "invalid_request"


class FormatError(ModelError):
    """A file or folder of matrices that cannot be used as it stands."""

    code = "invalid_format"


class UnknownFormatError(FormatError):
    code = "unknown_matrix_format"


class MissingFileError(FormatError):
    code = "missing_file"


class DamagedFileError(FormatError):
    code = "damaged_file"


class OrbitalsDoNotFitError(FormatError):
    code = "orbitals_do_not_fit"


class NoHamiltonianError(FormatError):
    code = "no_hamiltonian"


class UnsupportedContentError(FormatError):
    code = "unsupported_content"


class NumericalError(ModelError):
    code = "numerical_failure"


class CheckpointError(ModelError):
    code = "invalid_checkpoint"
