"""What a run starts from: a released checkpoint, or the folder of another run, which may be of crystals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint.store import load
from model.errors import CheckpointError
from model.hamiltonian_model import HamiltonianModel
from model.level import Level
from model.network_config import NetworkConfig
from model.reference.interface import Reference
from training.fit.config import ConfigError, RunConfig
from training.fit.labels import LABELS_FILE, read_labels
from training.fit.state import BEST_FILE, STATE_FILE, read_tensors, saved_progress

REFERENCE_FILE = "reference.safetensors"
INTEGRALS_FILE = "integrals.safetensors"


@dataclass(frozen=True)
class Start:
    """Weights and statistics to start with.

    Attributes:
        folder: where they come from.
        config: of the network that they are of.
        network, standardisation: tensors by name.
        reference: H0 of a checkpoint; None of a run, whose file is copied.
    """

    folder: Path
    config: NetworkConfig
    network: Mapping[str, Tensor]
    standardisation: Mapping[str, Tensor]
    reference: Reference | None

    def put_into(self, model: HamiltonianModel) -> None:
        """Give a model the weights of all parts that it has in common with the start, and the statistics.

        Raises:
            CheckpointError: tensors of other shapes: other elements, shells, or spin.
        """
        model.network.take_weights(self.config, self.network)
        model.standardisation.load_state_dict(dict(self.standardisation))


def load_start(folder: Path, config: RunConfig, level: Level) -> Start:
    """What a run starts from: a checkpoint folder, or a run folder with its best weights.

    Of a run the fitted H0 and the two-centre tables are copied into the new run's folder, unless they are there.

    Raises:
        ConfigError: its backbone, its level of theory or its kind of H0 is another one; or a frozen first stage would not
            be the one that was trained.
        CheckpointError: it cannot be loaded.
    """
    start, own_level = _of_run(folder, config) if (folder / BEST_FILE).is_file() else _of_checkpoint(folder)
    if not start.config.shares_backbone(config.network):
        raise ConfigError(
            f"start_from {folder} has the architecture {start.config.to_mapping()}, "
            f"the run asks for {config.network.to_mapping()}; give [network] the same backbone with the same settings, or "
            "start without it."
        )
    if config.trains_second_stage_only and start.config.tracegrad != config.network.tracegrad:
        raise ConfigError(
            f"start_from {folder} has other settings of TraceGrad than the run, so its first stage cannot be kept as it is; "
            'give [network.tracegrad] the same settings, or set [stages] train = "both".'
        )
    differences = level.describe_differences(own_level, own="the data", others=f"start_from {folder}")
    if differences:
        raise ConfigError(f"{differences}. Start from a checkpoint of the data's level, or without one.")
    return start


def _of_checkpoint(folder: Path) -> tuple[Start, Level]:
    checkpoint = load(folder)
    model = checkpoint.model
    start = Start(
        folder, model.network.config, model.network.state_dict(), model.standardisation.state_dict(), model.reference
    )
    return start, checkpoint.card.level


def _of_run(folder: Path, config: RunConfig) -> tuple[Start, Level]:
    progress = saved_progress(folder)
    settings: dict[str, Any] = {} if progress is None else progress.get("settings", {})
    if "network" not in settings or not (folder / LABELS_FILE).is_file():
        raise CheckpointError(
            f"The run folder {folder} lacks {STATE_FILE if 'network' not in settings else LABELS_FILE}, which says what "
            f"{BEST_FILE} is.",
            hint="Copy the whole folder, or start from a checkpoint.",
        )
    kind = settings["reference"]["kind"]
    if kind != config.reference.kind:
        raise ConfigError(
            f'start_from {folder} has [reference] kind = "{kind}", the run "{config.reference.kind}"; give both the same.'
        )
    for name in (REFERENCE_FILE, INTEGRALS_FILE):
        if (folder / name).is_file() and not (config.output / name).exists():
            shutil.copyfile(folder / name, config.output / name)
    tensors, _ = read_tensors(folder / BEST_FILE)

    def group(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    start = Start(
        folder,
        NetworkConfig.from_mapping(json.loads(json.dumps(settings["network"]))),
        group("network/"),
        group("standardisation/"),
        None,
    )
    return start, read_labels(folder, config).level
