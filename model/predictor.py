"""Predictor: the one door for callers. Structures in, Hamiltonians, orbitals and initial guesses out.

    structure -> integrals and H0 (PySCF, CPU, float64) -> network (device, float32) -> H = H0 + damped dH (float64)
              -> orbitals -> density -> checks

A batch runs through the network at once; everything else is per molecule.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.architectures.interface import InputCoefficients
from model.blocks.assemble import BlockMap, gather
from model.blocks.standardise import Encoder
from model.checkpoint import store
from model.checkpoint.card import Card
from model.electronic.dependence import damp_correction
from model.electronic.guess import GuessChecks, InitialGuess, check_guess, make_guess
from model.electronic.solve import Orbitals, solve
from model.errors import CheckpointError, NumericalError
from model.integrals import pyscf_molecule as molecule
from model.pairs.graph import build_graph
from model.reference.fitted import ReferenceResult, input_matrices
from model.structure import Structure
from model.surroundings import surroundings

GOLDEN_TOLERANCE_HARTREE = 2e-5
"""Orbital energies of the golden molecules must agree to this: an order above float32 noise, far below a wrong weight."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What is known of one structure. Matrices are (ao, ao), hartree, PySCF order.

    Attributes:
        structure: what was asked.
        hamiltonian: predicted Kohn-Sham matrix, symmetric.
        reference: H0, its part without the network.
        overlap: S.
        ao_labels: "0 O 1s" ..., (ao,).
        atom_offsets: first AO of each atom and, last, the number of AOs.
        orbitals: eigenpairs and occupations, protected from intruders as the guess is; None if not asked for.
        guess: density matrix and orbitals; None if not asked for.
        checks: sanity of the guess; None if not asked for.
        in_domain: False if the structure is larger than anything the checkpoint was tested on.
        warnings: for people, empty if all is well.
        timings_ms: "integrals", "forward" (the whole batch's) and "eigensolve".
    """

    structure: Structure
    hamiltonian: NDArray[np.float64]
    reference: NDArray[np.float64]
    overlap: NDArray[np.float64]
    ao_labels: tuple[str, ...]
    atom_offsets: tuple[int, ...]
    orbitals: Orbitals | None
    guess: InitialGuess | None
    checks: GuessChecks | None
    in_domain: bool
    warnings: tuple[str, ...]
    timings_ms: Mapping[str, float]

    def block(self, row: int, column: int) -> NDArray[np.float64]:
        """Block of two atoms, (ao of ``row``, ao of ``column``)."""
        offsets = self.atom_offsets
        return self.hamiltonian[offsets[row] : offsets[row + 1], offsets[column] : offsets[column + 1]]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A structure after integrals and H0, before the network.

    Attributes:
        cost: of the network, in blocks: atoms and pairs.
    """

    structure: Structure
    integrals: molecule.Integrals
    reference: ReferenceResult
    block_map: BlockMap
    diagonal: NDArray[np.float64]
    pair: NDArray[np.float64]
    milliseconds: float

    @property
    def cost(self) -> int:
        return self.block_map.n_atoms + self.block_map.n_pairs


class Predictor:
    """A checkpoint, ready to predict.

    :meth:`predict` is three steps that a server runs in different threads: :meth:`prepare` and :meth:`finish` may run in
    several at once, :meth:`forward` in one.

    Args:
        checkpoint: as loaded.
        folder: where it came from.
        device: torch device of the network.
    """

    def __init__(self, checkpoint: store.Checkpoint, folder: Path, device: str) -> None:
        self.checkpoint = checkpoint
        self.folder = folder
        self.device = device
        self.basis = checkpoint.card.ao_basis()
        self.encoder = Encoder(self.basis)
        self.dtype = next(checkpoint.network.parameters()).dtype

    @property
    def card(self) -> Card:
        """What the checkpoint is."""
        return self.checkpoint.card

    @classmethod
    def load(
        cls, folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32, verify_golden: bool = True
    ) -> Predictor:
        """Load a checkpoint folder and prove that it still gives its stored answers.

        Args:
            folder: with card.json, weights.safetensors, golden.json.
            device: "cpu", "cuda", "cuda:1" ...
            dtype: float32, or float64 for tests of symmetry.
            verify_golden: predict the golden molecules and compare.

        Raises:
            CheckpointError: a folder that must not be served.
        """
        predictor = cls(store.load(Path(folder), device=device, dtype=dtype), Path(folder), device)
        loaded = molecule.load_basis(predictor.basis.name, predictor.card.elements)
        if loaded.fingerprint != predictor.basis.fingerprint or loaded.shells != dict(predictor.basis.shells):
            raise CheckpointError(
                f"Basis {predictor.basis.name!r} of the installed PySCF is not the one of checkpoint "
                f"{predictor.card.name!r}.",
                hint="Install the PySCF version that the card's 'libraries' names.",
            )
        if verify_golden:
            predictor.verify_golden()
        return predictor

    def verify_golden(self) -> None:
        """Compare with the stored answers.

        Raises:
            CheckpointError: a deviation above ``GOLDEN_TOLERANCE_HARTREE``.
        """
        for entry in self.checkpoint.golden["molecules"]:
            structure = Structure(np.array(entry["numbers"]), np.array(entry["positions_angstrom"]))
            orbitals = self.predict([structure])[0].orbitals
            assert orbitals is not None
            stored = np.array(entry["orbital_energies"])
            error = float(np.abs(orbitals.energies - stored).max()) if len(stored) == len(orbitals.energies) else np.inf
            if not error <= GOLDEN_TOLERANCE_HARTREE:
                raise CheckpointError(
                    f"Checkpoint {self.card.name!r} does not reproduce its stored answer for {entry['name']}: "
                    f"orbital energies differ by {error:.1e} hartree, {GOLDEN_TOLERANCE_HARTREE:.0e} is allowed.",
                    hint="The code or a library changed what the network computes; do not serve it.",
                )

    def check(self, structure: Structure) -> None:
        """Refuse a structure outside the checkpoint's domain of elements, charge, spin and periodicity.

        Raises:
            DomainError: one of its leaves.
        """
        self.card.check(structure)

    def count_orbitals(self, structure: Structure) -> int:
        """Number of AOs, without any integral."""
        return self.basis.count_orbitals(structure.numbers)

    def predict(self, structures: Sequence[Structure], *, orbitals: bool = True) -> list[Prediction]:
        """Predict a batch.

        Args:
            structures: at least one; each must pass :meth:`check`.
            orbitals: also diagonalise, and make and check the guess.

        Raises:
            ModelError: one of its leaves; the first structure to blame decides.
        """
        for structure in structures:
            self.check(structure)
        prepared = [self.prepare(structure) for structure in structures]
        started = time.perf_counter()
        hamiltonians = self.forward(prepared)
        forward_ms = 1e3 * (time.perf_counter() - started)
        return [
            self.finish(item, hamiltonian, orbitals=orbitals, forward_ms=forward_ms)
            for item, hamiltonian in zip(prepared, hamiltonians, strict=True)
        ]

    def prepare(self, structure: Structure) -> Prepared:
        """Integrals, H0 and what the network reads, on the CPU; the structure has passed :meth:`check`."""
        started = time.perf_counter()
        data = molecule.integrals(structure, self.basis.name)
        reference = self.checkpoint.reference
        result = reference.evaluate(surroundings(structure, data, reference.exponents))
        block_map = BlockMap.of(structure.numbers, self.basis)
        diagonal, pair = self.encoder.encode(input_matrices(data.overlap, result), block_map)
        elapsed = 1e3 * (time.perf_counter() - started)
        return Prepared(structure, data, result, block_map, diagonal, pair, elapsed)

    @torch.inference_mode()
    def forward(self, prepared: Sequence[Prepared]) -> list[NDArray[np.float64]]:
        """H0 plus the network's correction for each molecule, (ao, ao), hartree; one batch.

        Raises:
            NumericalError: one of them is not finite.
        """
        network, tables = self.checkpoint.network, self.checkpoint.standardisation
        graph = build_graph(
            [item.structure for item in prepared],
            cutoff_angstrom=network.config.backbone_config.cutoff_angstrom,
            dtype=self.dtype,
            device=self.device,
        )
        atom_type, pair_type = network.types(graph)

        def tensor(parts: list[NDArray[np.float64]]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device=self.device, dtype=self.dtype)

        inputs = tables.inputs(
            tensor([item.diagonal for item in prepared]), tensor([item.pair for item in prepared]), atom_type, pair_type
        )
        output = network(graph, InputCoefficients(*inputs))
        blocks = tables.blocks(output.diagonal, output.pair, atom_type, pair_type)
        results = []
        atoms = pairs = 0
        for item in prepared:
            index = torch.from_numpy(item.block_map.flat_index(atoms, pairs, graph.n_atoms)).to(self.device)
            correction = gather(blocks, index).double().cpu().numpy()
            hamiltonian = item.reference.hamiltonian + correction
            if not np.isfinite(hamiltonian).all():
                raise NumericalError("The predicted Hamiltonian is not finite.", hint="Check the geometry.")
            results.append(hamiltonian)
            atoms += item.block_map.n_atoms
            pairs += item.block_map.n_pairs
        return results

    def finish(
        self, item: Prepared, hamiltonian: NDArray[np.float64], *, orbitals: bool, forward_ms: float
    ) -> Prediction:
        """Correction where basis functions nearly depend damped, then orbitals, guess, checks and warnings, on the CPU."""
        started = time.perf_counter()
        h0 = item.reference.hamiltonian
        damping = self.card.reference.overlap_damping
        if damping:
            hamiltonian = h0 + damp_correction(hamiltonian - h0, item.integrals.overlap, damping)
        warnings = list(self.card.domain_warnings(item.structure))
        in_domain = not warnings
        guess = checks = solved = None
        if orbitals:
            solved = solve(hamiltonian, item.integrals.overlap, item.structure.n_electrons)
            guess = make_guess(solved, h0)
            solved = guess.orbitals
            if guess.has_intruder:
                warnings.append(
                    "The predicted Hamiltonian has an empty orbital among the occupied ones (an intruder): orbitals and "
                    "guess were made with the reference's empty space; do not trust energies near the gap."
                )
            checks = check_guess(guess, item.integrals.overlap)
            if not checks.ok:
                warnings.append(
                    "The guess failed a sanity check (trace, idempotency, symmetry or gap); start from minao instead."
                )
        return Prediction(
            structure=item.structure,
            hamiltonian=hamiltonian,
            reference=h0,
            overlap=item.integrals.overlap,
            ao_labels=item.integrals.ao_labels,
            atom_offsets=tuple(int(o) for o in self.basis.atom_offsets(item.structure.numbers)),
            orbitals=solved,
            guess=guess,
            checks=checks,
            in_domain=in_domain,
            warnings=tuple(warnings),
            timings_ms={
                "integrals": item.milliseconds,
                "forward": forward_ms,
                "eigensolve": 1e3 * (time.perf_counter() - started),
            },
        )


def golden_record(predictor: Predictor, molecules: Mapping[str, Structure]) -> dict[str, Any]:
    """Answers to store as ``golden.json``."""
    entries = []
    for name, structure in molecules.items():
        prediction = predictor.predict([structure])[0]
        assert prediction.orbitals is not None
        entries.append(
            {
                "name": name,
                "numbers": [int(z) for z in structure.numbers],
                "positions_angstrom": structure.positions_angstrom.tolist(),
                "orbital_energies": prediction.orbitals.energies.tolist(),
            }
        )
    return {"energy_unit": "hartree", "molecules": entries}
