"""Card: what a checkpoint is, what it can and cannot do. ``card.json`` is this, and nothing else.

Every key is required and no other is allowed; a card that does not read is a checkpoint that is not served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.checkpoint import limits
from model.checkpoint.migrations import FORMAT_VERSION, migrate_card
from model.checkpoint.support import Support
from model.errors import (
    CheckpointError,
    UnsupportedBasisError,
    UnsupportedChargeError,
    UnsupportedElementError,
    UnsupportedMultiplicityError,
    UnsupportedPeriodicityError,
)
from model.geometry import doubts
from model.level import Level
from model.orbitals.space import OrbitalSpace
from model.pairs.pair_list import PairList
from model.reference.kinds import REFERENCE_KINDS
from model.structure import SYMBOLS, Structure

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BasisCard(BaseModel):
    """Orbital space.

    Attributes:
        name: of the basis.
        shells: element symbol -> angular momenta of its shells, in the sequence of ``order``'s program.
        fingerprint: SHA-256 of exponents and coefficients; empty where nobody knows them.
        order: program whose orbital order and signs matrices have (``orbitals.orders``).
        valence: element symbol -> electrons that the basis describes; None means all of the atom's.
    """

    model_config = _STRICT
    name: limits.Word
    shells: dict[limits.Symbol, limits.Shells]
    fingerprint: limits.Word
    order: limits.Word
    valence: dict[limits.Symbol, limits.Electrons] | None

    @classmethod
    def of(cls, space: OrbitalSpace) -> Self:
        """What :meth:`space` makes the space of again."""
        valence = None if space.valence is None else {SYMBOLS[z]: count for z, count in space.valence.items()}
        shells = {SYMBOLS[z]: list(space.shells[z]) for z in space.elements}
        return cls(name=space.name, shells=shells, fingerprint=space.fingerprint, order=space.order, valence=valence)

    def space(self) -> OrbitalSpace:
        """The orbitals as the model uses them.

        Raises:
            UnsupportedBasisError: shells or an order that no space has.
        """
        shells = {SYMBOLS.index(symbol): tuple(ls) for symbol, ls in self.shells.items()}
        valence = None if self.valence is None else {SYMBOLS.index(s): count for s, count in self.valence.items()}
        return OrbitalSpace(self.name, shells, self.fingerprint, self.order, valence)


def _known_reference(kind: str) -> str:
    if kind not in REFERENCE_KINDS:
        raise ValueError(f"Input should be one of: {', '.join(REFERENCE_KINDS)}")
    return kind


class ReferenceCard(BaseModel):
    """Reference Hamiltonian H0 that the network corrects.

    Attributes:
        kind: of ``reference.kinds``: ``fitted``, its coefficients are among the weights; or ``none``, H0 = 0
            and the network predicts all of H.
        description: for people.
        overlap_damping: where eigenvalues of the overlap are as small as this, the correction is damped
            (``electronic.dependence``); 0 for not at all.
    """

    model_config = _STRICT
    kind: Annotated[str, AfterValidator(_known_reference)]
    description: limits.Text
    overlap_damping: float = Field(ge=0.0, le=1.0)


class UnitsCard(BaseModel):
    """Units inside the checkpoint."""

    model_config = _STRICT
    length: Literal["angstrom"]
    energy: Literal["hartree"]


class LargestTested(BaseModel):
    """Largest system among those evaluated, by each measure; beyond it a prediction is extrapolation."""

    model_config = _STRICT
    atoms: limits.Count
    heavy_atoms: limits.Count
    orbitals: limits.Count


class SymmetryError(BaseModel):
    """What a rotation or a reflection changed at most that it should not have, hartree, of shaken golden structures.

    Attributes:
        hamiltonian: entry of H(moved) - U H U^T.
        energy: orbital energy of a molecule; 0 for crystals.
    """

    model_config = _STRICT
    hamiltonian: float = Field(ge=0.0)
    energy: float = Field(ge=0.0)


class Card(BaseModel):
    """A checkpoint's description.

    Attributes:
        format_version: of the folder layout; this code reads 1 to ``FORMAT_VERSION``.
        name, version: of the checkpoint.
        description: one paragraph for people.
        created: ISO date.
        licence: of weights and training labels.
        architecture: backbone and TraceGrad with all hyper-parameters (``NetworkConfig.to_mapping``).
        elements: atomic numbers.
        basis: the AO basis.
        xc: functional as a PySCF string; ``xc_note`` says which variant that is.
        potentials: name of the set of pseudopotentials of the labels; None for all electrons.
        charges, multiplicities: what it was trained for.
        spin: treatment of spin: one matrix, two, or spinors.
        time_reversal: whether spinor blocks obey time reversal, as was measured on the labels.
        periodic: whether it is for crystals, or for molecules.
        inputs: known matrices that the network reads, in order (``hamiltonian_model.INPUTS``).
        integrals: where they come from (``hamiltonian_model.SOURCES``).
        pair_cutoffs_angstrom: longest pair with a block, by "A-B" of element symbols; None: all pairs of a molecule's atoms.
        support: what crystals it was trained on; None for molecules.
        gauge: zero of energy: "overlap" for the H that has no component along S (``model.blocks.gauge``), "none" for the
            labels' own.
        symmetry: what the self-test holds it to: "O(3)"; "SO(3)" for rotations without reflections; or "approximate" for
            neither, but as close to it as ``symmetry_error`` says.
        symmetry_error: measured when it was released, if its symmetry is approximate; else None.
        kinetic_damping: delta of ``model.electronic.kinetic_damping``, with which levels and densities of a crystal are made
            of the predicted blocks; 0 for none. Needs ``integrals`` that compute kinetic energies ("pyscf_crystal").
        target: what the network emits.
        reference: H0.
        statistics: how inputs and target were standardised.
        units: inside.
        training: data with split and seed, settings, steps.
        metrics: per split, what ``training evaluate`` found.
        largest_tested: size limit of what is known.
        libraries: versions it was made with.
        weights_sha256: of ``weights.safetensors``.
    """

    model_config = _STRICT
    format_version: int
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str = Field(pattern=r"^[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}$")
    description: limits.Text
    created: limits.Word
    licence: limits.Text
    architecture: dict[str, Any]
    elements: Annotated[list[limits.Element], Field(min_length=1, max_length=len(SYMBOLS))]
    basis: BasisCard
    xc: limits.Word
    xc_note: limits.Text
    potentials: limits.Word | None
    charges: limits.Charges
    multiplicities: limits.Multiplicities
    spin: Literal["restricted", "unrestricted", "spinor"]
    time_reversal: bool
    periodic: bool
    inputs: Annotated[list[limits.Word], Field(max_length=8)]
    integrals: limits.Word
    pair_cutoffs_angstrom: dict[limits.SymbolPair, limits.Cutoff] | None
    support: Support | None
    gauge: Literal["none", "overlap"]
    symmetry: Literal["O(3)", "SO(3)", "approximate"]
    symmetry_error: SymmetryError | None
    kinetic_damping: float = Field(ge=0.0, le=1.0)
    target: Literal["hamiltonian_minus_reference", "hamiltonian"]
    reference: ReferenceCard
    statistics: limits.Text
    units: UnitsCard
    training: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    largest_tested: LargestTested
    libraries: dict[str, str]
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _keys_that_need_others(self) -> Self:
        if (self.symmetry == "approximate") != (self.symmetry_error is not None):
            raise ValueError("symmetry_error is given if symmetry is 'approximate', and null otherwise")
        if self.kinetic_damping and self.integrals != "pyscf_crystal":
            raise ValueError(
                f"kinetic_damping is 0 where integrals are {self.integrals!r}: they compute no kinetic energy"
            )
        return self

    def space(self) -> OrbitalSpace:
        """The orbitals as the model uses them.

        Raises:
            CheckpointError: shells or an order that no space has.
        """
        try:
            return self.basis.space()
        except UnsupportedBasisError as error:
            raise CheckpointError(f"The card's basis cannot be: {error}") from error

    @property
    def level(self) -> Level:
        """Level of theory of its labels."""
        return Level(self.xc, self.basis.name, self.spin, self.potentials)

    def check(self, structure: Structure) -> None:
        """Refuse what the checkpoint was not made for.

        Raises:
            UnsupportedPeriodicityError, UnsupportedElementError, UnsupportedChargeError, UnsupportedMultiplicityError.
        """
        if structure.is_periodic and not self.periodic:
            raise UnsupportedPeriodicityError(
                f"Checkpoint {self.name!r} is for molecules; the structure is periodic.",
                hint="Set pbc to false for a molecule in a box.",
                field="pbc",
            )
        if self.periodic and not structure.is_periodic:
            raise UnsupportedPeriodicityError(
                f"Checkpoint {self.name!r} is for crystals; the structure has no periodic direction.",
                hint="Send the lattice vectors and say which directions are periodic (pbc).",
                field="pbc",
            )
        unknown = sorted({int(z) for z in structure.numbers} - set(self.elements))
        if unknown:
            raise UnsupportedElementError(
                f"Checkpoint {self.name!r} does not know {', '.join(SYMBOLS[z] for z in unknown)}.",
                allowed=[SYMBOLS[z] for z in self.elements],
                hint="Leave these elements out, or use a checkpoint that was trained on them.",
                field="numbers",
            )
        if structure.charge not in self.charges:
            raise UnsupportedChargeError(
                f"Charge {structure.charge} is outside this checkpoint's training.",
                allowed=self.charges,
                field="charge",
            )
        if structure.multiplicity not in self.multiplicities:
            raise UnsupportedMultiplicityError(
                f"Multiplicity {structure.multiplicity} is outside this checkpoint's training.",
                allowed=self.multiplicities,
                field="multiplicity",
            )

    def domain_warnings(self, structure: Structure, pairs: PairList | None = None) -> tuple[str, ...]:
        """Reasons to trust a prediction less: empty means the structure is in the domain that was tested.

        Args:
            structure: of the checkpoint's elements.
            pairs: of a crystal, within the checkpoint's cutoffs. Its size is no reason: the network is local.
        """
        if self.periodic:
            return () if self.support is None or pairs is None else self.support.outside(structure, pairs)
        limit = self.largest_tested
        heavy = int((structure.numbers > 1).sum())
        warnings = []
        if heavy > limit.heavy_atoms:
            warnings.append(
                f"{heavy} heavy atoms; the largest molecule this checkpoint was tested on has {limit.heavy_atoms}."
            )
        if len(structure) > limit.atoms:
            warnings.append(
                f"{len(structure)} atoms; the largest molecule this checkpoint was tested on has {limit.atoms}."
            )
        return (*warnings, *doubts(structure.numbers, structure.positions_angstrom))


def read_card(path: Path) -> Card:
    """Read ``card.json``.

    Raises:
        CheckpointError: missing, unreadable, of another format version, or with missing or unknown keys.
    """
    try:
        values = limits.read_json(path, limits.MAX_CARD_BYTES)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent.name}/ has no {path.name}.",
            hint="A checkpoint folder holds card.json, weights.safetensors and golden.json; make one with "
            "'python -m training release'.",
        ) from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version not in range(1, FORMAT_VERSION + 1):
        raise CheckpointError(
            f"{path.parent.name}/{path.name} has format version {version!r:.40}; this program reads 1 to {FORMAT_VERSION}.",
            hint="Install the matching version of the service, or release the checkpoint again.",
        )
    try:
        return Card.model_validate(migrate_card(values))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]
        )
        raise CheckpointError(
            f"{path.parent.name}/{path.name} is not a valid card: {problems}.",
            hint="Release the checkpoint again with 'python -m training release'.",
        ) from error
