"""SCF cycles of every molecule of ASE's G2 set that the checkpoint is for, from PySCF's minao and from the guess. A table.

``python benchmarks/g2_molecules.py [checkpoint folder]``; eight minutes on one core. The guess is used as it is, without the
client's guard. Many of these formulas are in the training set, so this is no held-out figure: it asks whether something
that a chemist draws on the first day goes wrong.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import torch
from ase.build import molecule
from ase.collections import g2
from machine import DEFAULT_CHECKPOINT, describe
from pyscf import lib

from model.errors import DomainError
from model.integrals.pyscf_molecule import build_mole
from model.predictor import Predictor
from model.structure import Structure
from training.evaluate.scf import run_scf


def main() -> None:
    """Print one row per molecule, then the sums."""
    torch.set_num_threads(1)
    lib.num_threads(1)
    predictor = Predictor.load(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_CHECKPOINT)
    print(f"{describe()}; {predictor.card.name} {predictor.card.version}\n")
    print("| molecule | cycles, minao | cycles, guess | difference of the energies, hartree | guess protected |")
    print("|---|---|---|---|---|")
    cycles: list[tuple[int, int]] = []
    largest = 0.0
    for name in g2.names:
        atoms = molecule(name)
        if len(atoms) == 1 or atoms.get_initial_magnetic_moments().any():  # open shells
            continue
        structure = Structure(atoms.numbers, atoms.positions)
        try:
            predictor.check(structure)
        except DomainError:
            continue
        mole = build_mole(structure, predictor.card.basis.name)
        guess = predictor.predict([structure])[0].guess
        assert guess is not None
        minao, ours = (run_scf(mole, predictor.card.xc, density) for density in (None, guess.density_matrix))
        if not (minao.converged and ours.converged):
            print(f"{name} did not converge")
        difference = ours.energy - minao.energy
        cycles.append((minao.cycles, ours.cycles))
        largest = max(largest, abs(difference))
        protected = "yes" if guess.has_intruder else ""
        print(f"| {name} | {minao.cycles} | {ours.cycles} | {difference:.1e} | {protected} |", flush=True)
    before, after = (sum(column) / len(cycles) for column in zip(*cycles, strict=True))
    print(
        f"\n{len(cycles)} molecules: {before:.2f} -> {after:.2f} cycles, {after / before:.3f}; energies to {largest:.1e}"
    )
    saved = sorted(Counter(ours - minao for minao, ours in cycles).items())
    print("cycles less minao's: " + ", ".join(f"{change:+d} in {count}" for change, count in saved))


if __name__ == "__main__":
    main()
