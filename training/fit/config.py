"""A run is one TOML file that can be read alone; this file says what may stand in it.

Every table is a frozen dataclass, every key is listed here with its unit, and an unknown key is an error. Paths are
relative to the TOML file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, cast

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from model.errors import ModelError
from model.network_config import NetworkConfig
from model.preparation import INPUTS, SOURCES
from training.data.frame import Gauge
from training.data.sources import AUTO, FORMATS
from training.fit.optimiser_config import OptimiserConfig
from training.fit.stages import StagesConfig
from training.tables import (
    ConfigError,
    FilePath,
    Fraction,
    Share,
    Symbol,
    read_table,
    read_toml,
    refuse_unknown_tables,
)

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


SplitNames = Annotated[tuple[str, ...], Field(min_length=1)]


def _format(value: str) -> str:
    if value not in (*FORMATS, AUTO):
        raise ValueError(f"it should be one of {', '.join((*FORMATS, AUTO))}")
    return value


def _source(value: str) -> str:
    if value not in SOURCES:
        raise ValueError(f"it should be one of {', '.join(SOURCES)}")
    return value


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

    file: FilePath
    train: SplitNames = ("train",)
    validation: SplitNames = ("val",)
    max_molecules: NonNegativeInt = 0
    format: Annotated[str, AfterValidator(_format)] = "tracegrad"
    split: str = ""
    frames_per_molecule: NonNegativeInt = 0
    max_validation: NonNegativeInt = 0
    stream: bool = False
    extra: tuple[FilePath, ...] = ()
    gauge: Gauge = "auto"


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

    integrals: Annotated[str, AfterValidator(_source)] = "pyscf_molecule"
    inputs: tuple[str, ...] = INPUTS
    spin: Literal["", "restricted", "unrestricted", "spinor"] = ""
    time_reversal: bool = False
    pair_cutoff_angstrom: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class ReferenceConfig:
    """The reference Hamiltonian H0; the network learns F - H0.

    Attributes:
        kind: "fitted" (of molecules; the other keys describe the fit), "two_centre" (of crystals: each block the function of
            the bond's length that fits the training labels best) or "none" (H0 = 0: the network learns F itself, as in the
            papers).
        smallest_exponent: of the Gaussian charges, 1/bohr^2.
        ratio: between neighbouring exponents.
        n_exponents: number of exponents.
        density_weight: weight of the first-order density error in the fit, hartree^2.
        max_molecules: molecules in the fit, one geometry of each, spread evenly; there are some 300 coefficients.
    """

    kind: Literal["fitted", "two_centre", "none"] = "fitted"
    smallest_exponent: PositiveFloat = 0.08
    ratio: Annotated[float, Field(gt=1)] = 2.0
    n_exponents: PositiveInt = 13
    density_weight: NonNegativeFloat = 0.03
    max_molecules: PositiveInt = 240


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
        density: of the first-order density error of a crystal per square root of full bands, in percent.
        bands_damping: kinetic damping of the spectrum that bands and density are of, which goes on the card, so that
            predictions are solved with it; 0 for none. Needs ``[model] integrals = "pyscf_crystal"``.
        guess_from, spectral_from, bands_from, density_from: share of the run's steps after which these terms enter (0: from
            the start).
        trace: lambda of TraceGrad's Eq. 7.
        trace_ramp_steps: steps over which lambda grows from 0.
    """

    mae: NonNegativeFloat = 1.0
    rmse: NonNegativeFloat = 1.0
    mse: NonNegativeFloat = 0.0
    guess: NonNegativeFloat = 2.0
    spectral: NonNegativeFloat = 0.0
    bands: NonNegativeFloat = 0.0
    density: NonNegativeFloat = 0.0
    bands_damping: Fraction = 0.0
    guess_from: Share = 0.0
    spectral_from: Share = 0.0
    bands_from: Share = 0.0
    density_from: Share = 0.0
    trace: NonNegativeFloat = 0.2
    trace_ramp_steps: NonNegativeInt = 500


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
    output: FilePath
    data: DataConfig
    model: ModelConfig
    reference: ReferenceConfig
    network: NetworkConfig
    loss: LossConfig
    optimiser: OptimiserConfig
    stages: StagesConfig = field(default_factory=StagesConfig)
    seed: NonNegativeInt = 0
    start_from: FilePath | None = None
    compile: bool = False
    xc: str = ""
    basis: str = ""
    charges: tuple[int, ...] = ()
    elements: Annotated[tuple[Symbol, ...], Field(min_length=1)] = ("H", "C", "N", "O", "F")
    threads: NonNegativeInt = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    processes: NonNegativeInt = 2
    validate_every: PositiveInt = 500
    save_every: PositiveInt = 250

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
    """What tables must be to each other; what paths hold is looked at where they are opened, before the work begins."""
    orbitals = max(config.loss.guess, config.loss.spectral, config.loss.bands, config.loss.density) > 0.0
    mode = config.network.second_stage.mode
    rules = config.stages.rules(mode, has_start=config.start_from is not None, looks_at_orbitals=orbitals)
    for holds, message in rules:
        if not holds:
            raise ConfigError(f"{path}: {message}.")
    if config.loss.bands_damping and config.model.integrals != "pyscf_crystal":
        raise ConfigError(
            f'{path}: [loss] bands_damping needs kinetic energies, which [model] integrals = "pyscf_crystal" computes; '
            f"{config.model.integrals!r} has none. Set it to 0."
        )
