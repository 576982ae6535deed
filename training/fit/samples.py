"""Frame -> Sample -> Batch: a labelled structure as tensors, made once, and several of them joined.

A sample holds what the model's own ``prepare`` gives of the structure, the label's coefficients, and what the loss terms ask
for. Workers make it as plain arrays (``sample_arrays``), which is also how it is cached on disk (safetensors), keyed by
labels and by everything that prepares them. ``join`` only copies and adds offsets: sizes are shapes, so it reads no number
back, and a GPU never has to wait for it.

Memory of a molecule's sample with n atoms, p listed pairs, m input matrices of k coefficients a block, N orbitals, o of them
occupied: 4 (n + p) (m + 1) k + 16 n + 28 (n (n - 1) + p) + 8 p bytes, and for the guess term 4 N^2 + 4 o (N - o).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from model.architectures.interface import InputCoefficients
from model.blocks.block_set import BlockSet
from model.blocks.matrices import cut_matrix
from model.blocks.standardise import Encoder
from model.pairs.graph import AtomGraph, join_graphs
from model.preparation import Prepared, Preparer
from training.atomic import replaced
from training.data.frame import Frame
from training.fit.losses.term import Label, Term, prepare_terms
from training.pool import parallel_map

Arrays = Mapping[str, NDArray[Any]]

CACHE_VERSION: Final = 4
"""Of the cached arrays; another one makes older files strangers."""

_GRAPH: Final = ("numbers", "structure_index", "edge_index", "edge_vectors", "pair_index", "pair_vectors")
_EXTRA: Final = "extra/"


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled structure, ready to be joined.

    Attributes:
        graph: of this structure alone, float32.
        inputs: raw input coefficients, (block, matrix, coefficient).
        target: label less H0, raw coefficients of on-site blocks, then of listed pairs, (block, coefficient), hartree.
        partner: listed pair that is the reverse of each listed pair, -1 where it is not computed, (pair,).
        extras: what the loss terms asked for.
    """

    graph: AtomGraph
    inputs: InputCoefficients
    target: Tensor
    partner: Tensor
    extras: Mapping[str, Tensor]

    @classmethod
    def of(cls, arrays: Arrays) -> Sample:
        """From ``sample_arrays``; on the CPU the arrays' own memory, not a copy."""
        tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return cls(
            graph=AtomGraph(**{name: tensors[name] for name in _GRAPH}, n_structures=1),
            inputs=InputCoefficients(tensors["on_site"], tensors["pair"]),
            target=tensors["target"],
            partner=tensors["partner"],
            extras={name.removeprefix(_EXTRA): value for name, value in tensors.items() if name.startswith(_EXTRA)},
        )

    def to(self, device: torch.device) -> Sample:
        """The same sample on another device."""
        return Sample(
            graph=self.graph.to(device=device),
            inputs=InputCoefficients(self.inputs.diagonal.to(device), self.inputs.pair.to(device)),
            target=self.target.to(device),
            partner=self.partner.to(device),
            extras={name: value.to(device) for name, value in self.extras.items()},
        )

    @property
    def n_blocks(self) -> int:
        """Cost of the sample: on-site blocks and listed pairs."""
        return self.graph.n_blocks

    @property
    def n_bytes(self) -> int:
        """Memory of all tensors."""
        graph = (getattr(self.graph, name) for name in _GRAPH)
        own = (self.inputs.diagonal, self.inputs.pair, self.target, self.partner)
        return sum(tensor.nbytes for tensor in (*graph, *own, *self.extras.values()))


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one step.

    Attributes:
        graph, inputs, target, partner: see ``Sample``, one behind the other; all on-site targets come first.
        extras: padded with zeros at their ends and stacked, (structure, ...).
    """

    graph: AtomGraph
    inputs: InputCoefficients
    target: Tensor
    partner: Tensor
    extras: Mapping[str, Tensor]


def join(samples: Sequence[Sample]) -> Batch:
    """A batch of samples, on their device; waits for nothing that runs there."""
    atoms = [sample.graph.n_atoms for sample in samples]
    starts = accumulate((sample.graph.n_pairs for sample in samples), initial=0)
    partners = [
        torch.where(s.partner < 0, s.partner, s.partner + start) for s, start in zip(samples, starts, strict=False)
    ]
    return Batch(
        graph=join_graphs([sample.graph for sample in samples]),
        inputs=InputCoefficients(
            torch.cat([sample.inputs.diagonal for sample in samples]),
            torch.cat([sample.inputs.pair for sample in samples]),
        ),
        target=torch.cat(
            [s.target[:n] for s, n in zip(samples, atoms, strict=True)]
            + [s.target[n:] for s, n in zip(samples, atoms, strict=True)]
        ),
        partner=torch.cat(partners),
        extras={name: stack_padded([sample.extras[name] for sample in samples]) for name in samples[0].extras},
    )


def stack_padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one number of axes, padded with zeros at their ends to the largest size and stacked, (tensor, ...)."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    result = tensors[0].new_zeros((len(tensors), *shape))
    for row, tensor in zip(result, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return result


def sample_arrays(frame: Frame, preparer: Preparer, terms: Sequence[Term]) -> dict[str, NDArray[Any]]:
    """A frame's sample as arrays, floats in float32.

    Args:
        frame: the label.
        preparer: the model's.
        terms: of the loss; what they need is made too.

    Raises:
        DatasetError: a label that a term is not made for, or with other orbitals than the model's.
    """
    frame = frame.in_space(preparer.space)
    given = {} if frame.overlap is None else {"overlap": frame.overlap}
    prepared = preparer(frame.structure, given)
    target = Encoder(preparer.block_space).encode_target(_target(frame, prepared), prepared.blocks)
    graph = {name: getattr(prepared.graph, name).numpy() for name in _GRAPH}
    extras = prepare_terms(terms, Label(frame, prepared))
    arrays = {
        **graph,
        "on_site": prepared.on_site,
        "pair": prepared.pair,
        "target": np.concatenate(target),
        "partner": _partner(prepared),
        **{_EXTRA + name: value for name, value in extras.items()},
    }
    return {
        name: np.asarray(value, dtype=np.float32 if value.dtype.kind == "f" else value.dtype, order="C")
        for name, value in arrays.items()
    }


def _target(frame: Frame, prepared: Prepared) -> BlockSet:
    """Label less H0, on the pairs of the model, hartree."""
    blocks = prepared.blocks
    label = frame.hamiltonian.on_pairs(blocks.pairs)
    if prepared.reference is None:
        return label
    reference = prepared.reference.hamiltonian
    if not isinstance(reference, BlockSet):
        reference = cut_matrix(blocks.space, blocks.numbers, blocks.pairs, reference)
    return label.plus_shared(reference, -1.0)


def _partner(prepared: Prepared) -> NDArray[np.int64]:
    """Listed pair that is the reverse of each listed pair, -1 where it is not listed, (pair,)."""
    pairs, listed = prepared.blocks.pairs, prepared.blocks.listed
    place = np.full(len(pairs), -1, dtype=np.int64)
    place[listed] = np.arange(len(listed))
    return place[pairs.reverse[listed]]


def make_samples(
    frames: Sequence[Frame], preparer: Preparer, terms: Sequence[Term], *, cache: Path | None, processes: int
) -> list[Sample]:
    """Samples of many frames, in order; read from ``cache`` where they were made before.

    Args:
        frames: labels.
        preparer: the model's.
        terms: of the loss.
        cache: folder, made if needed; None keeps nothing.
        processes: worker processes.
    """
    path = None if cache is None else cache / f"{_key(frames, preparer, terms)}.safetensors"
    if path is not None and path.is_file():
        stored = load_file(path)
        found: list[dict[str, NDArray[Any]]] = [{} for _ in frames]
        for name, value in stored.items():
            index, _, own = name.partition("/")
            found[int(index)][own] = value
        return [Sample.of(arrays) for arrays in found]
    work = partial(sample_arrays, preparer=preparer, terms=terms)
    made = list(parallel_map(work, frames, total=len(frames), processes=processes, title="samples", chunk=8))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = {f"{index}/{name}": value for index, arrays in enumerate(made) for name, value in arrays.items()}
        with replaced(path) as temporary:
            save_file(flat, temporary)
    return [Sample.of(arrays) for arrays in made]


def _key(frames: Sequence[Frame], preparer: Preparer, terms: Sequence[Term]) -> str:
    """Hash of everything that the samples depend on."""
    space, reference = preparer.space, preparer.reference
    settings = (
        CACHE_VERSION, space.name, space.fingerprint, sorted(space.shells.items()), space.order,
        preparer.block_space.spin, preparer.block_space.time_reversal, preparer.cutoff_angstrom, preparer.inputs,
        preparer.source, preparer.pairs, [term.name for term in terms],
    )  # fmt: skip
    key = hashlib.sha256(repr(settings).encode())
    for value in reference.tensors().values():
        key.update(value.tobytes())
    for name, values in {} if preparer.tables is None else preparer.tables.to_arrays().items():
        key.update(name.encode() + values.tobytes())
    for frame in frames:
        structure = frame.structure
        key.update(f"{frame.molecule}/{frame.index} {structure.charge} {structure.multiplicity};".encode())
        key.update(structure.positions_angstrom.tobytes() + frame.hamiltonian.values.tobytes())
        if frame.overlap is not None:
            key.update(frame.overlap.values.tobytes())
    return key.hexdigest()[:16]
