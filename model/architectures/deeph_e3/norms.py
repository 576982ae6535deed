"""The two norms: the published one over a whole structure, and one with running statistics."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from model.architectures.deeph_e3.parts import Parts, with_bias
from model.architectures.deeph_e3.slots import Slot, Slots, channels_of

EPSILON: Final = 1e-5
"""Added to the root mean square, as published."""
LEAST_SQUARE: Final = 1e-30
MOMENTUM: Final = 0.05
"""Share of a batch in the running statistics."""
FLOOR: Final = 0.1
"""Least root mean square that a slot is divided by: one that vanished in training by symmetry is not magnified later."""


class SlotNorm(nn.Module):
    """A weight for each channel and a bias for even scalars, after what a subclass does.

    Args:
        slots: of the features.
    """

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots
        self.weight = nn.Parameter(torch.ones(sum(channels_of(slots))))
        self.bias = nn.Parameter(torch.zeros(sum(slot.channels for slot in slots if slot.irrep == (0, 1))))

    def normalised(self, parts: Parts, index: Tensor, count: Tensor) -> Parts:
        """The features before weights.

        Args:
            parts: features.
            index: structure of each item, (item,).
            count: items of each structure, (structure,).
        """
        raise NotImplementedError

    def forward(self, parts: Parts, index: Tensor, count: Tensor) -> Parts:
        """See :meth:`normalised`."""
        weights = self.weight.split(channels_of(self.slots))
        normed = self.normalised(parts, index, count)
        return with_bias(
            tuple(part * weight for part, weight in zip(normed, weights, strict=True)), self.bias, self.slots
        )


class GraphNorm(SlotNorm):
    """Published: less the mean over items and channels of the structure, components apart; scalars over their rms."""

    def normalised(self, parts: Parts, index: Tensor, count: Tensor) -> Parts:
        def mean(part: Tensor) -> Tensor:
            """(item, component, channel) -> (structure, component, 1)."""
            over_channels = part.mean(dim=2)
            total = over_channels.new_zeros((len(count), part.shape[1])).index_add_(0, index, over_channels)
            return (total / count[:, None]).unsqueeze(2)

        out = []
        for part, slot in zip(parts, self.slots, strict=True):
            centred = part - mean(part).index_select(0, index)
            if slot.ang == 0:
                # the least square keeps the root's gradient finite where a slot vanishes by symmetry
                root = mean(centred.square()).clamp_min(LEAST_SQUARE).sqrt()
                centred = centred / (root + EPSILON).index_select(0, index)
            out.append(centred)
        return tuple(out)


class RunningNorm(SlotNorm):
    """Local: scalars over their running root mean square, even ones less their running mean. Fixed outside of training.

    Nothing of a structure's other atoms enters, so a fragment far away changes nothing. In training values are the same,
    but gradients are those of the batch's own statistics (batch renormalisation, arXiv:1702.03275): with constant ones
    nothing holds back the growth of what is normalised. The first batch sets the statistics. As in the published norm only
    l = 0 is divided: with all l divided, graphene was at twice the error after 300 steps.
    """

    mean: Tensor
    mean_square: Tensor
    batches: Tensor

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        self.scalars = [index for index, slot in enumerate(slots) if slot.ang == 0]
        self.register_buffer("mean", torch.zeros(len(self.scalars)))
        self.register_buffer("mean_square", torch.ones(len(self.scalars)))
        self.register_buffer("batches", torch.zeros(()))

    def normalised(self, parts: Parts, index: Tensor, count: Tensor) -> Parts:
        moments = [_moments(parts[k], self.slots[k]) for k in self.scalars] if self.training else []
        if moments:
            self._update(moments)
        scales = self.mean_square.clamp_min(FLOOR**2).rsqrt().unbind()
        out = list(parts)
        for place, (k, mean, scale) in enumerate(zip(self.scalars, self.mean.unbind(), scales, strict=True)):
            if moments:
                own, square = moments[place]
                root = square.clamp_min(FLOOR**2).sqrt()
                batch = (parts[k] - own) / root
                out[k] = batch * (root.detach() * scale) + (own.detach() - mean) * scale
            else:
                out[k] = (parts[k] - mean) * scale
        return tuple(out)

    @torch.no_grad()
    def _update(self, moments: list[tuple[Tensor, Tensor]]) -> None:
        means, squares = (torch.stack(values).to(self.mean.dtype) for values in zip(*moments, strict=True))
        share = torch.where(self.batches == 0, 1.0, MOMENTUM).to(self.mean.dtype)
        self.mean.lerp_(means, share)
        self.mean_square.lerp_(squares, share)
        self.batches += 1


def _moments(part: Tensor, slot: Slot) -> tuple[Tensor, Tensor]:
    """Mean (zero of pseudoscalars: a constant would break mirrors), and mean square about it."""
    mean = part.mean() if slot.parity == 1 else part.new_zeros(())
    return mean, (part - mean).square().mean()
