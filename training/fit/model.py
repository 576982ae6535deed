"""The model of a run: orbitals, pairs, H0 and network, as the run file says them and as the data make them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from model.hamiltonian_model import HamiltonianModel
from model.integrals.pyscf_molecule import load_basis
from model.integrals.two_centre_fit import fit_two_centre
from model.integrals.two_centre_tables import TwoCentreTables
from model.orbitals.space import OrbitalSpace
from model.preparation import PairRule
from model.reference.fitted import FittedReference
from model.reference.interface import Reference
from model.reference.none import NoReference
from model.reference.registry import REFERENCES
from model.reference.two_centre import TwoCentreReference
from model.structure import SYMBOLS, element_pair
from training.data.frame import Frame
from training.fit.config import ConfigError, RunConfig
from training.fit.reference import fit_reference
from training.fit.start import INTEGRALS_FILE, REFERENCE_FILE, Start
from training.fit.state import write_tensors

CUTOFF_MARGIN_ANGSTROM = 1e-3
"""Added to the longest pair of a label, so that rounding of positions does not lose it."""


def orbital_space(config: RunConfig, frames: Iterable[Frame]) -> OrbitalSpace:
    """The orbitals: of the basis in PySCF's library, or, where no program knows it, those of the data.

    Raises:
        ConfigError: frames with different shells of one element.
        UnsupportedBasisError, UnsupportedElementError: PySCF's library has no such basis, or not for an element.
    """
    if config.model.integrals.startswith("pyscf"):
        return load_basis(config.basis, [SYMBOLS.index(symbol) for symbol in config.elements])
    shells: dict[int, tuple[int, ...]] = {}
    first: OrbitalSpace | None = None
    for frame in frames:
        space = frame.hamiltonian.space
        first = first or space
        for number, own in space.shells.items():
            if shells.setdefault(number, tuple(own)) != tuple(own):
                raise ConfigError(
                    f"{frame.molecule}/{frame.index}: {SYMBOLS[number]} has the shells {own}, in other frames "
                    f"{shells[number]}; one model has one basis."
                )
    if first is None:
        raise ConfigError("There are no training frames; name another split in [data] train.")
    return OrbitalSpace(first.name, shells, first.fingerprint, first.order, first.valence)


def pair_rule(config: RunConfig, frames: Iterable[Frame]) -> PairRule:
    """Which pairs have blocks: all of a molecule; of crystals those within the run's cutoff, or within the labels' own."""
    periodic = [frame for frame in frames if frame.structure.is_periodic]
    if not periodic:
        return PairRule()
    longest: dict[str, float] = {}
    for frame in periodic:
        pairs, numbers = frame.hamiltonian.pairs, frame.structure.numbers
        kinds, which = np.unique(np.stack([numbers[pairs.first], numbers[pairs.second]]), axis=1, return_inverse=True)
        for kind, elements in enumerate(kinds.T.tolist()):
            name = element_pair(*elements)
            own = float(pairs.distances_angstrom[which == kind].max()) + CUTOFF_MARGIN_ANGSTROM
            longest[name] = max(longest.get(name, 0.0), own)
    return PairRule({name: config.model.pair_cutoff_angstrom or own for name, own in longest.items()})


def build_model(
    config: RunConfig,
    space: OrbitalSpace,
    reference: Reference,
    pairs: PairRule,
    tables: TwoCentreTables | None = None,
) -> HamiltonianModel:
    """The model with fresh weights, drawn from the run's seed; the standardisation is still empty.

    Raises:
        CheckpointError: parts that do not fit each other.
    """
    inputs, wanted = config.model.inputs, config.network.backbone_config.n_inputs
    if wanted and wanted != len(inputs):
        raise ConfigError(
            f"[network] {config.network.backbone} reads n_inputs = {wanted} matrices, [model] inputs names {len(inputs)}: "
            f"{', '.join(inputs) or 'none'}. Make them agree."
        )
    torch.manual_seed(config.seed)
    return HamiltonianModel(
        config.network,
        space,
        inputs=inputs,
        source=config.model.integrals,
        reference=reference,
        pairs=pairs,
        spin=config.model.spin or "restricted",
        time_reversal=config.model.time_reversal,
        tables=tables,
    )


def load_or_fit_reference(
    config: RunConfig, space: OrbitalSpace, frames: Iterable[Frame], start: Start | None = None
) -> Reference:
    """The run's reference Hamiltonian; that of ``start``, or fitted once to the labels; then read back."""
    if config.reference.kind == NoReference.kind:
        return NoReference()
    kind, path = REFERENCES[config.reference.kind], config.output / REFERENCE_FILE
    if path.is_file():
        return kind.from_tensors(space, {name: value.numpy() for name, value in load_file(path).items()})
    if start is not None:
        if not isinstance(start.reference, kind):
            found = "none" if start.reference is None else start.reference.kind
            raise ConfigError(
                f'{config.start_from} has [reference] kind = "{found}", the run "{kind.kind}"; give both the same.'
            )
        return _keep_reference(path, start.reference)
    if kind is TwoCentreReference:
        return _keep_reference(path, TwoCentreReference.fitted(space, (frame.hamiltonian for frame in frames)))
    return _keep_reference(path, _fitted_to_molecules(config, space, frames))


def _fitted_to_molecules(config: RunConfig, space: OrbitalSpace, frames: Iterable[Frame]) -> FittedReference:
    """To one geometry of each molecule."""
    one_each = list({frame.molecule: frame for frame in frames}.values())
    settings = config.reference
    if len(one_each) > settings.max_molecules:
        one_each = [one_each[i] for i in np.linspace(0, len(one_each) - 1, settings.max_molecules).astype(int)]
    exponents = np.array([settings.smallest_exponent * settings.ratio**k for k in range(settings.n_exponents)])
    return fit_reference(
        one_each, space, exponents=exponents, density_weight=settings.density_weight, processes=config.processes
    )


def _keep_reference(path: Path, reference: Reference) -> Reference:
    write_tensors(path, {name: torch.from_numpy(value) for name, value in reference.tensors().items()})
    return reference


def load_or_fit_tables(config: RunConfig, space: OrbitalSpace, frames: Iterable[Frame]) -> TwoCentreTables | None:
    """Tables of a run whose integrals are ``two_centre``, fitted once to the overlaps of its frames; then read back.

    Overlaps are no labels: validation frames may be among the frames, and tables that know their distances can serve them.

    Raises:
        ConfigError: no frame has an overlap.
        IntegralError: overlaps that are not two-centre integrals.
    """
    if config.model.integrals != "two_centre":
        return None
    path = config.output / INTEGRALS_FILE
    if path.is_file():
        return TwoCentreTables.from_arrays(
            space.shells, {name: value.numpy() for name, value in load_file(path).items()}
        )
    overlaps = (frame.overlap for frame in frames if frame.overlap is not None)
    first = next(overlaps, None)
    if first is None:
        raise ConfigError(
            f'{config.data.file} has no overlaps to fit the tables of [model] integrals = "two_centre" to; take data with '
            'overlaps, or integrals = "none".'
        )
    tables, report = fit_two_centre(chain([first], overlaps))
    print(report)
    write_tensors(path, {name: torch.from_numpy(value) for name, value in tables.to_arrays().items()})
    return tables


def run_record(config: RunConfig) -> dict[str, Any]:
    """The run as JSON-able values, for the card; paths become file names."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return value.name
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    record: dict[str, Any] = plain(asdict(config))
    record["network"] = config.network.to_mapping()
    if not config.network.second_stage.is_used:
        del record["stages"]
    return record
