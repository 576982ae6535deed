"""What a caller states beside a molecule, in one record, and the JSON body that every request makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from tracegrad_client.structure import Molecule, Sent, as_molecule, as_sent


class Options(TypedDict, total=False):
    """The keywords of the client's methods; None, like leaving one out, states nothing.

    Attributes:
        charge: total charge in units of e, for kinds of molecules that do not say so themselves; 0 by default.
        multiplicity: 2S + 1, likewise; 1 by default.
        xc: the functional that the calculation will use, as PySCF spells it.
        basis: the name of the basis that it will use.
    """

    charge: int | None
    multiplicity: int | None
    xc: str | None
    basis: str | None


@dataclass(frozen=True)
class Ask:
    """:class:`Options`, with the name of a model (None: the server chooses)."""

    model: str | None = None
    charge: int | None = None
    multiplicity: int | None = None
    xc: str | None = None
    basis: str | None = None

    def sent(self, value: Any) -> Sent:
        """What is sent for ``value``: anything that :meth:`molecule` takes, or a structure file or its name.

        Raises:
            InvalidInputError: see :func:`tracegrad_client.structure.as_sent`.
        """
        return as_sent(value, charge=self.charge, multiplicity=self.multiplicity)

    def molecule(self, value: Any) -> Molecule:
        """What is sent for ``value``: a PySCF Mole, an ase.Atoms, a QCElemental Molecule or (numbers, positions in Å).

        Raises:
            InvalidInputError: see :func:`tracegrad_client.structure.as_molecule`.
        """
        return as_molecule(value, charge=self.charge, multiplicity=self.multiplicity)

    def body(self, molecule: Sent, **more: Any) -> dict[str, Any]:
        """The JSON body of a request about one molecule; ``more`` are fields of that route alone."""
        return {"structure": molecule.structure(), **self._options(molecule), **more}

    def batch_body(self, molecules: Sequence[Sent], **more: Any) -> dict[str, Any]:
        """The JSON body of a request about molecules of one charge and multiplicity."""
        return {"structures": [each.structure() for each in molecules], **self._options(molecules[0]), **more}

    def _options(self, molecule: Sent) -> dict[str, Any]:
        # what is None is the server's to find, in the file or by itself
        stated = {
            "charge": molecule.charge,
            "multiplicity": molecule.multiplicity,
            "xc": self.xc,
            "basis": self.basis,
        }
        return {
            "model": self.model,
            "ao_order": "pyscf",
            "energy_unit": "hartree",
            **{name: value for name, value in stated.items() if value is not None},
        }
