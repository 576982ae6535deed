"""Own kernels: the same numbers as torch, and torch wherever they cannot be made or used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from model.architectures.qhnet_published import pair_products
from model.architectures.qhnet_published.config import QHNetPublishedConfig
from model.architectures.qhnet_published.parameters import PairParameters
from model.nn import native
from model.nn.irreps import Layout, RaggedLayout
from model.tracegrad.config import TraceGradConfig
from model.tracegrad.module import TraceGradModule

SAME = {torch.float64: 1e-14, torch.float32: 1e-6}
N_ATOMS = 7

needs_compiler = pytest.mark.skipif(
    native.library(pair_products.SOURCE, torch.float32) is None, reason="no C compiler on this machine"
)


@pytest.fixture
def fresh_library() -> Iterator[None]:
    """Kernels are compiled anew in this test, and forgotten after it."""
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def arguments(dtype: torch.dtype, *, lmax: int = 4, channels: int = 64, n_pairs: int = 11) -> tuple[Any, ...]:
    """Random features and hidden layers; pairs in no order, one of an atom with itself; no bias is zero."""
    torch.manual_seed(8)
    config = QHNetPublishedConfig(lmax=lmax, channels=channels, hidden=9, radial_size=6)
    parameters = PairParameters(config).to(dtype)
    whole = torch.randn((lmax + 1) ** 2, N_ATOMS, channels, dtype=dtype)
    low, high = torch.randint(0, N_ATOMS, (2, n_pairs))
    hidden, radial_hidden = (
        torch.randn(count, width, dtype=dtype) for count, width in ((2 * n_pairs, channels), (n_pairs, 9))
    )
    return whole, low, high, hidden, radial_hidden, parameters


def products(given: tuple[Any, ...], *, kernels: bool) -> Tensor:
    return torch.cat(pair_products.weighted_products(*given, kernels=kernels))


def gradient_module(dtype: torch.dtype, **settings: Any) -> TraceGradModule:
    """TraceGrad on irreps of many channels and of one; LayerNorms with weights that do something."""
    torch.manual_seed(9)
    layout = RaggedLayout(Layout(((0, 1), (1, -1), (1, 1), (2, 1), (4, 1))), (19, 8, 1, 2, 1))
    module = TraceGradModule(layout, 0, TraceGradConfig(rank=5, hidden=11, n_scalars=7, **settings)).to(dtype)
    for norm in module.gradient.norms:
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter)
    return module


def ragged_features(dtype: torch.dtype, n_items: int) -> tuple[Tensor, ...]:
    """Of the irreps of ``gradient_module``, each of its own size; seen through a slice, as edges are."""
    sizes = zip((1, 3, 3, 5, 9), (19, 8, 1, 2, 1), strict=True)
    return tuple(
        (place * torch.randn(n_items + 3, dim, width, dtype=dtype))[2:-1]
        for place, (dim, width) in enumerate(sizes, start=1)
    )


def forbid(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError(f"{function} was called")

    monkeypatch.setattr(pair_products, function, refuse)


@needs_compiler
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("lmax", "channels", "n_pairs"), [(4, 128, 11), (2, 64, 2), (0, 64, 1)])
@pytest.mark.parametrize("dtype", list(SAME))
def test_kernel_gives_what_torch_gives(
    dtype: torch.dtype, lmax: int, channels: int, n_pairs: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(dtype, lmax=lmax, channels=channels, n_pairs=n_pairs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with torch.inference_mode():
        expected = products(given, kernels=False)
        forbid(monkeypatch, "_by_torch")
        found = products(given, kernels=True)
    assert found.shape == (len(given[0]), 2 * n_pairs, channels)
    assert (found - expected).norm() < SAME[dtype] * expected.norm()


@needs_compiler
def test_kernel_leaves_gradients_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, "_by_kernel")
    given = arguments(torch.float64)
    products(given, kernels=True).sum().backward()
    gradient = given[-1].invariant.last.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_kernel_leaves_other_widths_and_graphs_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, "_by_kernel")
    with torch.inference_mode():
        assert torch.isfinite(products(arguments(torch.float32, channels=48), kernels=True)).all()
        assert not native.usable(torch.zeros(1, device="meta"))
        assert not native.usable(torch.zeros(1, dtype=torch.bfloat16))
        assert native.usable(torch.zeros(1))
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert not native.usable(torch.zeros(1))


@pytest.mark.usefixtures("fresh_library")
def test_without_a_compiler_torch_serves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    caplog.set_level(logging.INFO)
    given = arguments(torch.float32)
    with torch.inference_mode():
        assert torch.equal(products(given, kernels=True), products(given, kernels=False))
    assert caplog.messages == ["no C compiler (no-such-compiler): pair_products runs in its slower form"]


@needs_compiler
@pytest.mark.usefixtures("fresh_library")
def test_a_kernel_that_does_not_compile_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("this is not C")
    assert native.library(broken, torch.float32) is None
    (message,) = caplog.messages
    assert message.startswith("broken could not be compiled, its slower form runs:")
    assert "error" in message


@needs_compiler
@pytest.mark.parametrize("residual", ["norm_scaled", "plain"])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("n_items", "threads"), [(0, 1), (1, 1), (35, 3), (200, 1), (200, 3)])
@pytest.mark.parametrize("dtype", list(SAME))
def test_gradient_is_added_as_torch_adds_it(
    dtype: torch.dtype, n_items: int, threads: int, affine: bool, residual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = gradient_module(dtype, residual=residual, affine=affine)
    features = ragged_features(dtype, n_items)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with torch.inference_mode():
        monkeypatch.setattr(native, "usable", lambda like: False)
        z, expected = module(features)
        monkeypatch.undo()
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(TraceGradModule, "_strength", None)  # torch's form is not run
        found_z, found = module(features)
    assert found_z.shape == z.shape
    assert (found_z - z).norm() <= 3 * SAME[dtype] * z.norm()
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() <= 3 * SAME[dtype] * other.norm()


@needs_compiler
def test_no_features_have_no_gradient() -> None:
    """Of an item of zeros too, |f| / |v| is a number."""
    module = gradient_module(torch.float32)
    with torch.inference_mode():
        zeros = tuple(torch.zeros_like(part) for part in ragged_features(torch.float32, 3))
        assert all(torch.equal(part, torch.zeros_like(part)) for part in module(zeros)[1])


@needs_compiler
def test_added_gradient_leaves_training_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = gradient_module(torch.float64)
    monkeypatch.setattr(native, "library", None)  # not asked for
    _, changed = module(ragged_features(torch.float64, 5))
    torch.stack([part.sum() for part in changed]).sum().backward()
    slope = module.gradient.second.weight.grad
    assert slope is not None
    assert slope.abs().max() > 0
