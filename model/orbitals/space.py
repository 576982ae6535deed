"""OrbitalSpace: the shells of each element, and the template that gives every element's block the same shape.

A basis is data: a name and, for each element, the angular momentum of its shells in the order in which its program lists
them (PySCF: ascending l). For def2-SVP: H (0, 0, 1) is 5 orbitals; C, N, O, F (0, 0, 0, 1, 1, 2) are 14.

The network emits blocks of one shape, the *template*: for each l as many shells as the richest element has. An element
uses the first shells of each l (H in def2-SVP: template rows 0, 1, 3, 4, 5 of 14). Rows inside a shell are in the
standard order, m = -l..l (``model.orbitals.orders``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.errors import UnsupportedBasisError, UnsupportedElementError
from model.orbitals.orders import ORDERS, OrbitalOrder
from model.structure import SYMBOLS


@dataclass(frozen=True)
class OrbitalSpace:
    """Shells per element.

    Attributes:
        name: of the basis; PySCF's name where PySCF has it.
        shells: atomic number -> angular momenta of its shells, in the program's sequence.
        fingerprint: SHA-256 over what the basis functions are made of; empty where nobody knows (a file of matrices).
        order: program whose orbital order and signs matrices in this space have (``orders.ORDERS``).
        valence: atomic number -> electrons of the neutral atom that the basis describes; None means all of them.

    Raises:
        UnsupportedBasisError: no elements, an unknown order, or shells that are no angular momenta (for PySCF: not
            ascending).
    """

    name: str
    shells: Mapping[int, tuple[int, ...]]
    fingerprint: str = ""
    order: str = "pyscf"
    valence: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.shells:
            raise UnsupportedBasisError(f"Basis {self.name!r} lists no elements.")
        if self.order not in ORDERS:
            raise UnsupportedBasisError(f"Orbital order {self.order[:40]!r} is not known.", allowed=list(ORDERS))
        for number, ls in self.shells.items():
            if not ls or min(ls) < 0 or (self.order == "pyscf" and list(ls) != sorted(ls)):
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
        sizes = self.orbitals_of_element
        offsets = np.zeros(len(numbers) + 1, dtype=np.int64)
        # an element that the basis does not list is refused by ``shells_of``
        counts = [sizes[z] if z in sizes else len(self.shells_of(z)) for z in np.asarray(numbers).tolist()]
        np.cumsum(counts, out=offsets[1:])
        return offsets

    @cached_property
    def orbitals_of_element(self) -> Mapping[int, int]:
        """Orbitals of each element of the basis."""
        return {int(number): sum(2 * ang + 1 for ang in ls) for number, ls in self.shells.items()}

    def template_shells(self, number: int) -> tuple[int, ...]:
        """Index in the template of each shell of an element: (0, 1, 3) for H in def2-SVP."""
        seen: Counter[int] = Counter()
        result = []
        for ang in self.shells_of(number):
            result.append(self.template.index(ang) + seen[ang])
            seen[ang] += 1
        return tuple(result)

    def count_electrons(self, numbers: Sequence[int] | NDArray[np.int64], charge: int = 0) -> int:
        """Electrons that the space describes: valence electrons of the neutral atoms less the total charge."""
        neutral = sum(int(z) if self.valence is None else self.valence[int(z)] for z in numbers)
        return neutral - charge

    def to_standard(self, number: int) -> OrbitalOrder:
        """From an element's orbitals in this space's order to the standard order."""
        return OrbitalOrder.of(self.shells_of(number), self.order)

    @cached_property
    def template_places(self) -> Mapping[int, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """:meth:`template_rows` and :meth:`row_signs` of every element."""
        return {number: (self.template_rows(number), self.row_signs(number)) for number in self.shells}

    def template_rows(self, number: int) -> NDArray[np.int64]:
        """Row in the template of each orbital of an element, orbitals in *this space's order*, rows in the standard one;
        shape (ao,). Signs are :meth:`to_standard`'s.

        This is the one place where the two orders meet: scattering with it turns the program's order into the standard
        order, gathering with it turns it back.
        """
        offsets = np.concatenate([[0], np.cumsum([2 * ang + 1 for ang in self.template])])
        standard = np.concatenate(
            [
                offsets[shell] + np.arange(2 * ang + 1)
                for shell, ang in zip(self.template_shells(number), self.shells_of(number), strict=True)
            ]
        )
        rows = np.empty_like(standard)
        rows[self.to_standard(number).index] = standard
        return rows

    def row_signs(self, number: int) -> NDArray[np.float64]:
        """Sign of each orbital of an element against the template row it stands in, this space's order, (ao,)."""
        return self.to_standard(number).inverse().sign
