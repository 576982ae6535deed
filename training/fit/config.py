"""A run is one TOML file that can be read alone; this file says what may stand in it.

Every table is a frozen dataclass, every key is listed here with its unit, and an unknown key is an error. Paths are
relative to the TOML file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, cast, get_args

from model.errors import ModelError
from model.level import SPIN_TREATMENTS
from model.network_config import NetworkConfig
from model.preparation import INPUTS, SOURCES
from model.structure import SYMBOLS
from training.data.frame import Gauge
from training.data.sources import AUTO, FORMATS
from training.fit.optimiser_config import OptimiserConfig
from training.fit.stages import StagesConfig
from training.tables import ConfigError, read_table, read_toml, refuse_unknown_tables

__all__ = [
    "ConfigError",
    "DataConfig",
    "LossConfig",
    "ModelConfig",
    "OptimiserConfig",
    "ReferenceConfig",
    "RunConfig",
    "read_run",
]

TABLES: Final = ("run", "data", "model", "reference", "network", "loss", "optimiser", "stages")


@dataclass(frozen=True)
class DataConfig:
    """Attributes:
    file: data file or folder.
    extra: more files of any format that can be recognised; their training splits are added.
    format: a key of ``training.data.sources.FORMATS``, or "auto" to look into the file.
    split: scheme that makes the splits; empty for the format's first one.
    train, validation: names of splits.
    max_molecules: at most so many training and validation molecules (0: all), for short trials.
    frames_per_molecule: at most so many geometries of each molecule (0: all).
    max_validation: at most so many validation frames (0: all), spread evenly; they are held in memory.
    gauge: zero of energy of labels, see ``training.data.frame.Frame.in_gauge``.
    stream: make training samples while training instead of holding them all, for sets that do not fit in memory.
    """

    file: Path
    train: tuple[str, ...] = ("train",)
    validation: tuple[str, ...] = ("val",)
    max_molecules: int = 0
    format: str = "tracegrad"
    split: str = ""
    frames_per_molecule: int = 0
    max_validation: int = 0
    stream: bool = False
    extra: tuple[Path, ...] = ()
    gauge: str = "auto"


@dataclass(frozen=True)
class ModelConfig:
    """What goes into the network and what comes out, besides the network itself.

    Attributes:
        integrals: where known matrices come from (``model.preparation.SOURCES``): "pyscf_molecule", "pyscf_crystal",
            "two_centre" (tables fitted to the data's overlaps when the run starts), "given" (the data's own) or "none".
        inputs: known matrices that the network reads, in order: "overlap", "reference", "density".
        spin: "restricted", "unrestricted" or "spinor"; empty for what the data are.
        time_reversal: leave out what time reversal makes zero in spinor blocks.
        pair_cutoff_angstrom: of crystals' blocks; 0 for the longest pair of each two elements in the training labels.
    """

    integrals: str = "pyscf_molecule"
    inputs: tuple[str, ...] = INPUTS
    spin: str = ""
    time_reversal: bool = False
    pair_cutoff_angstrom: float = 0.0


@dataclass(frozen=True)
class ReferenceConfig:
    """The reference Hamiltonian H0; the network learns F - H0.

    Attributes:
        kind: "fitted" (the other keys describe the fit) or "none" (H0 = 0: the network learns F itself, as in the papers).
        smallest_exponent: of the Gaussian charges, 1/bohr^2.
        ratio: between neighbouring exponents.
        n_exponents: number of exponents.
        density_weight: weight of the first-order density error in the fit, hartree^2.
        max_molecules: molecules in the fit, one geometry of each, spread evenly; there are some 300 coefficients.
    """

    kind: str = "fitted"
    smallest_exponent: float = 0.08
    ratio: float = 2.0
    n_exponents: int = 13
    density_weight: float = 0.03
    max_molecules: int = 240


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms (``training.fit.losses``).

    Attributes:
        mae, rmse: of the Hamiltonian error per molecule, in millihartree.
        mse: of the mean square error per molecule in hartree^2, times 1000 like the others: mae = mse = 1 and the rest 0 is
            1000 times the published loss (MAE in hartree + MSE in hartree^2).
        guess: of the first-order density error per square root of occupied orbitals, in percent.
        spectral: of the first-order error of occupied orbital energies and LUMO, in millihartree; for a short last part.
        bands: of the first-order error of a crystal's levels and states, weighted by nearness to the Fermi level, in
            millihartree.
        guess_from, spectral_from, bands_from: share of the run's steps after which these terms enter (0: from the start).
        trace: lambda of TraceGrad's Eq. 7.
        trace_ramp_steps: steps over which lambda grows from 0.
    """

    mae: float = 1.0
    rmse: float = 1.0
    mse: float = 0.0
    guess: float = 2.0
    spectral: float = 0.0
    bands: float = 0.0
    guess_from: float = 0.0
    spectral_from: float = 0.0
    bands_from: float = 0.0
    trace: float = 0.2
    trace_ramp_steps: int = 500


CHOICES: Final = {
    ("data", "format"): (*FORMATS, AUTO),
    ("data", "gauge"): get_args(Gauge),
    ("model", "integrals"): tuple(SOURCES),
    ("model", "spin"): SPIN_TREATMENTS,
    ("reference", "kind"): ("fitted", "none"),
    ("optimiser", "schedule"): ("cosine", "linear", "slippery_slope", "plateau"),
    ("optimiser", "kind"): ("adamw", "muon"),
    ("stages", "train"): ("second", "both"),
    ("stages", "augmentation"): ("none", "published", "full"),
}
"""Keys of some tables that take one of a few words."""


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        name: of the run and the default name of the checkpoint.
        seed: of initial weights and data order.
        xc, basis: functional and basis, PySCF's names; empty for what the data are. Files of another level are refused.
        charges: that the data may have; empty for all that they have.
        elements: symbols.
        start_from: checkpoint folder, or folder of another run, whose weights, reference and statistics the run starts with;
            the backbone must be the same, and TraceGrad and a second stage start fresh where their settings are not. A file
            of the run itself, if there is one, comes first: a resumed run goes on where it was.
        compile: compile the training step with torch.compile: minutes once, a third to a half off every step on a CPU;
            needs a C++ compiler.
        threads: CPU threads (0: torch's choice).
        device: "auto", "cpu" or "cuda".
        processes: worker processes for labels.
        validate_every: steps between validations.
        save_every: steps between saves of the training state.
    """

    name: str
    output: Path
    data: DataConfig
    model: ModelConfig
    reference: ReferenceConfig
    network: NetworkConfig
    loss: LossConfig
    optimiser: OptimiserConfig
    stages: StagesConfig = field(default_factory=StagesConfig)
    seed: int = 0
    start_from: Path | None = None
    compile: bool = False
    xc: str = ""
    basis: str = ""
    charges: tuple[int, ...] = ()
    elements: tuple[str, ...] = ("H", "C", "N", "O", "F")
    threads: int = 0
    device: str = "auto"
    processes: int = 2
    validate_every: int = 500
    save_every: int = 250

    @property
    def trains_second_stage_only(self) -> bool:
        """Whether a first stage is frozen."""
        return self.network.second_stage.is_used and self.stages.train == "second"


def read_run(path: Path) -> RunConfig:
    """Read and check a run file.

    Raises:
        ConfigError: unreadable file, unknown or missing key, wrong type, value out of range.
    """
    values = read_toml(path)
    refuse_unknown_tables(values, TABLES, path)
    try:
        network = NetworkConfig.from_mapping(values.get("network", {}))
    except (ModelError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: [network] {error}") from error
    # from_mapping has checked the names; this checks the types, before anything is built with them
    tables = values.get("network", {})
    read_table(type(network.backbone_config), tables.get(network.backbone, {}), f"network.{network.backbone}", path)
    read_table(type(network.tracegrad), tables.get("tracegrad", {}), "network.tracegrad", path)
    read_table(type(network.second_stage), tables.get("second_stage", {}), "network.second_stage", path)
    run = dict(values.get("run", {}))
    run.setdefault("name", path.stem)
    run.setdefault("output", f"../runs/{run['name']}")
    for (table, key), allowed in CHOICES.items():
        given = values.get(table)
        value = given.get(key) if isinstance(given, dict) else None
        if isinstance(value, str) and value not in allowed:
            raise ConfigError(f"{path}: [{table}] {key} is {value!r}; allowed are {', '.join(allowed)}.")
    config = cast(
        RunConfig,
        read_table(
            RunConfig,
            run,
            "run",
            path,
            network=network,
            data=read_table(DataConfig, values.get("data", {}), "data", path),
            model=read_table(ModelConfig, values.get("model", {}), "model", path),
            reference=read_table(ReferenceConfig, values.get("reference", {}), "reference", path),
            loss=read_table(LossConfig, values.get("loss", {}), "loss", path),
            optimiser=read_table(OptimiserConfig, values.get("optimiser", {}), "optimiser", path),
            stages=read_table(StagesConfig, values.get("stages", {}), "stages", path),
        ),
    )
    _check(config, path)
    return config


def _check(config: RunConfig, path: Path) -> None:
    """Ranges; what paths hold is looked at where they are opened, before the work begins."""
    optimiser, data = config.optimiser, config.data
    unknown = [symbol for symbol in config.elements if symbol not in SYMBOLS[1:]]
    counts = {
        "[optimiser] batch_blocks": optimiser.batch_blocks,
        "[run] validate_every": config.validate_every,
        "[run] save_every": config.save_every,
        "[optimiser] slope_every": optimiser.slope_every,
        "[reference] n_exponents": config.reference.n_exponents,
        "[reference] max_molecules": config.reference.max_molecules,
    }
    not_negative = {
        "[optimiser] steps": optimiser.steps,
        "[optimiser] warmup_steps": optimiser.warmup_steps,
        "[optimiser] batch_molecules": optimiser.batch_molecules,
        "[optimiser] weight_decay": optimiser.weight_decay,
        "[optimiser] slope_start": optimiser.slope_start,
        "[optimiser] plateau_patience": optimiser.plateau_patience,
        "[optimiser] plateau_cooldown": optimiser.plateau_cooldown,
        "[optimiser] revert_after": optimiser.revert_after,
        "[run] threads": config.threads,
        "[run] processes": config.processes,
        "[data] max_molecules": data.max_molecules,
        "[data] frames_per_molecule": data.frames_per_molecule,
        "[data] max_validation": data.max_validation,
        "[model] pair_cutoff_angstrom": config.model.pair_cutoff_angstrom,
        **{f"[loss] {weight.name}": getattr(config.loss, weight.name) for weight in fields(config.loss)},
    }
    positive = {
        "[optimiser] learning_rate": optimiser.learning_rate,
        "[optimiser] clip_norm": optimiser.clip_norm,
        "[optimiser] revert_above": optimiser.revert_above,
        "[reference] smallest_exponent": config.reference.smallest_exponent,
    }
    rules = [
        (len(optimiser.betas) == 2, "[optimiser] betas must be two numbers, like [0.9, 0.99]"),
        (all(0 <= beta < 1 for beta in optimiser.betas), "[optimiser] betas must be from 0 to below 1"),
        *(
            (0 < value < 1, f"[optimiser] {name} is {value}; it must be between 0 and 1")
            for name in ("rate_factor", "plateau_threshold", "plateau_smoothing", "revert_factor")
            for value in (getattr(optimiser, name),)
        ),
        (0 <= optimiser.ema_decay < 1, f"[optimiser] ema_decay is {optimiser.ema_decay}; it must be from 0 to below 1"),
        (config.reference.ratio > 1, f"[reference] ratio is {config.reference.ratio}; it must be above 1"),
        (
            bool(config.elements) and not unknown,
            f"[run] elements: {', '.join(unknown) or 'none'} must be symbols like H, C",
        ),
        (bool(data.train), "[data] train must name a split"),
        (bool(data.validation), "[data] validation must name a split"),
    ]
    orbitals = max(config.loss.guess, config.loss.spectral, config.loss.bands) > 0.0
    mode = config.network.second_stage.mode
    rules += config.stages.rules(mode, has_start=config.start_from is not None, looks_at_orbitals=orbitals)
    rules += [(value >= 1, f"{name} is {value}; it must be 1 or more") for name, value in counts.items()]
    rules += [(value >= 0, f"{name} is {value}; it must be 0 or more") for name, value in not_negative.items()]
    rules += [(value > 0, f"{name} is {value}; it must be above 0") for name, value in positive.items()]
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{path}: {message}.")
