"""The frames of a run, and what they are labels of: one level of theory for all files, and the run's where it says one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from model.level import Level
from training.atomic import write_json
from training.data.sources import AUTO, Frame, composition, held_out_compositions, open_source, read_frames, select
from training.fit.config import ConfigError, DataConfig, RunConfig

LABELS_FILE = "labels.json"


@dataclass(frozen=True)
class TrainedOn:
    """What a run's labels are.

    Attributes:
        level: of theory, of all files.
        charges, multiplicities: that occur in their training splits, ascending.
    """

    level: Level
    charges: tuple[int, ...]
    multiplicities: tuple[int, ...]


def trained_on(config: RunConfig) -> TrainedOn:
    """Level and charges of a run's files, compared with each other and with what the run says.

    Raises:
        ConfigError: two files of different levels, or a file that is not what the run says; names file and difference.
        DatasetError: a file that cannot be read, or a split that it does not have.
    """
    data = config.data
    states: set[tuple[int, int]] = set()
    level: Level | None = None
    for path, format in ((data.file, data.format), *((extra, AUTO) for extra in data.extra)):
        is_main = level is None
        with open_source(path, format) as source:
            found = source.level
            chosen = [select(source, split, scheme=data.split if is_main else "") for split in data.train]
            own = source.charge_states(np.concatenate(chosen))
            for split in data.validation if is_main else ():
                select(source, split, scheme=data.split)  # a misspelt one is named before any work
        first = level or said_by(config, found)
        differences = found.describe_differences(
            first, own=f"{path}", others="the run" if level is None else f"{data.file}"
        )
        if differences:
            raise ConfigError(f"{differences}. One run has one level of theory: train on each by itself.")
        foreign = sorted({charge for charge, _ in own} - set(config.charges))
        if config.charges and foreign:
            raise ConfigError(
                f"{path} has molecules of charge {', '.join(map(str, foreign))}; the run says charges = "
                f"{list(config.charges)}. Take them out of the file, or add their charges to [run] charges."
            )
        open_shells = sorted({multiplicity for _, multiplicity in own} - {1})
        if config.model.integrals == "pyscf_molecule" and found.spin == "restricted" and open_shells:
            raise ConfigError(
                f"{path} has structures of multiplicity {', '.join(map(str, open_shells))} with restricted labels; "
                "open shells need unrestricted ones."
            )
        level, states = level or found, states | own
    assert level is not None
    charges, multiplicities = ({state[part] for state in states} for part in (0, 1))
    return TrainedOn(level, tuple(sorted(charges)), tuple(sorted(multiplicities)))


def said_by(config: RunConfig, silent: Level) -> Level:
    """The level that a run file says, with another one's values where it is silent."""
    said = {"xc": config.xc, "basis": config.basis, "spin": config.model.spin}
    return replace(silent, **{field: value for field, value in said.items() if value})  # type: ignore[arg-type]


def with_level(config: RunConfig, level: Level) -> RunConfig:
    """The run, saying what it was silent about."""
    model = replace(config.model, spin=level.spin)
    return replace(config, xc=config.xc or level.xc, basis=config.basis or level.basis, model=model)


def every_training_frame(config: RunConfig) -> Iterator[Frame]:
    """All training frames, one at a time."""
    return chain(_frames(config.data, config.data.train), _extra_frames(config))


def training_frames(config: RunConfig) -> Iterator[Frame]:
    """All training frames; of a streamed set as many as the reference is fitted to."""
    if not config.data.stream:
        return every_training_frame(config)
    few = replace(config.data, max_molecules=config.reference.max_molecules, frames_per_molecule=1)
    return _frames(few, few.train)


def validation_frames(config: RunConfig) -> Iterator[Frame]:
    """The validation frames."""
    data = config.data
    return _frames(data, data.validation, max_frames=data.max_validation or None)


def _extra_frames(config: RunConfig) -> Iterator[Frame]:
    """Training frames of the additional files, which must not hold a formula that the main file holds out."""
    data = config.data
    if not data.extra:
        return
    held_out = held_out_compositions(data.file, data.train, data.format, data.split)
    for path in data.extra:
        for frame in read_frames(path, data.train):
            if composition(frame.structure.numbers) in held_out:
                raise ConfigError(
                    f"{path}: {frame.smiles or frame.molecule} has a chemical formula that {data.file} holds out of "
                    "training; take it out of the file's recipe."
                )
            yield frame.in_gauge(data.gauge)


def _frames(data: DataConfig, splits: Sequence[str], *, max_frames: int | None = None) -> Iterator[Frame]:
    frames = read_frames(
        data.file,
        splits,
        frames_per_molecule=data.frames_per_molecule or None,
        max_molecules=data.max_molecules or None,
        max_frames=max_frames,
        format=data.format,
        scheme=data.split,
    )
    return (frame.in_gauge(data.gauge) for frame in frames)


def keep_labels(folder: Path, labels: TrainedOn) -> None:
    """Write ``labels.json``, which says in the run folder what the run was trained on."""
    write_json(folder / LABELS_FILE, asdict(labels))


def read_labels(folder: Path, config: RunConfig) -> TrainedOn:
    """What a run was trained on; of runs older than ``labels.json`` it is looked up in the files."""
    path = folder / LABELS_FILE
    if not path.is_file():
        return trained_on(config)
    stored = json.loads(path.read_text(encoding="utf-8"))
    charges, multiplicities = tuple(stored["charges"]), tuple(stored["multiplicities"])
    return TrainedOn(Level(**stored["level"]), charges, multiplicities)
