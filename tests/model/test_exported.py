"""The compiled forward pass: the network's answers, to rounding, and the network itself wherever it does not fit."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.architectures.declaration import declare
from model.architectures.interface import AfterBlock, Coefficients, FeatureLayouts, InputCoefficients
from model.architectures.registry import ARCHITECTURES
from model.checkpoint import store
from model.errors import CheckpointError
from model.exported import package, runner
from model.exported.__main__ import main, make
from model.exported.program import compile_package, export
from model.exported.runner import ExportedForward, Runner, flat_arguments
from model.hamiltonian_model import HamiltonianModel
from model.network_config import NetworkConfig
from model.nn import kernel_files
from model.nn.irreps import CoefficientLayout
from model.pairs.graph import AtomGraph
from model.predictor import Predictor
from model.structure import Structure
from tests.conftest import make_tiny_checkpoint
from tests.tolerances import NOT_NOTHING, SAME_FLOAT32

LEVEL = "x86-64-v3"
MOLECULES = ("H2O", "CH3CH2OH", "C6H6", "HCN")
DIATOMIC = Structure(np.array([9, 1]), np.array([[0.0, 0.0, 0.0], [0.1, 0.2, 0.89]]))
ATOM = Structure(np.array([8]), np.zeros((1, 3)))

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch.*"
)


@dataclass(frozen=True)
class PlainConfig:
    """Of :class:`Plain`."""

    cutoff_angstrom: float = 6.0
    n_inputs: int = 3


class Plain(nn.Module):
    """A network of a few operators, since the compiler takes minutes for a real one: known matrices are mixed, pairs and the
    messages of edges weighted by their lengths, and messages summed at their atoms."""

    n_blocks = 0

    def __init__(self, config: PlainConfig, coefficients: CoefficientLayout, n_elements: int, _: Tensor | None) -> None:
        super().__init__()
        self.mix = nn.Parameter(0.1 * torch.randn(config.n_inputs, 1))
        self.scale = nn.Parameter(1.0 + 0.1 * torch.randn(n_elements, 1))

    def feature_layouts(self, block: int) -> FeatureLayouts:
        raise AssertionError("there is no block")

    def run(self, graph: AtomGraph, inputs: InputCoefficients, atom_type: Tensor, after: AfterBlock) -> Coefficients:
        lengths, target = graph.edge_vectors.norm(dim=1), graph.edge_index[1]
        messages = lengths.new_zeros(graph.n_atoms).index_add(0, target, torch.exp(-lengths))
        diagonal = (inputs.diagonal * self.mix).sum(dim=1) * self.scale[atom_type] * (1.0 + messages[:, None])
        pair = (inputs.pair * self.mix).sum(dim=1) * torch.exp(-graph.pair_vectors.norm(dim=1))[:, None]
        return diagonal, pair


@pytest.fixture(scope="module", autouse=True)
def _plain() -> Iterator[None]:
    """The network has a name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict, ARCHITECTURES), "plain", declare(PlainConfig, Plain, tiny={"backbone": "plain"}))
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of it."""
    architecture = {"backbone": "plain", "plain": {}, "tracegrad": {"mode": "none"}}
    return make_tiny_checkpoint(tmp_path_factory.mktemp("exported") / "tiny", architecture)


@pytest.fixture(scope="module")
def compiled(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its package."""
    if LEVEL not in kernel_files.levels():
        pytest.skip("packages are for x86-64-v3, which this processor is not")
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler (g++) on this machine")
    folder = tmp_path_factory.mktemp("compiled")
    assert f"{folder}/forward-" in make(store.load(tiny), folder, LEVEL)
    return folder


@pytest.fixture
def predictor(tiny: Path, compiled: Path) -> Predictor:
    """With the package."""
    found = Predictor.load(tiny, compiled=compiled)
    assert found.model.exported is not None
    return found


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    """To rounding; a correction that is nothing proves nothing."""
    scale = np.abs(expected).max()
    return bool(scale > NOT_NOTHING and np.abs(found - expected).max() < 10 * SAME_FLOAT32 * scale)


def test_it_gives_what_the_network_gives(
    predictor: Predictor, tiny: Path, molecule: Callable[[str], Structure]
) -> None:
    eager = Predictor.load(tiny)
    prepared = [predictor.prepare(molecule(name)) for name in MOLECULES]
    expected = [eager.forward([item])[0] for item in prepared]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HamiltonianModel, "forward", _refuse)
        alone = [predictor.forward([item])[0] for item in prepared]
        batch = predictor.forward(prepared)
    for ours, together, theirs in zip(alone, batch, expected, strict=True):
        assert ours.shape == together.shape == theirs.shape
        assert same(ours, theirs)
        assert same(together, theirs)
    whole, plain = (each.predict([molecule("CH3CH2OH")])[0] for each in (predictor, eager))
    assert same(whole.hamiltonian, plain.hamiltonian)


def test_an_atom_and_a_single_pair_run_in_the_network(predictor: Predictor, tiny: Path) -> None:
    eager = Predictor.load(tiny)
    for structure in (ATOM, DIATOMIC):
        item = predictor.prepare(structure)
        assert predictor.model.exported(*predictor.model.batch([item])) is None
        assert np.array_equal(predictor.forward([item])[0], eager.forward([item])[0])
    both = [predictor.prepare(structure) for structure in (ATOM, DIATOMIC, DIATOMIC)]
    assert predictor.model.exported(*predictor.model.batch(both)) is not None, "of a batch the sums count"
    for ours, theirs in zip(predictor.forward(both), eager.forward(both), strict=True):
        assert same(ours, theirs)


def test_threads_do_not_disturb_each_other(predictor: Predictor, molecule: Callable[[str], Structure]) -> None:
    prepared = [predictor.prepare(molecule(name)) for name in MOLECULES]
    alone = [predictor.forward([item])[0] for item in prepared]

    def again(index: int) -> list[bool]:
        return [np.array_equal(predictor.forward([prepared[index]])[0], alone[index]) for _ in range(40)]

    with ThreadPoolExecutor(2 * len(prepared)) as threads:  # more than there are runners
        found = list(threads.map(again, [*range(len(prepared))] * 2))
    assert all(all(repeats) for repeats in found)


def test_a_pass_leaves_pythons_lock_to_others(predictor: Predictor, molecule: Callable[[str], Structure]) -> None:
    """An event loop must go on meanwhile; with this interval nobody gets the lock who is not given it."""
    graph, raw = predictor.model.batch([predictor.prepare(molecule("C6H6"))] * 30)
    exported = predictor.model.exported
    looks, stop = [0], threading.Event()

    def look() -> None:
        while not stop.is_set():
            looks[0] += 1
            time.sleep(0)

    before = sys.getswitchinterval()
    thread = threading.Thread(target=look)
    sys.setswitchinterval(1e3)
    try:
        thread.start()
        counts = []
        for _ in range(300):
            first = looks[0]
            exported(graph, raw)
            counts.append(looks[0] - first)
            if any(counts):
                break
    finally:
        stop.set()
        sys.setswitchinterval(before)
        thread.join()
    assert any(counts)


def test_a_package_of_anything_else_is_not_taken(
    predictor: Predictor, compiled: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    other = store.load(tiny).model
    name = package.file_name(other, LEVEL)
    assert (compiled / name).is_file()
    with torch.no_grad():
        next(other.network.parameters()).view(-1)[0] += 1e-3
    assert package.file_name(other, LEVEL) != name
    assert package.find(other, compiled) is None
    assert "no package of this network" in caplog.text

    model = predictor.model
    before = model.standardisation.target_mean.clone()
    model.standardisation.target_mean.add_(1e-3)
    assert package.file_name(model, LEVEL) != name
    model.standardisation.target_mean.copy_(before)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "2.99.0")
        assert package.file_name(model, LEVEL) != name
    with monkeypatch.context() as patch:
        patch.setattr(package, "_digest_of_code", lambda: "another program")
        assert package.file_name(model, LEVEL) != name
    assert package.file_name(model, LEVEL) == name


def test_other_arithmetic_and_other_processors_have_none(
    tiny: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Predictor.load(tiny, dtype=torch.float64, compiled=compiled).model.exported is None
    monkeypatch.setattr(kernel_files, "levels", lambda: [])
    assert Predictor.load(tiny, compiled=compiled).model.exported is None
    with pytest.raises(CheckpointError, match="AVX2"):
        compile_package(store.load(tiny).model, [], compiled, LEVEL)


def test_large_batches_of_several_threads_run_in_the_network(
    predictor: Predictor, molecule: Callable[[str], Structure], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = predictor.model.batch([predictor.prepare(molecule("C6H6"))])
    exported = predictor.model.exported
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert exported(*batch) is not None
    monkeypatch.setattr(runner, "MOST_BLOCKS_OF_THREADS", 107)
    assert exported(*batch) is None, "benzene has 108 blocks"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert exported(*batch) is not None


def test_the_best_package_of_the_processor_is_taken(
    tiny: Path, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lower,) = compiled.iterdir()
    shutil.copy(lower, tmp_path / lower.name)
    better = shutil.copy(lower, tmp_path / lower.name.replace(LEVEL, "x86-64-v4"))
    for levels, expected in ((["x86-64-v4", LEVEL], better), ([LEVEL], tmp_path / lower.name)):
        monkeypatch.setattr(kernel_files, "levels", lambda levels=levels: levels)
        exported = Predictor.load(tiny, compiled=tmp_path).model.exported
        assert cast(ExportedForward, exported).path == expected


def test_a_batch_of_another_type_runs_in_the_network(
    predictor: Predictor, molecule: Callable[[str], Structure]
) -> None:
    item = predictor.prepare(molecule("H2O"))
    predictor.model.double()
    assert predictor.model.exported(*predictor.model.batch([item])) is None
    assert np.isfinite(predictor.forward([item])[0]).all()


def test_files_that_are_no_package_are_left(
    tiny: Path, compiled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (name,) = (path.name for path in compiled.iterdir())
    broken, open_to_all = tmp_path / "broken", tmp_path / "open"
    broken.mkdir()
    (broken / name).write_bytes(b"no library")
    assert Predictor.load(tiny, compiled=broken).model.exported is None
    assert "cannot be loaded" in caplog.text
    shutil.copytree(compiled, open_to_all)
    assert Predictor.load(tiny, compiled=open_to_all).model.exported is not None
    open_to_all.chmod(0o777)
    assert Predictor.load(tiny, compiled=open_to_all).model.exported is None
    assert "can be written to by everybody" in caplog.text
    assert Predictor.load(tiny, compiled=tmp_path / "absent").model.exported is None
    with pytest.raises(RuntimeError, match="it is no package"):
        Runner(Path(torch.__file__).parent / "lib" / "libc10.so", 7)
    with pytest.raises(RuntimeError, match="7 inputs and 1 outputs in place of 5 and 1"):
        Runner(compiled / name, 5)


def test_wrong_golden_answers_leave_the_package(
    tiny: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = ExportedForward.__call__
    monkeypatch.setattr(ExportedForward, "__call__", lambda self, *batch: 1.01 * right(self, *batch))
    predictor = Predictor.load(tiny, compiled=compiled)
    assert predictor.model.exported is None
    assert "the package is left, the network itself runs: Checkpoint 'tiny' does not reproduce" in caplog.text


def test_wrong_weights_are_refused_with_a_package_too(predictor: Predictor) -> None:
    entry = predictor.checkpoint.golden["structures"][0]
    entry["orbital_energies"] = [energy + 1e-3 for energy in entry["orbital_energies"]]
    with pytest.raises(CheckpointError, match="does not reproduce"):
        predictor.verify_golden()


def test_a_pass_that_fails_is_done_by_the_network(
    predictor: Predictor, molecule: Callable[[str], Structure], caplog: pytest.LogCaptureFixture
) -> None:
    item = predictor.prepare(molecule("H2O"))
    expected = predictor.forward([item])[0]
    graph, raw = predictor.model.batch([item])
    with pytest.raises(RuntimeError, match="index out of bounds"):
        cast(ExportedForward, predictor.model.exported)._runner(
            flat_arguments(replace(graph, numbers=graph.numbers + 1000), raw, reads_edges=True)
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "__call__", _fail)
        assert same(predictor.forward([item])[0], expected)
    assert "failed, the network itself runs: not enough memory" in caplog.text


def _refuse(*_: object) -> None:
    raise AssertionError("the network ran")


def _fail(*_: object) -> None:
    raise RuntimeError("not enough memory")


@pytest.fixture
def no_compiler() -> Iterator[None]:
    """A machine without one."""
    from torch._inductor import config

    with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        yield


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_command_says_so(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel_files, "levels", lambda: [LEVEL])
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert main([str(tiny), "-o", str(tmp_path / "packages")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("A package needs a C++ compiler, and there is no 'no-such-compiler' here. Install g++")
    assert said.count("\n") == 1
    assert not (tmp_path / "packages").exists()


def test_the_command_keeps_what_is_there(tiny: Path, compiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tiny), "-o", str(compiled), "--level", LEVEL]) == 0
    assert "is there already" in capsys.readouterr().out
    assert main([str(compiled)]) == 2
    assert "card.json" in capsys.readouterr().err


def model_of(name: str, released: Predictor) -> HamiltonianModel:
    """The smallest network of an architecture, random weights."""
    torch.manual_seed(3)
    config = NetworkConfig.from_mapping(ARCHITECTURES[name].tiny)
    model = HamiltonianModel(config, released.space, reference=released.model.reference)
    with torch.no_grad():
        for weight in model.network.parameters():
            if not weight.any():  # read-outs start at zero
                weight.normal_(std=0.1)
    return model.eval().requires_grad_(False)


def test_the_default_architecture_exports_for_any_size(
    released: Predictor, molecule: Callable[[str], Structure]
) -> None:
    """A real network's program, not compiled: exported with one batch, run on others."""
    model = model_of("qhnetv2", released)
    program = export(model, [model.prepare(molecule("H2O"))] * 3).module()
    for names in (("CH3CH2OH",), ("HCN", "CH4", "H2O")):
        graph, raw = model.batch([model.prepare(molecule(name)) for name in names])
        with torch.no_grad():
            found = program(*flat_arguments(graph, raw, reads_edges=False), ())
            assert same(found.numpy(), model(graph, raw).blocks.numpy())


def test_networks_that_do_not_export_are_refused(released: Predictor, molecule: Callable[[str], Structure]) -> None:
    """One that asks which structure of the batch an atom is of: a package is not told."""
    model = model_of("deeph_e3", released)
    with pytest.raises(CheckpointError, match="cannot be exported"):
        export(model, [model.prepare(molecule("H2O"))])
