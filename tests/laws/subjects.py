"""What the laws run over: every registered architecture with small random weights, and the released checkpoint.

A subject maps structures to the blocks H(R) that a network adds, by the road that service and training use
(``HamiltonianModel``). Weights are random and none is zero, because a law of zeros holds always; float64, so that laws hold
to rounding. An architecture gets all of this by its line in the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pyscf import gto

from model.architectures.registry import ARCHITECTURES
from model.blocks.block_set import BlockSet, Spin, stack_blocks
from model.blocks.matrices import cut_matrix
from model.checkpoint import store
from model.hamiltonian_model import HamiltonianModel
from model.integrals.pyscf_molecule import load_basis
from model.network_config import NetworkConfig
from model.pairs.pair_list import PairList
from model.predictor import Predictor
from model.preparation import INPUTS, PairRule
from model.second_stage.config import READS, SecondStageConfig
from model.structure import SYMBOLS, Structure
from tests.conftest import RELEASED
from tests.tolerances import LAW_FLOAT32, LAW_FLOAT64

Kind = Literal["molecule", "crystal"]
ELEMENTS = (1, 6, 7, 8, 9)
SPACE = load_basis("def2-svp", ELEMENTS)
MESSAGES_ANGSTROM = 3.0
"""Longest message: short, so that small structures have pairs on both sides of it."""
BLOCKS_ANGSTROM = {1: 0.8, 6: 2.1, 7: 2.0, 8: 1.9, 9: 1.8}
"""Radius of an element; two atoms have a block within the sum of theirs: hydrogen's end before messages do, others after."""


@dataclass(frozen=True)
class Subject:
    """Something that laws hold for.

    Attributes:
        name: for reports.
        predict: a batch of structures -> the blocks of each.
        kind: what it takes.
        spin: of its blocks.
        mirrors: whether mirror images are exact.
        rotations: whether rotations are; of a network that says "approximate" they are not.
        local: whether atoms beyond all cutoffs change nothing.
        time_reversal: whether its blocks obey time reversal.
        tolerance: what counts as equal, hartree.
    """

    name: str
    predict: Callable[[Sequence[Structure]], list[BlockSet]]
    kind: Kind
    spin: Spin
    mirrors: bool
    local: bool
    time_reversal: bool = False
    tolerance: float = LAW_FLOAT64
    rotations: bool = True


@dataclass(frozen=True)
class Case:
    """Which subject.

    Attributes:
        architecture: a key of the registry; or "released", the default checkpoint, and "served", the same in float32.
        kind: molecules or crystals.
        spin: of the blocks.
        inputs: known matrices that the network reads.
        time_reversal: whether blocks obey time reversal; spinors only.
        second_stage: its mode, or "exact in the global frame".
    """

    architecture: str
    kind: Kind
    spin: Spin = "restricted"
    inputs: tuple[str, ...] = ()
    time_reversal: bool = False
    second_stage: str = "none"

    def __str__(self) -> str:
        spin = f"{self.spin} without magnetisation" if self.time_reversal else self.spin
        stage = [] if self.second_stage == "none" else [f"second stage {self.second_stage}"]
        return "-".join([self.architecture, self.kind, spin, "+".join(self.inputs) or "no inputs", *stage])


def cases() -> list[Case]:
    """Every architecture x {molecule, crystal} x {every spin treatment} x {no known matrices, those that it can read}."""
    found = [Case("released", "molecule", inputs=INPUTS), Case("served", "molecule", inputs=INPUTS)]
    for name, declaration in ARCHITECTURES.items():
        for spin in declaration.spins:
            found.append(Case(name, "molecule", spin))
            if declaration.periodic:
                found.append(Case(name, "crystal", spin))
            if declaration.periodic and spin == "spinor":
                found.append(Case(name, "crystal", spin, time_reversal=True))
        if declaration.reads_matrices:
            found.append(Case(name, "molecule", inputs=INPUTS))
            if declaration.periodic:
                found.append(Case(name, "crystal", inputs=("overlap",)))
        found += _with_second_stage(name)
    return found


def _with_second_stage(name: str) -> list[Case]:
    """Exact for molecules and crystals, spins included; as published, which no law of spin depends on, once each."""
    declared = ARCHITECTURES[name]
    found = [Case(name, "molecule", second_stage=mode) for mode in ("exact", "faithful")]
    if declared.periodic:
        found += [Case(name, "crystal", second_stage=mode) for mode in ("exact", "faithful")]
        found += [Case(name, "crystal", spin, second_stage="exact") for spin in declared.spins if spin != "restricted"]
    if name == "deeph_e3":  # features of others are in frames by themselves, or it is the same code
        found += [Case(name, "crystal", "spinor", time_reversal=True, second_stage="exact in the global frame")]
    return found


@cache
def subject(case: Case) -> Subject:
    """The subject of a case."""
    if case.architecture not in ARCHITECTURES:
        return _checkpoint(case)
    model = _model(case)

    def predict(structures: Sequence[Structure]) -> list[BlockSet]:
        given = [
            {"overlap": overlap(s, model.preparer.pairs)} if case.kind == "crystal" and case.inputs else {}
            for s in structures
        ]
        prepared = [model.prepare(s, matrices) for s, matrices in zip(structures, given, strict=True)]
        return [model.collect(item, blocks) for item, blocks in zip(prepared, model.run(prepared), strict=True)]

    return Subject(
        str(case),
        predict,
        case.kind,
        case.spin,
        mirrors=model.network.config.symmetry == "O(3)",
        rotations=model.network.config.symmetry != "approximate",
        local=set(case.inputs) <= {"overlap"},
        time_reversal=case.time_reversal,
    )


def _model(case: Case) -> HamiltonianModel:
    declaration = ARCHITECTURES[case.architecture]
    config = NetworkConfig.from_mapping(declaration.tiny)
    backbone = replace(config.backbone_config, cutoff_angstrom=MESSAGES_ANGSTROM)
    if declaration.reads_matrices:
        backbone = replace(backbone, n_inputs=len(case.inputs))
    mode, _, other = case.second_stage.partition(" in ")
    stage = SecondStageConfig(
        mode,
        hidden=8,
        blocks=2,
        heads=2,
        lmax=2,
        reads=READS,
        radial_size=6,
        invariants=3,
        rank=2,
        bond_frames=not other,
    )
    torch.manual_seed(11)
    crystal = case.kind == "crystal"
    model = HamiltonianModel(
        replace(config, backbone_config=backbone, second_stage=stage),
        SPACE,
        inputs=case.inputs,
        source="given" if crystal else "pyscf_molecule",
        reference=store.load(RELEASED).model.reference if case.inputs == INPUTS else None,
        pairs=PairRule(block_cutoffs()) if crystal else None,
        spin=case.spin,
        time_reversal=case.time_reversal,
    ).double()
    with torch.no_grad():
        for parameter in model.network.parameters():
            if not parameter.any():  # a read-out starts at zero
                parameter.normal_(std=0.1)
    return model.eval()


def block_cutoffs() -> dict[str, float]:
    """Longest pair with a block, by "A-B"."""
    return {
        "-".join(sorted((SYMBOLS[a], SYMBOLS[b]))): BLOCKS_ANGSTROM[a] + BLOCKS_ANGSTROM[b]
        for a in ELEMENTS
        for b in ELEMENTS
    }


def _checkpoint(case: Case) -> Subject:
    served = case.architecture == "served"
    predictor = Predictor.load(RELEASED, dtype=torch.float32 if served else torch.float64)

    def predict(structures: Sequence[Structure]) -> list[BlockSet]:
        return [
            cut_matrix(SPACE, found.structure.numbers, PairList.complete(found.structure), found.hamiltonian)
            for found in predictor.predict(list(structures), orbitals=False)
        ]

    tolerance = LAW_FLOAT32 if served else LAW_FLOAT64
    return Subject(str(case), predict, "molecule", "restricted", mirrors=True, local=False, tolerance=tolerance)


def overlap(structure: Structure, rule: PairRule) -> BlockSet:
    """S(R) of a crystal: PySCF's overlap between the atoms of the cell and all images that they have pairs with."""
    pairs = rule.pairs(structure)
    ends = np.column_stack([pairs.second, pairs.shift])
    images, image = np.unique(ends, axis=0, return_inverse=True)
    positions = structure.positions_angstrom
    cell = np.zeros((3, 3)) if structure.cell_angstrom is None else structure.cell_angstrom
    home = _atoms(structure.numbers, positions)
    away = _atoms(structure.numbers[images[:, 0]], positions[images[:, 0]] + images[:, 1:] @ cell)
    matrix = gto.intor_cross("int1e_ovlp", home, away)
    rows, columns = home.aoslice_by_atom()[:, 2:], away.aoslice_by_atom()[:, 2:]
    blocks = [matrix[slice(*rows[i]), slice(*columns[k])] for i, k in zip(pairs.first, image.ravel(), strict=True)]
    return stack_blocks(SPACE, structure.numbers, pairs, blocks)


def _atoms(numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> gto.Mole:
    atoms = [(SYMBOLS[number], tuple(position)) for number, position in zip(numbers, positions, strict=True)]
    return gto.M(atom=atoms, basis="def2-svp", unit="Angstrom", spin=None, verbose=0, parse_arg=False)
