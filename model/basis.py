"""AOBasis: the shells of each element, and the template that gives every element's block the same shape.

A basis is data: a name and, for each element, the angular momentum of its shells in PySCF's order (ascending l). For
def2-SVP: H (0, 0, 1) is 5 AOs; C, N, O, F (0, 0, 0, 1, 1, 2) are 14.

The network emits blocks of one shape, the *template*: for each l as many shells as the richest element has. An element
uses the first shells of each l (H in def2-SVP: template rows 0, 1, 3, 4, 5 of 14). Rows inside a shell are in e3nn
order, m = -l..l.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.ao_order import pyscf_to_e3nn
from model.errors import UnsupportedBasisError, UnsupportedElementError
from model.structure import SYMBOLS


@dataclass(frozen=True)
class AOBasis:
    """Shells per element.

    Attributes:
        name: PySCF's name of the basis.
        shells: atomic number -> angular momenta of its shells, ascending.
        fingerprint: SHA-256 over exponents and contraction coefficients (``electronic.molecule.basis_fingerprint``).

    Raises:
        UnsupportedBasisError: no elements, or shells that are not in ascending order.
    """

    name: str
    shells: Mapping[int, tuple[int, ...]]
    fingerprint: str

    def __post_init__(self) -> None:
        if not self.shells:
            raise UnsupportedBasisError(f"Basis {self.name!r} lists no elements.")
        for number, ls in self.shells.items():
            if not ls or list(ls) != sorted(ls) or min(ls) < 0:
                raise UnsupportedBasisError(
                    f"Shells {tuple(ls)} of {SYMBOLS[number]} are not ascending angular momenta.",
                    hint="List the shells in PySCF's order: all s, then all p, then all d.",
                )

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers, ascending."""
        return tuple(sorted(self.shells))

    @cached_property
    def template(self) -> tuple[int, ...]:
        """Angular momenta of the template's shells: (0, 0, 0, 1, 1, 2) for def2-SVP of H C N O F."""
        counts = [Counter(ls) for ls in self.shells.values()]
        highest = max(max(ls) for ls in self.shells.values())
        return tuple(ang for ang in range(highest + 1) for _ in range(max(count[ang] for count in counts)))

    @cached_property
    def template_size(self) -> int:
        """Rows of a template block: 14 for def2-SVP."""
        return sum(2 * ang + 1 for ang in self.template)

    def shells_of(self, number: int) -> tuple[int, ...]:
        """Shells of one element.

        Raises:
            UnsupportedElementError: the basis does not list it.
        """
        try:
            return tuple(self.shells[int(number)])
        except KeyError:
            raise UnsupportedElementError(
                f"Element {SYMBOLS[int(number)]} is not in this basis.",
                allowed=[SYMBOLS[z] for z in self.elements],
                field="numbers",
            ) from None

    def count_orbitals(self, numbers: Sequence[int] | NDArray[np.int64]) -> int:
        """Number of AOs of a molecule."""
        return int(self.atom_offsets(numbers)[-1])

    def atom_offsets(self, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """First AO of each atom and, last, the number of AOs; shape (atom + 1,)."""
        sizes = [sum(2 * ang + 1 for ang in self.shells_of(z)) for z in numbers]
        return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def template_shells(self, number: int) -> tuple[int, ...]:
        """Index in the template of each shell of an element: (0, 1, 3) for H in def2-SVP."""
        seen: Counter[int] = Counter()
        result = []
        for ang in self.shells_of(number):
            result.append(self.template.index(ang) + seen[ang])
            seen[ang] += 1
        return tuple(result)

    def template_rows(self, number: int) -> NDArray[np.int64]:
        """Row in the template of each AO of an element, AOs in *PySCF order*, rows in e3nn order; shape (ao,).

        This is the one place where the two orders meet: scattering with it turns PySCF order into e3nn order, gathering
        with it turns e3nn order back.
        """
        offsets = np.concatenate([[0], np.cumsum([2 * ang + 1 for ang in self.template])])
        rows_e3nn = np.concatenate(
            [
                offsets[shell] + np.arange(2 * ang + 1)
                for shell, ang in zip(self.template_shells(number), self.shells_of(number), strict=True)
            ]
        )
        rows = np.empty_like(rows_e3nn)
        rows[pyscf_to_e3nn(self.shells_of(number))] = rows_e3nn
        return rows
