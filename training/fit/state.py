"""Training state on disk without pickle: one safetensors file (numbers in its header), replaced atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.atomic import replaced

STATE_FILE = "state.safetensors"
BEST_FILE = "best.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What optimisers keep of a parameter: Adam both, Muon the first."""


def weights(module: nn.Module) -> dict[str, Tensor]:
    """By name the parameters, and the floating-point buffers that are kept with them: running statistics of norms."""
    found: dict[str, Tensor] = module.state_dict(keep_vars=True)
    return {name: value for name, value in found.items() if value.is_floating_point()}


class MovingAverage:
    """Exponential moving average of a module's weights.

    Args:
        module: whose weights are followed.
        decay: of the average; in the first steps (1 + n) / (10 + n) is used where it is smaller.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in weights(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take one step's weights in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values = {name: value.detach() for name, value in weights(module).items()}
        torch._foreach_lerp_([self.values[name] for name in values], list(values.values()), 1.0 - decay)

    def copy_to(self, module: nn.Module) -> None:
        """Overwrite a module's weights with the average."""
        with torch.no_grad():
            for name, value in weights(module).items():
                value.copy_(self.values[name])


def save_training_state(
    folder: Path,
    module: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    average: MovingAverage,
    progress: Mapping[str, Any],
) -> None:
    """Write everything that an exact resume needs.

    The random numbers are the CPU's: nothing random happens on a GPU (weights are drawn before they move there, the order
    of the data is NumPy's, and no layer draws anything).
    """
    tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
    for name, value in weights(module).items():
        tensors[f"model/{name}"] = value.detach()
        tensors[f"average/{name}"] = average.values[name]
    steps: Tensor | int = 0
    for optimiser in optimisers:
        names = _names_in_optimiser_order(module, optimiser)
        for index, entry in optimiser.state_dict()["state"].items():
            for moment in MOMENTS:
                if moment in entry:
                    tensors[f"{moment}/{names[index]}"] = entry[moment]
            steps = entry["step"]  # the same for all; read from the device once
    header = json.dumps({**progress, "optimiser_steps": int(steps)})
    write_tensors(folder / STATE_FILE, tensors, {"progress": header})


def load_training_state(
    folder: Path, module: nn.Module, optimisers: Sequence[torch.optim.Optimizer], average: MovingAverage
) -> dict[str, Any] | None:
    """Restore a saved run; None if there is none."""
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    tensors, metadata = read_tensors(path)
    progress: dict[str, Any] = json.loads(metadata["progress"])
    own = weights(module)
    device = next(iter(own.values())).device
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[f"model/{name}"])
            average.values[name].copy_(tensors[f"average/{name}"])
    for optimiser in optimisers:
        state = {
            index: {"step": torch.tensor(float(progress["optimiser_steps"]))}
            | {m: tensors[f"{m}/{name}"].to(device) for m in MOMENTS if f"{m}/{name}" in tensors}
            for index, name in enumerate(_names_in_optimiser_order(module, optimiser))
            if f"{MOMENTS[0]}/{name}" in tensors  # a parameter that never had a gradient has no moments
        }
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    torch.set_rng_state(tensors["rng"])
    return progress


def saved_progress(folder: Path) -> dict[str, Any] | None:
    """Where a saved run is, without its tensors; None if there is none."""
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        progress: dict[str, Any] = json.loads(file.metadata()["progress"])
    return progress


def _names_in_optimiser_order(module: nn.Module, optimiser: torch.optim.Optimizer) -> list[str]:
    """Parameter names as an optimiser numbers them: group by group, which is not the module's order."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in optimiser.param_groups for parameter in group["params"]]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """safetensors file, never half written."""
    with replaced(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, metadata)
