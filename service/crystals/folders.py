"""A crystal's matrices as files of another program: DeepH's two layouts, ABACUS's sparse text, SIESTA's .HSX and .DM, each a
folder in a zip, and sisl's .nc."""

from __future__ import annotations

import importlib.util
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

PROGRAMS: Final = {"abacus": "ABACUS", "siesta": "SIESTA"}
"""Formats that runs of a program start from, which are of its own orbitals."""

PACKAGES: Final = {"siesta": ("sisl",), "sisl": ("sisl", "netCDF4")}
"""What writes a format, where that is not ours; optional."""

NOTE: Final = "WARNINGS.txt"
STAMP: Final = (1980, 1, 1, 0, 0, 0)
"""Date of the files in a zip, which has no place for none: the same answer is the same bytes."""


def program_file(
    prediction: CrystalPrediction, study: Study, card: Card, name: str, warnings: tuple[str, ...]
) -> bytes:
    """Write the files of a program: a zip of their folder, or the one file that there is.

    Args:
        prediction, study: H(R), S(R), the Fermi level, and D(R) where the format holds it.
        card: of the model.
        name: of the format: "sisl", or a key of ``model.formats.registry.FORMATS``.
        warnings: go with the files of a folder.

    Raises:
        ServiceError: ``invalid_request`` for matrices that the format has no place for.
    """
    from model.formats.matrices import Matrices
    from model.formats.registry import write
    from model.formats.siesta import write_sisl

    hamiltonian = prediction.hamiltonian
    level = study.level
    matrices = Matrices(
        prediction.structure,
        hamiltonian,
        study.overlap,
        study.density,
        fermi_energy=None if level is None else level.energy,
        n_electrons=hamiltonian.space.count_electrons(hamiltonian.numbers, prediction.structure.charge),
        program=f"{card.name} {card.version}",
    )
    with tempfile.TemporaryDirectory(prefix="export-", dir=own_folder()) as parent:
        folder = Path(parent, STEM)
        try:
            if name == "sisl":
                write_sisl(matrices, folder.with_suffix(".nc"))
                return folder.with_suffix(".nc").read_bytes()
            write(matrices, folder, name)
        except FormatError as error:
            raise ServiceError("invalid_request", error.detail, field="format_out", hint=error.hint) from error
        if warnings:
            (folder / NOTE).write_text("\n".join(warnings) + "\n", encoding="utf-8")
        return _zipped(folder)


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), STAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def refuse_unwritable(card: Card, name: str) -> None:
    """Refuse the files of a program that has not the model's orbitals, since no run of it could use them, and those that need
    a package which is not here.

    Args:
        card: of the model.
        name: of the format.

    Raises:
        ServiceError: ``unsupported_basis``, ``not_acceptable``.
    """
    program = PROGRAMS.get(name)
    if program is not None and card.basis.order != name:
        raise ServiceError(
            "unsupported_basis",
            f"The model's matrices are between the orbitals of {card.basis.name}, which {program} does not have: no run of "
            "it can start from them.",
            field="format_out",
            hint=f"Name a model that was trained on {program}'s orbitals, or ask for npz, safetensors, a deeph folder or "
            "sisl, which hold matrices in any basis.",
        )
    missing = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise ServiceError(
            "not_acceptable",
            f"This server cannot write {name}: {' and '.join(missing)} is not installed.",
            field="format_out",
            allowed=["json", "npz", "safetensors", "deeph", "deeph-legacy"],
            hint="The same matrices are in npz and in a deeph folder; the Python client makes a sisl.Hamiltonian of them "
            "(client.crystal(atoms).to_sisl()).",
        )
