"""Of judged candidates, those to label: half where the checkpoint expects to be wrong, half as the pool has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from training.generate.geometry import import_extra
from training.selection.expected import Judged

FINGERPRINT_RADIUS, FINGERPRINT_BITS = 2, 2048

ALIKE: Final = 0.7
"""Tanimoto similarity of Morgan fingerprints from which on two molecules teach the same."""


@dataclass(frozen=True)
class Rules:
    """What is chosen.

    Attributes:
        count: molecules in all, at most.
        random_share: of them that are drawn from the pool whatever their error. By expected error alone the strangest
            molecules of a pool come first, and nobody computes those.
        per_formula: molecules of one formula, at most.
        seed: of the draw.
    """

    count: int
    random_share: float = 0.5
    per_formula: int = 3
    seed: int = 0


def choose(judged: Sequence[Judged], rules: Rules) -> list[Judged]:
    """The chosen ones, largest expected error first.

    Args:
        judged: candidates that may be trained on and have an expected error.
        rules: how many, and of which.
    """
    usable = sorted(judged, key=lambda one: (-one.error, one.smiles))
    taking = _Taking(rules.per_formula)
    n_random = round(rules.count * rules.random_share)
    chosen = list(taking.first(usable, rules.count - n_random))
    drawn = np.random.default_rng(rules.seed).permutation(len(usable))
    chosen += taking.first([usable[place] for place in drawn], rules.count - len(chosen))
    return sorted(chosen, key=lambda one: (-one.error, one.smiles))


class _Taking:
    """Takes molecules that are unlike all that were taken before."""

    def __init__(self, per_formula: int) -> None:
        self.per_formula = per_formula
        self.formulas: Counter[str] = Counter()
        self.fingerprints: list[Any] = []
        self.generator = import_extra("rdkit.Chem.rdFingerprintGenerator").GetMorganGenerator(
            radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS
        )

    def first(self, candidates: Sequence[Judged], count: int) -> Iterator[Judged]:
        """The first ``count`` that are new."""
        for candidate in candidates:
            if count <= 0:
                return
            if self._takes(candidate.smiles):
                count -= 1
                yield candidate

    def _takes(self, smiles: str) -> bool:
        chem = import_extra("rdkit.Chem")
        molecule = chem.MolFromSmiles(smiles)
        formula = import_extra("rdkit.Chem.rdMolDescriptors").CalcMolFormula(molecule)
        fingerprint = self.generator.GetFingerprint(molecule)
        similarities = import_extra("rdkit.DataStructs").BulkTanimotoSimilarity(fingerprint, self.fingerprints)
        if self.formulas[formula] >= self.per_formula or max(similarities, default=0.0) >= ALIKE:
            return False
        self.formulas[formula] += 1
        self.fingerprints.append(fingerprint)
        return True
