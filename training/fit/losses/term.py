"""What a loss term is.

A term says what it needs of a label (``prepare``: arrays, made once per sample and only if the term is used), how strongly it
pulls at each moment of the run (``weight``), and what it makes of a batch's error (``__call__``). Arrays of several samples
are padded with zeros at their ends and stacked, whatever they are; equal names of two terms are equal arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from torch import Tensor

from model.preparation import Prepared
from training.data.frame import DatasetError, Frame
from training.fit.losses.errors import BatchErrors


@dataclass(frozen=True, eq=False)
class Label:
    """A frame beside what the model makes of its structure.

    Attributes:
        frame: the label.
        prepared: the structure, as the network reads it.
    """

    frame: Frame
    prepared: Prepared

    @cached_property
    def orbitals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Energies (mo,), hartree, and orbitals (ao, mo) of the label; orbitals' rows in the standard order.

        The standard order: atom by atom, an element's template rows ascending, signs of the real spherical harmonics; the
        order of ``BatchErrors.matrix``.

        Raises:
            DatasetError: the label is not a closed-shell molecule's.
        """
        frame, space = self.frame, self.prepared.blocks.space
        if not frame.is_molecular:
            raise DatasetError(
                f"{frame.molecule}/{frame.index} is a crystal or has spin; a loss term of orbitals needs closed-shell "
                "molecules: set [loss] guess and spectral to 0."
            )
        overlap = np.asarray(self.prepared.integrals.overlap)
        energies, orbitals = scipy.linalg.eigh(frame.in_space(space).fock, overlap)
        order, signs = standard_order(self)
        return energies, signs[:, None] * orbitals[order]

    @property
    def n_occupied(self) -> int:
        """Doubly occupied orbitals."""
        return (
            self.prepared.blocks.space.count_electrons(self.frame.structure.numbers, self.frame.structure.charge) // 2
        )


def standard_order(label: Label) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Program's index and sign of each orbital in the standard order, (ao,)."""
    space, numbers = label.prepared.blocks.space, label.frame.structure.numbers
    offsets = space.atom_offsets(numbers)
    order, signs = [], []
    for number, start in zip(numbers.tolist(), offsets, strict=False):
        rows, sign = space.template_places[number]
        own = np.argsort(rows)
        order.append(start + own)
        signs.append(sign[own])
    return np.concatenate(order), np.concatenate(signs)


class Term(Protocol):
    """One term of the loss."""

    @property
    def name(self) -> str:
        """Of the term."""
        ...

    def prepare(self, label: Label) -> Mapping[str, NDArray[np.float64]]:
        """What the term needs of a label besides its blocks.

        Raises:
            DatasetError: a label that the term is not made for.
        """
        ...

    def weight(self, progress: float) -> float:
        """Its weight at this share of the run's steps; 0 where it is off."""
        ...

    def __call__(self, errors: BatchErrors) -> Tensor:
        """Value of each structure, (structure,); times the weight it is a part of the loss."""
        ...

    def measures(self, errors: BatchErrors) -> Mapping[str, Tensor]:
        """What validation reports of each structure, by the names of docs/metrics.md, (structure,)."""
        ...


@dataclass(frozen=True)
class Scheduled:
    """The weight of a term that enters at some time of the run.

    Attributes:
        strength: its weight.
        starts_at: share of the run's steps after which it enters.
    """

    strength: float
    starts_at: float = 0.0

    def weight(self, progress: float) -> float:
        """Its strength from ``starts_at`` on."""
        return self.strength if progress >= self.starts_at else 0.0


def prepare_terms(terms: Iterable[Term], label: Label) -> dict[str, NDArray[np.float64]]:
    """What some terms need of a label."""
    return {name: value for term in terms for name, value in term.prepare(label).items()}
