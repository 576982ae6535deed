"""A crystal's matrices as the folder of another program, in a zip: DeepH's two layouts and ABACUS's sparse text."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model.errors import FormatError
from service.crystals.study import Study
from service.errors import ServiceError
from service.scratch import own_folder

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import CrystalPrediction

STEM: Final = "prediction"
"""The folder in the zip."""

PROGRAMS: Final = {"abacus": "ABACUS"}
"""Formats that runs of a program start from, which are of its own orbitals."""

NOTE: Final = "WARNINGS.txt"
STAMP: Final = (1980, 1, 1, 0, 0, 0)
"""Date of the files in a zip, which has no place for none: the same answer is the same bytes."""


def zipped_folder(
    prediction: CrystalPrediction, study: Study, card: Card, name: str, warnings: tuple[str, ...]
) -> bytes:
    """Write a folder and zip it.

    Args:
        prediction, study: H(R), S(R), and the Fermi level.
        card: of the model.
        name: of the format, a key of ``model.formats.registry.FORMATS``.
        warnings: go with the files.

    Raises:
        ServiceError: ``invalid_request`` for matrices that the format has no place for.
    """
    from model.formats.matrices import Matrices
    from model.formats.registry import write

    hamiltonian = prediction.hamiltonian
    level = study.level
    matrices = Matrices(
        prediction.structure,
        hamiltonian,
        study.overlap,
        fermi_energy=None if level is None else level.energy,
        n_electrons=hamiltonian.space.count_electrons(hamiltonian.numbers, prediction.structure.charge),
        program=f"{card.name} {card.version}",
    )
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="export-", dir=own_folder()) as parent:
        folder = Path(parent, STEM)
        try:
            write(matrices, folder, name)
        except FormatError as error:
            raise ServiceError("invalid_request", error.detail, field="format_out", hint=error.hint) from error
        if warnings:
            (folder / NOTE).write_text("\n".join(warnings) + "\n", encoding="utf-8")
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(parent).as_posix(), STAMP)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def refuse_foreign_basis(card: Card, name: str) -> None:
    """Refuse the files of a program that has not the model's orbitals: no run of it could use them.

    Args:
        card: of the model.
        name: of the format.

    Raises:
        ServiceError: ``unsupported_basis``.
    """
    program = PROGRAMS.get(name)
    if program is None or card.basis.order == name:
        return
    raise ServiceError(
        "unsupported_basis",
        f"The model's matrices are between the orbitals of {card.basis.name}, which {program} does not have: no run of it "
        "can start from them.",
        field="format_out",
        hint=f"Name a model that was trained on {program}'s orbitals, or ask for npz, safetensors or a deeph folder, which "
        "hold matrices in any basis.",
    )
