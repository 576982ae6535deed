"""The training loss: Hamiltonian error, first-order density error, trace labels.

    L_Q = mae * mean|dH| + rmse * sqrt(mean dH^2)  (millihartree)  +  mse * 1000 mean dH^2 (hartree^2)
        + guess * 100 |D| / sqrt(n_occ) + spectral * S  (millihartree)
    D_ia = C_i^T dH C_a / (e_a - e_i)   with the reference orbitals: what an error dH does to the density, to first order
    L = L_Q + lambda * mu * L_T,  mu = stopgrad(L_Q / L_T)          (TraceGrad, Eq. 7 and 8; L_T is an L1 error)

Norms are not squared: every molecule pulls with the same strength however good it already is. D needs no eigensolver in
the gradient and degenerate levels are harmless, because whole blocks are summed. It is blind to the occupied-occupied and
virtual-virtual blocks, which the first two terms look after.

S is the first-order error of orbital energies, |C_p^T dH C_p|, averaged over all occupied orbitals and the lowest empty ones,
in the reference eigenbasis: WALoss (arXiv:2502.19227) reduced to the levels that are read. It is meant for the end of a
run; from scratch such a term damages H (method of QHFlow, arXiv:2505.18817, App. F).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.blocks.assemble import gather
from model.blocks.standardise import Standardisation
from model.network import HamiltonianNetwork, Output
from model.tracegrad.trace import trace_labels
from model.units import MILLIHARTREE_PER_HARTREE
from training.fit.config import LossConfig
from training.fit.resident import Batch

N_EMPTY_LEVELS: Final = 2
"""LUMO and the one above."""


@dataclass(frozen=True)
class Errors:
    """Per molecule of a batch.

    Attributes:
        mae: mean |dH|, hartree.
        rmse: root mean dH^2, hartree.
        density: |D_ia| (Frobenius norm).
        density_per_electron: |D_ia| / sqrt(n_occupied).
        levels: mean |C_p^T dH C_p| of occupied and ``N_EMPTY_LEVELS`` lowest empty orbitals, hartree.
    """

    mae: Tensor
    rmse: Tensor
    density: Tensor
    density_per_electron: Tensor
    levels: Tensor


def predict(
    network: HamiltonianNetwork, standardisation: Standardisation, batch: Batch, *, with_trace: bool
) -> tuple[Output, Tensor]:
    """Network output and the predicted F - H0, padded, (molecule, ao, ao)."""
    atom_type, pair_type = network.types(batch.graph)
    inputs = standardisation.inputs(batch.inputs.diagonal, batch.inputs.pair, atom_type, pair_type)
    output = network(batch.graph, InputCoefficients(*inputs), with_trace=with_trace)
    blocks = standardisation.blocks(output.diagonal, output.pair, atom_type, pair_type)
    return output, gather(blocks, batch.index)


def errors(predicted: Tensor, batch: Batch) -> Errors:
    """Errors of predicted matrices (molecule, ao, ao)."""
    difference = (predicted - batch.target) * batch.mask
    count = batch.mask.sum(dim=(1, 2))
    from_occupied = difference @ batch.occupied
    rotated = from_occupied.transpose(1, 2) @ batch.virtual * batch.inverse_gaps
    density = (rotated.square().sum(dim=(1, 2)) + 1e-16).sqrt()
    low = batch.virtual[:, :, :N_EMPTY_LEVELS]
    levels = (batch.occupied * from_occupied).sum(dim=1).abs().sum(dim=1)
    levels = levels + (low * (difference @ low)).sum(dim=1).abs().sum(dim=1)
    return Errors(
        mae=difference.abs().sum(dim=(1, 2)) / count,
        rmse=(difference.square().sum(dim=(1, 2)) / count + 1e-16).sqrt(),
        density=density,
        density_per_electron=density / batch.n_occupied.sqrt(),
        levels=levels / (batch.n_occupied + low.shape[2]),
    )


def uses_trace(network: HamiltonianNetwork, config: LossConfig) -> bool:
    """Whether the trace takes part in the loss: the network says one, and it has a weight."""
    return network.has_trace_head and config.trace > 0


def trace_error(
    network: HamiltonianNetwork, standardisation: Standardisation, batch: Batch, predicted: Tensor
) -> Tensor:
    """Mean |T_hat - T| over all blocks and shell pairs that exist."""
    atom_type, pair_type = network.types(batch.graph)
    kind = network.config.tracegrad.labels
    raw = (batch.target_diagonal, batch.target_pair)
    target = torch.cat(standardisation.target(*raw, atom_type, pair_type) if kind == "log" else raw)
    labels = trace_labels(target, network.shell_pair, predicted.shape[1], kind)
    return (predicted - labels).abs().mean()


def loss(
    network: HamiltonianNetwork,
    standardisation: Standardisation,
    batch: Batch,
    config: LossConfig,
    step: int,
    progress: float = 1.0,
) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch and its parts.

    Args:
        network, standardisation: the model.
        batch: samples.
        config: weights of the terms.
        step: of the run, for the ramp of the trace term.
        progress: share of the run that is done, for terms that enter late.
    """
    guess = config.guess if progress >= config.guess_from else 0.0
    spectral = config.spectral if progress >= config.spectral_from else 0.0
    output, predicted = predict(network, standardisation, batch, with_trace=uses_trace(network, config))
    found = errors(predicted, batch)
    main = (
        MILLIHARTREE_PER_HARTREE
        * (
            config.mae * found.mae
            + config.rmse * found.rmse
            + config.mse * found.rmse.square()
            + spectral * found.levels
        )
        + 100.0 * guess * found.density_per_electron
    ).mean()
    parts = {
        "mae_uEh": 1e6 * float(found.mae.detach().mean()),
        "density_per_electron": float(found.density_per_electron.detach().mean()),
        "levels_uEh": 1e6 * float(found.levels.detach().mean()),
    }
    if output.trace is None:
        return main, parts
    trace = trace_error(network, standardisation, batch, output.trace)
    ramp = min(1.0, step / max(1, config.trace_ramp_steps))
    balance = (main / trace).detach()
    parts["trace"] = float(trace.detach())
    return main + ramp * config.trace * balance * trace, parts
