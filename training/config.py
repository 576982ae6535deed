"""A run is one TOML file that can be read alone; this file says what may stand in it.

Every table is a frozen dataclass, every key is listed here with its unit, and an unknown key is an error. Paths are
relative to the TOML file.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.network import NetworkConfig


class ConfigError(Exception):
    """A run file that cannot be used; says what is allowed."""


@dataclass(frozen=True)
class DataConfig:
    """Attributes:
    file: HDF5 file in the project's format.
    train, validation: names of splits.
    max_molecules: at most so many training molecules (0: all), for short trials.
    """

    file: Path
    train: tuple[str, ...] = ("train",)
    validation: tuple[str, ...] = ("val",)
    max_molecules: int = 0


@dataclass(frozen=True)
class ReferenceConfig:
    """The fitted reference Hamiltonian.

    Attributes:
        smallest_exponent: of the Gaussian charges, 1/bohr^2.
        ratio: between neighbouring exponents.
        n_exponents: number of exponents.
        density_weight: weight of the first-order density error in the fit, hartree^2.
        max_molecules: molecules in the fit, one geometry of each, spread evenly; there are some 300 coefficients.
    """

    smallest_exponent: float = 0.08
    ratio: float = 2.0
    n_exponents: int = 13
    density_weight: float = 0.03
    max_molecules: int = 240


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms (``training.loss``).

    Attributes:
        mae, rmse: of the Hamiltonian error per molecule, in millihartree.
        guess: of the first-order density error per square root of occupied orbitals, in percent.
        trace: lambda of TraceGrad's Eq. 7.
        trace_ramp_steps: steps over which lambda grows from 0.
    """

    mae: float = 1.0
    rmse: float = 1.0
    guess: float = 2.0
    trace: float = 0.2
    trace_ramp_steps: int = 500


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with warm-up, cosine decay, clipping and an exponential moving average of the weights.

    Attributes:
        steps: length of the run.
        batch_blocks: a batch holds molecules up to this many blocks (diagonal + pair); cost, not count.
        learning_rate, final_learning_rate: after warm-up and at the end.
        warmup_steps: linear warm-up.
        weight_decay: decoupled.
        clip_norm: largest gradient norm.
        ema_decay: of the average; the first steps use a shorter memory.
    """

    steps: int
    batch_blocks: int = 700
    learning_rate: float = 2e-3
    final_learning_rate: float = 1e-5
    warmup_steps: int = 300
    weight_decay: float = 1e-3
    clip_norm: float = 5.0
    ema_decay: float = 0.999


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        name: of the run and the default name of the checkpoint.
        seed: of initial weights and data order.
        basis: PySCF name.
        elements: symbols.
        threads: CPU threads (0: torch's choice).
        device: "auto", "cpu" or "cuda".
        processes: worker processes for labels.
        validate_every: steps between validations.
        save_every: steps between saves of the training state.
    """

    name: str
    output: Path
    data: DataConfig
    reference: ReferenceConfig
    network: NetworkConfig
    loss: LossConfig
    optimiser: OptimiserConfig
    seed: int = 0
    basis: str = "def2-svp"
    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    threads: int = 0
    device: str = "auto"
    processes: int = 2
    validate_every: int = 500
    save_every: int = 250


def read_run(path: Path) -> RunConfig:
    """Read and check a run file.

    Raises:
        ConfigError: unreadable file, unknown or missing key, wrong type.
    """
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    base = path.resolve().parent
    run = dict(values.pop("run", {}))
    try:
        network = NetworkConfig.from_mapping(values.pop("network", {}))
    except Exception as error:
        raise ConfigError(f"{path}: [network] {error}") from error
    tables = {
        "data": _table(DataConfig, values.pop("data", {}), "data", base, path),
        "reference": _table(ReferenceConfig, values.pop("reference", {}), "reference", base, path),
        "loss": _table(LossConfig, values.pop("loss", {}), "loss", base, path),
        "optimiser": _table(OptimiserConfig, values.pop("optimiser", {}), "optimiser", base, path),
    }
    if values:
        raise ConfigError(
            f"{path}: unknown tables {', '.join(sorted(values))}; allowed are run, data, reference, network, loss, optimiser."
        )
    run.setdefault("name", path.stem)
    run.setdefault("output", f"../runs/{run['name']}")
    return _table(RunConfig, run, "run", base, path, network=network, **tables)


def _table(kind: type[Any], values: dict[str, Any], where: str, base: Path, path: Path, **given: Any) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - (set(fields) - set(given)))
    if unknown:
        allowed = ", ".join(sorted(set(fields) - set(given)))
        raise ConfigError(f"{path}: [{where}] does not know {', '.join(unknown)}; it knows {allowed}.")
    converted: dict[str, Any] = dict(given)
    for name, value in values.items():
        converted[name] = _convert(value, str(fields[name].type), f"{path}: [{where}] {name}", base)
    missing = [
        name
        for name, field in fields.items()
        if name not in converted
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{path}: [{where}] lacks {', '.join(missing)}.")
    return kind(**converted)


def _convert(value: Any, annotation: str, where: str, base: Path) -> Any:
    if annotation == "Path" and isinstance(value, str):
        return (base / value).resolve()
    if annotation == "tuple[str, ...]" and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if annotation == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if annotation == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if annotation == "str" and isinstance(value, str):
        return value
    raise ConfigError(f"{where} must be {annotation}, not {type(value).__name__}.")
