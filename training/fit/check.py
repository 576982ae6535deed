"""``python -m training fit run.toml --check``: whether a run's data are what its file says, before any training."""

from __future__ import annotations

from collections import Counter

import numpy as np
import torch

from model.blocks.spaces import BlockSpace
from model.network import HamiltonianNetwork
from model.structure import SYMBOLS
from training.data.frame import Frame, FrameSource
from training.data.sources import open_source, select
from training.fit.config import ConfigError, RunConfig
from training.fit.labels import trained_on, with_level
from training.fit.model import orbital_space, pair_rule


def check(config: RunConfig) -> list[str]:
    """Open the data, make the splits, read the first, the middle and the last frame of each and build the network.

    Returns:
        lines for people.

    Raises:
        ConfigError, DatasetError, ModelError: what does not fit, as ``fit`` would say it, or would not.
    """
    labels = trained_on(config)
    config = with_level(config, labels.level)
    data = config.data
    lines = [f"{config.name}: {data.file}", f"level           {labels.level}"]
    frames: list[Frame] = []
    with open_source(data.file, data.format) as source:
        lines.append(f"structures      {len(source)}, {_atoms(source)}")
        splits = source.splits(data.split or source.schemes[0])
        for name, indices in splits.items():
            lines.append(f"split {name:<10}{len(indices)}")
            chosen = [int(indices[k]) for k in sorted({0, len(indices) // 2, len(indices) - 1})] if len(indices) else []
            found = [source.frame(index, name) for index in chosen]
            frames += found if name in data.train else []
            for frame in found:
                _refuse_other_spin(config, frame)
        taken = sum(len(select(source, name, scheme=data.split)) for name in data.train)
    space = orbital_space(config, frames)
    cutoffs = pair_rule(config, frames).table(space.elements)
    spin = config.model.spin or "restricted"
    blocks = BlockSpace.of(space.template, spin, time_reversal=config.model.time_reversal)
    network = HamiltonianNetwork(config.network, space, blocks, None if cutoffs is None else torch.from_numpy(cutoffs))
    shells = {SYMBOLS[z]: Counter("spdfghik"[ang] for ang in own) for z, own in space.shells.items()}
    named = [f"{name} {' '.join(f'{count}{letter}' for letter, count in own.items())}" for name, own in shells.items()]
    lines.append(f"shells          {'; '.join(named)}")
    reach = max(float(frame.hamiltonian.pairs.distances_angstrom.max()) for frame in frames)
    lines.append(f"longest pair    {reach:.2f} Å in {len(frames)} structures read")
    lines.append(f"parameters      {sum(parameter.numel() for parameter in network.parameters()):,}")
    each = config.optimiser.batch_molecules
    if each:
        epoch = int(np.ceil(taken / each))
        lines.append(f"epoch           {epoch} steps of {each}; {config.optimiser.steps / epoch:.0f} epochs")
    return [*lines, "sound           training can begin; 'inspect' checks the labels themselves"]


def _atoms(source: FrameSource) -> str:
    counts = source.atom_counts()
    low, high = int(counts.min()), int(counts.max())
    return f"{low} atoms each" if low == high else f"{low} to {high} atoms"


def _refuse_other_spin(config: RunConfig, frame: Frame) -> None:
    wanted = config.model.spin
    if wanted and frame.hamiltonian.spin != wanted:
        raise ConfigError(
            f"{frame.molecule} has {frame.hamiltonian.spin} blocks, the run says [model] spin = {wanted!r}; take the data "
            "that the run is for, or another spin."
        )
