"""What the documents promise exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("checkpoints/*/README.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_readme_opens_with_the_commands_that_make_knows() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert readme.index("make serve") < 1000
    for command in re.findall(r"\bmake ([a-z]+)\b", readme):
        assert command in targets, f"README names 'make {command}'"


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_paths_named_in_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = text[text.index("```") : text.index("```", text.index("```") + 3)]
    folder = ROOT
    for line in tree.splitlines()[1:]:
        top = re.match(r"^(\w+)/ ", line)
        inner = re.match(r"^  (\w+)/ ", line)
        if top:
            folder = ROOT / top.group(1)
            assert folder.is_dir()
        for name in re.findall(r"\b(\w+\.py)\b", line):
            if folder == ROOT / "model":
                assert list(folder.rglob(name)), f"{name} is in the picture, not in {folder.name}/"
        if inner:
            assert (folder / inner.group(1)).is_dir()


def test_released_card_matches_its_readme() -> None:
    for folder in (ROOT / "checkpoints").iterdir():
        card = json.loads((folder / "card.json").read_text())
        readme = (folder / "README.md").read_text()
        assert card["weights_sha256"] in readme
        assert f"# {card['name']} {card['version']}" in readme
        assert card["metrics"], "a released checkpoint has been evaluated"


def test_torch_is_pinned_once() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines.count("torch==2.13.0") == 1
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][A-Za-z0-9_.!+\-]*", line) for line in lines)
