"""``tracegrad check``: how good the model is on a calculation of your own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tracegrad_client.ask import Options
from tracegrad_client.client import Client
from tracegrad_client.commands.many import warn
from tracegrad_client.containers import load_tensors
from tracegrad_client.errors import InvalidInputError
from tracegrad_client.structure_file import StructureFile

ORDERS: Final = ("pyscf", "e3nn", "openmx", "siesta", "abacus", "gpaw", "orca")
_HINT: Final = "numpy.savez('fock.npz', fock=mf.get_fock(), overlap=mf.get_ovlp())"


def add(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    """The command ``check``."""
    parser = commands.add_parser(
        "check", parents=parents, help="compare the prediction with a converged Fock matrix of your own"
    )
    parser.add_argument("structure", help="structure file, or a PySCF chkfile of a run, which needs no second file")
    parser.add_argument(
        "fock", nargs="?", help="npz, npy or safetensors file with `fock` and, to check basis and order, `overlap`"
    )
    parser.add_argument("--format", help="ASE's name of the structure file's format, where the suffix does not tell")
    parser.add_argument("--ao-order", choices=ORDERS, default="pyscf", help="of the orbitals in the matrices")
    parser.add_argument("--energy-unit", choices=("hartree", "eV"), default="hartree", help="of the matrix")
    parser.add_argument("--xc", help="the functional of the calculation: the server warns if the model's is another")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    parser.set_defaults(run=run, parser=parser)


def run(client: Client, chosen: argparse.Namespace) -> int:
    """Print the comparison."""
    options: Options = {"charge": chosen.charge, "multiplicity": chosen.multiplicity, "xc": chosen.xc}
    molecule: Any
    overlap: NDArray[Any] | None
    if chosen.fock is None:
        try:
            from tracegrad_client.adapters.pyscf.converged import of_chkfile
        except ImportError as error:
            raise InvalidInputError(
                "A chkfile is read by PySCF, which is not installed.", hint=f"Give two files: {_HINT}."
            ) from error
        molecule, fock, overlap, level = of_chkfile(chosen.structure)
        options = {**options, **level}
    else:
        molecule = StructureFile.read(chosen.structure, chosen.format)
        fock, overlap = _matrices(Path(chosen.fock))
    found = client.evaluate(
        molecule, fock, overlap, ao_order=chosen.ao_order, energy_unit=chosen.energy_unit, **options
    )
    warn(found.warnings)
    print(json.dumps(found.as_dict()) if chosen.json else found.table())
    return 0


def _matrices(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The Fock matrix and the overlap of a file; nothing is unpickled.

    Raises:
        InvalidInputError: no such arrays.
        OSError: it cannot be read.
    """
    if path.suffix.lower() == ".safetensors":
        arrays: dict[str, NDArray[Any]] = load_tensors(path).arrays
    else:
        try:
            stored = np.load(path, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                return stored, None
            with stored:
                arrays = {name: stored[name] for name in ("fock", "hamiltonian", "overlap") if name in stored.files}
        except (ValueError, EOFError) as error:
            raise InvalidInputError(f"{path} is no npz or npy file of numbers.", hint=f"Make one: {_HINT}.") from error
    named = [arrays[name] for name in ("fock", "hamiltonian") if name in arrays]
    if len(named) != 1:
        raise InvalidInputError(f"{path} has no array that is named fock.", hint=f"Make one: {_HINT}.")
    return named[0], arrays.get("overlap")
