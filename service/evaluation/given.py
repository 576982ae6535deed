"""The caller's matrices, from the bytes of an npz, npy or safetensors file: no pickle, and nothing larger than was announced.

Every array's shape is looked at before its numbers are, so that what is unpacked is never more than two matrices of the
structure's own size.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from model.structure import Structure
from service.errors import ServiceError

if TYPE_CHECKING:
    from model.orbitals.space import OrbitalSpace

FOCK_NAMES: Final = ("fock", "hamiltonian")
OVERLAP_NAME: Final = "overlap"
HINT: Final = (
    "Send an npz or safetensors file with the array fock, (ao, ao), and, so that basis and order can be checked, overlap: "
    "numpy.savez('fock.npz', fock=mf.get_fock(), overlap=mf.get_ovlp())."
)
_MAX_HEADER: Final = 4096
_NPZ, _NPY = b"PK", b"\x93NUMPY"


@dataclass(frozen=True)
class Given:
    """What the caller sent, as it came.

    Attributes:
        fock: (ao, ao), in the caller's order and unit.
        overlap: (ao, ao), in the same order, or None.
        digest: SHA-256 of the file.
    """

    fock: NDArray[np.float64]
    overlap: NDArray[np.float64] | None
    digest: str


def refuse_crystals(structure: Structure) -> None:
    """Matrices in k are not compared here.

    Raises:
        ServiceError: ``unsupported_periodicity``.
    """
    if structure.is_periodic:
        raise ServiceError(
            "unsupported_periodicity",
            "Only molecules are evaluated; the structure is periodic.",
            field="pbc",
            hint="Say pbc=false where the cell is a box around a molecule; crystals are evaluated by the training tools.",
        )


def cartesian_count(space: OrbitalSpace, structure: Structure) -> int:
    """Orbitals that the molecule would have with Cartesian functions."""
    shells = [ang for number in structure.numbers for ang in space.shells_of(int(number))]
    return sum((ang + 1) * (ang + 2) // 2 for ang in shells)


class _WrongShapeError(Exception):
    """An array of another shape than the structure's matrices have."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape


def read_given(text: str, n_orbitals: int, n_cartesian: int, basis: str) -> Given:
    """Read the field ``fock`` of a request.

    Args:
        text: the file in base64.
        n_orbitals: of the structure in the model's basis.
        n_cartesian: what they would be, were they Cartesian.
        basis: the model's.

    Raises:
        ServiceError: ``invalid_request`` or ``unsupported_basis``.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refused("The field fock is not base64.") from None
    try:
        if content.startswith(_NPY):
            found = {FOCK_NAMES[0]: _npy(io.BytesIO(content), n_orbitals)}
        elif content.startswith(_NPZ):
            found = _npz(content, n_orbitals)
        else:
            found = _safetensors(content, n_orbitals)
    except _WrongShapeError as error:
        raise _wrong_shape(error.shape, n_orbitals, n_cartesian, basis) from None
    named = [name for name in FOCK_NAMES if name in found]
    if len(named) != 1:
        raise _refused("The file must hold one array that is named fock (or hamiltonian).")
    for name, matrix in found.items():
        if not np.isfinite(matrix).all():
            raise _refused(f"The array {name} holds numbers that are not finite.")
        _check_symmetric(name, matrix)
    return Given(found[named[0]], found.get(OVERLAP_NAME), hashlib.sha256(content).hexdigest())


SYMMETRY_TOLERANCE: Final = 1e-5
"""Of the largest element: matrices may have been printed."""


def _check_symmetric(name: str, matrix: NDArray[np.float64]) -> None:
    error = float(np.abs(matrix - matrix.T).max())
    if error <= SYMMETRY_TOLERANCE * max(1.0, float(np.abs(matrix).max())):
        return
    if not np.triu(matrix, 1).any() or not np.tril(matrix, -1).any():
        raise _refused(f"Of the array {name} only one triangle is filled; send the whole matrix.")
    raise _refused(f"The array {name} is not symmetric: it differs from its transpose by up to {error:.1e}.")


def _npz(content: bytes, n: int) -> dict[str, NDArray[np.float64]]:
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in (*FOCK_NAMES, OVERLAP_NAME):
                if f"{name}.npy" in archive.namelist():
                    with archive.open(f"{name}.npy") as stream:
                        found[name] = _npy(stream, n)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        # what zipfile raises for damage, unknown methods and encryption
        raise _refused("The file begins as an npz does, and cannot be read as one.") from error
    return found


def _npy(stream: IO[bytes], n: int) -> NDArray[np.float64]:
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream, max_header_size=_MAX_HEADER)
    except (ValueError, KeyError, EOFError, SyntaxError, zipfile.BadZipFile) as error:
        raise _refused("An array of the file cannot be read as numpy's.") from error
    _check_type(dtype.kind == "f" and dtype.itemsize in (4, 8), shape, n)
    size = n * n * dtype.itemsize
    data = stream.read(size + 1)
    if len(data) != size:
        raise _refused("An array of the file has not the bytes that it announces.")
    array = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(np.float64)


def _safetensors(content: bytes, n: int) -> dict[str, NDArray[np.float64]]:
    found = {}
    try:
        entries = dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, ValueError) as error:
        raise _refused("The file is neither npz nor safetensors.") from error
    for name in (*FOCK_NAMES, OVERLAP_NAME):
        if name in entries:
            entry: Any = entries[name]
            _check_type(entry["dtype"] in ("F32", "F64"), tuple(entry["shape"]), n)
            dtype = np.dtype("<f4" if entry["dtype"] == "F32" else "<f8")
            found[name] = np.frombuffer(entry["data"], dtype=dtype).reshape(n, n).astype(np.float64)
    return found


def _check_type(is_real: bool, shape: tuple[int, ...], n: int) -> None:
    if not is_real:
        raise _refused("The matrices must be of float64 or float32 numbers.")
    if len(shape) == 3 and shape[0] == 2:
        raise _refused("Matrices of both spins came; closed shells have one.")
    if shape != (n, n):
        raise _WrongShapeError(shape)


def _wrong_shape(shape: tuple[int, ...], n: int, n_cartesian: int, basis: str) -> ServiceError:
    told = " x ".join(map(str, shape[:4])) or "a single number"
    if shape == (n_cartesian, n_cartesian):
        return ServiceError(
            "unsupported_basis",
            f"The matrix is {told}: {basis} with Cartesian functions; the model's are spherical, {n} x {n}.",
            field="fock",
            hint="Run the calculation with spherical functions (5 d functions, not 6).",
        )
    return ServiceError(
        "unsupported_basis",
        f"The matrix is {told}; the structure has {n} orbitals in {basis}, the model's basis.",
        field="fock",
        hint=f"Run the calculation in {basis}, or name a model of your basis; all electrons count, and no ghost atoms.",
    )


def _refused(detail: str) -> ServiceError:
    return ServiceError("invalid_request", detail, field="fock", hint=HINT)
