"""The settings that a saved state belongs to: a run is resumed with the network, the loss and the H0 that it began with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from model.network_config import NetworkConfig
from training.fit.config import ConfigError, LossConfig, ModelConfig, ReferenceConfig, RunConfig
from training.fit.model import run_record
from training.fit.stages import StagesConfig

FIXED: Final = ("network", "loss", "model", "reference", "stages")
"""Tables of a run file that may not change between two calls of ``fit``; of stages only a run of two says anything."""


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The fixed tables as JSON-able values."""
    record = run_record(config)
    values: dict[str, Any] = json.loads(json.dumps({table: record[table] for table in FIXED if table in record}))
    return values


def refuse_other_settings(stored: Mapping[str, Any], config: RunConfig) -> None:
    """Compare a saved state's settings with those of the run file; what is younger than the state had its default.

    Raises:
        ConfigError: names every key that has changed, with both values.
    """
    now = _flat(settings_of(config))
    was = {**{key: value for key, value in _flat(_defaults(config)).items() if key in now}, **_flat(stored)}
    changed = [
        f"{key} was {was.get(key)}, is {now.get(key)}" for key in sorted({*was, *now}) if was.get(key) != now.get(key)
    ]
    if changed:
        raise ConfigError(
            f"The run in {config.output} began with other settings: {'; '.join(changed)}. Put them back to go on, or give "
            "the changed run another [run] output (and, to keep the weights, start_from a release of this one)."
        )


def _defaults(config: RunConfig) -> dict[str, Any]:
    """Of a run file that says nothing but the backbone."""
    network = NetworkConfig.from_mapping({"backbone": config.network.backbone})
    return settings_of(
        replace(
            config,
            network=network,
            loss=LossConfig(),
            model=ModelConfig(),
            reference=ReferenceConfig(),
            stages=StagesConfig(),
        )
    )


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {prefix: values}
    return {
        key: value
        for name, inner in values.items()
        for key, value in _flat(inner, f"{prefix}.{name}" if prefix else f"[{name}]").items()
    }
