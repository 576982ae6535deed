"""What a run of crystals found in its data, kept in the run folder, so that it can be released without reading them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoint.card import BasisCard
from model.checkpoint.golden import golden_entry, golden_structure
from model.checkpoint.support import Support
from model.errors import UnsupportedElementError
from model.integrals.pyscf_crystal import valence_electrons
from model.level import Level
from model.orbitals.space import OrbitalSpace
from model.preparation import PairRule
from model.structure import Structure
from training.atomic import write_json
from training.data.frame import Frame

DOMAIN_FILE = "domain.json"
MOST_GOLDEN = 3
"""Structures whose answers a checkpoint repeats when it is loaded."""


@dataclass(frozen=True, eq=False)
class Domain:
    """Orbitals, pairs and surroundings of a run's crystals.

    Attributes:
        space: orbitals of the model.
        pairs: which pairs have blocks.
        support: of the training set.
        examples: small training structures, one of each set of elements.
    """

    space: OrbitalSpace
    pairs: PairRule
    support: Support
    examples: tuple[Structure, ...]

    @classmethod
    def of(cls, frames: Sequence[Frame], space: OrbitalSpace, pairs: PairRule) -> Domain:
        """Of a run's training frames."""
        structures = [frame.structure for frame in frames]
        examples: dict[tuple[int, ...], Structure] = {}
        for structure in structures:
            kind = tuple(np.unique(structure.numbers).tolist())
            if kind not in examples or len(structure) < len(examples[kind]):
                examples[kind] = structure
        # the richest and the plainest sets of elements: a release may leave some elements out
        kinds = sorted(examples, key=lambda kind: (-len(kind), kind))
        chosen = [*kinds[: MOST_GOLDEN - 1], *kinds[MOST_GOLDEN - 1 :][-1:]]
        support = Support.of((structure, pairs.pairs(structure)) for structure in structures)
        return cls(space, pairs, support, tuple(examples[kind] for kind in chosen))

    def save(self, folder: Path) -> None:
        """Write ``domain.json``."""
        write_json(
            folder / DOMAIN_FILE,
            {
                "basis": BasisCard.of(self.space).model_dump(),
                "pair_cutoffs_angstrom": dict(self.pairs.cutoffs_angstrom or {}),
                "support": self.support.model_dump(),
                "examples": [golden_entry(structure) for structure in self.examples],
            },
        )

    @classmethod
    def load(cls, folder: Path) -> Domain:
        """Read what :meth:`save` wrote."""
        stored: dict[str, Any] = json.loads((folder / DOMAIN_FILE).read_text(encoding="utf-8"))
        return cls(
            BasisCard.model_validate(stored["basis"]).space(),
            PairRule(stored["pair_cutoffs_angstrom"]),
            Support.model_validate(stored["support"]),
            tuple(golden_structure(entry) for entry in stored["examples"]),
        )


def with_valence(space: OrbitalSpace, level: Level) -> OrbitalSpace:
    """The space, saying how many electrons the pseudopotentials of a level leave to it, where PySCF has these."""
    if space.valence is not None or level.potentials is None:
        return space
    try:
        return replace(space, valence=valence_electrons(level.potentials, space.elements))
    except UnsupportedElementError:
        return space  # another program's; without a number of electrons nobody makes a Fermi level of it
