"""Optimisers of a run and their learning rate: AdamW for all weights, or Muon for the matrices and AdamW for the rest.

Muon (Jordan et al., 2024; scaled as in Liu et al., arXiv:2502.16982) replaces the momentum of a weight matrix by the nearest
orthogonal matrix, so that every direction of it learns at the same pace. PyTorch's own handles plain matrices only; ours
takes stacks of them too, as equivariant layers have them: one matrix per irrep.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn

from training.fit.config import OptimiserConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration; singular values end between 0.7 and 1.2 after five steps."""
NEWTON_SCHULZ_STEPS = 5
MOMENTUM = 0.95


def make_optimisers(network: nn.Module, config: OptimiserConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a run; each group's ``relative_rate`` times the scheduled learning rate is its own."""
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue  # of a frozen first stage
        if config.kind == "muon" and _is_hidden_matrix(name, parameter):
            matrices.append(parameter)
        else:
            (decayed if parameter.ndim >= 2 else plain).append(parameter)
    adam = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay, "relative_rate": 1.0},
            {"params": plain, "weight_decay": 0.0, "relative_rate": 1.0},
        ],
        lr=config.learning_rate,
        betas=(config.betas[0], config.betas[1]),
        fused=True,
    )
    if not matrices:
        return [adam]
    muon = Muon(matrices, config.learning_rate, config.weight_decay)
    muon.param_groups[0]["relative_rate"] = config.muon_rate
    return [adam, muon]


def learning_rate(step: int, config: OptimiserConfig) -> float:
    """Linear warm-up, then half a cosine, or a straight line, down to the final rate; or the steps of a slippery slope."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "slippery_slope":
        slips = 0 if step < config.slope_start else 1 + (step - config.slope_start) // config.slope_every
        return config.learning_rate * config.rate_factor**slips
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    swing = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * swing


def _is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Not tables by element, not the last layers, whose rows stand for single things."""
    if parameter.ndim < 2 or min(parameter.shape[-2:]) < 2:
        return False
    return not any(word in name for word in ("embedding", "scale", "read_out.linear"))


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; parameters (..., rows, columns).

    Args:
        parameters: matrices or stacks of matrices.
        learning_rate: comparable with AdamW's: an update's root mean square is 0.2 times it.
        weight_decay: decoupled.
    """

    def __init__(self, parameters: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of everything that has a gradient; matrices of one shape go through the iteration together."""
        for group in self.param_groups:
            waiting: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"], state["exp_avg"] = torch.zeros(()), torch.zeros_like(parameter)
                state["step"] += 1
                state["exp_avg"].lerp_(parameter.grad, 1.0 - MOMENTUM)
                update = parameter.grad.lerp(state["exp_avg"], MOMENTUM)
                rows, columns = sorted(parameter.shape[-2:])
                flat = update if update.shape[-2] == rows else update.mT
                waiting.setdefault((rows, columns), []).append((parameter, flat.reshape(-1, rows, columns)))
            for (rows, columns), items in waiting.items():
                made = orthogonal(torch.cat([flat for _, flat in items]))
                scale = -group["lr"] * 0.2 * math.sqrt(columns)
                for (parameter, _), update in zip(items, made.split([len(flat) for _, flat in items]), strict=True):
                    turned = update if parameter.shape[-2] == rows else update.mT
                    parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                    parameter.add_(turned.reshape(parameter.shape), alpha=scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """Close to U V^T of each matrix's singular value decomposition, by Newton-Schulz iteration.

    In bfloat16, as PyTorch's, where the hardware has it: the iteration forgives rounding, and it is five times faster.

    Args:
        matrix: (item, rows, columns), no more rows than columns.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.to(iteration_dtype(matrix.device.type))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrix.dtype)


@cache
def iteration_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32: emulated by a CPU it makes a step up to twenty times slower.

    Args:
        device: type of the device, "cpu" or "cuda".
    """
    if device != "cpu":
        return torch.bfloat16
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_units else torch.float32
