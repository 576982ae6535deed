"""Standardisation tables: over the training set every channel has size one, and scalars of diagonal blocks mean zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.blocks.spaces import BlockSpace
from model.blocks.standardise import Standardisation
from model.orbitals.space import OrbitalSpace
from model.preparation import INPUTS
from training.fit import statistics
from training.fit.samples import Sample, join


@pytest.fixture(scope="module")
def filled(tiny_samples: list[Sample], basis: OrbitalSpace) -> Standardisation:
    standardisation = Standardisation(basis, len(INPUTS), BlockSpace.of(basis.template))
    statistics.fill(standardisation, tiny_samples, basis)
    return standardisation


def stacked(samples: list[Sample], basis: OrbitalSpace) -> dict[str, torch.Tensor]:
    elements = np.array(basis.elements)
    batch = join(samples)
    types = torch.from_numpy(np.searchsorted(elements, batch.graph.numbers.numpy()))
    row, column = batch.graph.pair_index
    return {
        "atom_type": types,
        "pair_type": types[row] * len(elements) + types[column],
        "diagonal": batch.inputs.diagonal,
        "pair": batch.inputs.pair,
        "target_diagonal": batch.target[: len(types)],
        "target_pair": batch.target[len(types) :],
    }


def sizes(values: torch.Tensor, types: torch.Tensor, channel: torch.Tensor) -> dict[tuple[int, int], float]:
    """Root mean square of each (type, channel), straight from the definition."""
    found = {}
    for kind in types.unique().tolist():
        for number in channel.unique().tolist():
            part = values[types == kind][..., channel == number]
            found[kind, number] = float(part.double().square().mean().sqrt())
    return found


@pytest.mark.parametrize(("blocks", "types"), [("diagonal", "atom_type"), ("pair", "pair_type")])
def test_targets_have_size_one(
    blocks: str, types: str, filled: Standardisation, tiny_samples: list[Sample], basis: OrbitalSpace
) -> None:
    data = stacked(tiny_samples, basis)
    values = filled.target(data["target_diagonal"], data["target_pair"], data["atom_type"], data["pair_type"])
    found = sizes(values[blocks == "pair"], data[types], filled.channel)
    scale = filled.target_pair_scale if blocks == "pair" else filled.target_diagonal_scale
    floor = float(scale[scale != 1.0].min()) * 1.001
    unit = {key: size for key, size in found.items() if size > 1e-6 and float(scale[key]) > floor}
    assert len(unit) > 20
    assert max(abs(size - 1.0) for size in unit.values()) < 1e-3
    assert max(found.values()) < 1.001, "a channel at the floor is smaller, never larger"


def test_inputs_have_size_one(filled: Standardisation, tiny_samples: list[Sample], basis: OrbitalSpace) -> None:
    data = stacked(tiny_samples, basis)
    diagonal, pair = filled.inputs(data["diagonal"], data["pair"], data["atom_type"], data["pair_type"])
    for matrix in range(len(INPUTS)):
        for values, types in ((diagonal, data["atom_type"]), (pair, data["pair_type"])):
            assert max(sizes(values[:, matrix], types, filled.channel).values()) < 1.01


def test_scalars_of_diagonal_blocks_are_centred_per_element(
    filled: Standardisation, tiny_samples: list[Sample], basis: OrbitalSpace
) -> None:
    data = stacked(tiny_samples, basis)
    diagonal, _ = filled.target(data["target_diagonal"], data["target_pair"], data["atom_type"], data["pair_type"])
    scalars = diagonal[:, filled.channel < filled.n_scalars].double()
    for kind in data["atom_type"].unique():
        assert float(scalars[data["atom_type"] == kind].mean(dim=0).abs().max()) < 1e-3


def test_elements_that_do_not_occur_keep_neutral_tables(filled: Standardisation, basis: OrbitalSpace) -> None:
    fluorine = basis.elements.index(9)
    assert bool((filled.target_diagonal_scale[fluorine] == 1.0).all())
    assert bool((filled.target_mean[fluorine] == 0.0).all())
    assert bool((filled.target_pair_scale[fluorine * len(basis.elements) + fluorine] == 1.0).all())


def test_assembling_standardised_targets_restores_hartree(
    filled: Standardisation, tiny_samples: list[Sample], basis: OrbitalSpace
) -> None:
    """``blocks`` is the inverse of ``target``, up to the expansion."""
    data = stacked(tiny_samples, basis)
    types = data["atom_type"], data["pair_type"]
    standardised = filled.target(data["target_diagonal"], data["target_pair"], *types)
    blocks = filled.blocks(*standardised, *types).flatten(1)
    raw = torch.cat([data["target_diagonal"], data["target_pair"]]) @ filled.expansion.float().T
    assert float((blocks - raw).abs().max()) < 1e-5
