"""Laws of the source files: short, without circles of imports, without pickles, and the model without HTTP."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "service", "training", "tracegrad_client")
MOST_LINES = 320
READS_PICKLES_OF_OTHERS = {"training/data/readers/plain_pickle.py"}  # by a machine of its own that can make no objects


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "build" not in path.relative_to(ROOT).parts:
                yield str(path.relative_to(ROOT)), path.read_text()


def test_no_file_is_longer_than_it_can_be_read() -> None:
    lines = {name: text.count("\n") for name, text in sources(*PACKAGES, "benchmarks")}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    imports = grimp.build_graph(package, cache_dir=None)
    graph = networkx.DiGraph(
        (importer, imported)
        for importer in imports.modules
        for imported in imports.find_modules_directly_imported_by(importer)
    )
    circles = [sorted(found) for found in networkx.strongly_connected_components(graph) if len(found) > 1]
    assert circles == []


def test_the_model_knows_nothing_of_routes_and_settings() -> None:
    found = [name for name, text in sources("model") if re.search(r"/v1/|\bTRACEGRAD_[A-Z]+=|\bHTTP [1-5]\d\d\b", text)]
    settings = (ROOT / "service" / "settings.py").read_text()
    names = {f"TRACEGRAD_{name.upper()}" for name in re.findall(r"^    (\w+): ", settings, re.MULTILINE)}
    found += [name for name, text in sources("model") if any(setting in text for setting in names)]
    assert found == []
    assert "TRACEGRAD_CHECKPOINTS" in names


def test_nothing_is_pickled() -> None:
    for name, text in sources(*PACKAGES, "benchmarks"):
        if name in READS_PICKLES_OF_OTHERS:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                modules = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules = {(node.module or "").split(".")[0]}
            elif isinstance(node, ast.keyword):
                allowed = isinstance(node.value, ast.Constant) and node.value.value is False
                assert node.arg != "allow_pickle" or allowed, f"{name}:{node.value.lineno}"
                continue
            else:
                continue
            assert not modules & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}, f"{name}:{node.lineno}"
