"""Which checkpoints a folder holds, which checks one must pass, and what is said of one that does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import store
from model.checkpoint.card import read_card
from service.checkpoints.catalogue import scan
from service.checkpoints.checks import CheckList, RejectedError
from service.checkpoints.loading import ModelLoader, fingerprint, warm_up_structure
from service.checkpoints.startup import load_registry, resolve_device
from service.errors import ServiceError, StartupError
from service.settings import Settings
from tests.model.test_crystals import write_checkpoint


def settings_for(folder: Path) -> Settings:
    return Settings(checkpoints=folder, device="cpu")


@pytest.fixture
def put(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies the tiny checkpoint to a place in the folder, with changes to its card."""

    def copy(place: str, **changes: Any) -> Path:
        folder = tmp_path / place
        shutil.copytree(tiny_checkpoint, folder)
        card = json.loads((folder / store.CARD).read_text()) | changes
        (folder / store.CARD).write_text(json.dumps(card))
        return folder

    return copy


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[ModelLoader]:
    loader = ModelLoader(settings_for(tmp_path), "cpu")
    yield loader
    loader.close()


def rejection(root: Path, loader: ModelLoader) -> RejectedError:
    """What is said of the only checkpoint of a folder."""
    with pytest.raises(RejectedError) as caught:
        loader.load(scan(root).pick("tiny"))
    for text in (caught.value.reason, caught.value.hint or ""):
        assert str(root) not in text
        assert "Error" not in text
    return caught.value


def test_the_newest_version_is_the_largest_number_and_others_can_be_named(put, tmp_path):
    for version in ("0.9.0", "0.10.0", "0.2.11"):
        put(f"tiny/{version}", version=version)
    catalogue = scan(tmp_path)
    assert catalogue.names == ["tiny"]
    assert str(catalogue.pick("tiny").version) == "0.10.0"
    assert str(catalogue.pick("tiny", "0.2.11").version) == "0.2.11"
    with pytest.raises(ServiceError) as caught:
        catalogue.pick("tiny", "0.2.1")
    assert (caught.value.code, caught.value.field) == ("unknown_model", "version")
    assert caught.value.allowed == ["0.10.0", "0.9.0", "0.2.11"]


def test_a_checkpoint_may_lie_beside_its_versions(put, tmp_path):
    put("tiny", version="0.3.0")
    put("tiny/0.4.0", version="0.4.0")
    put("tiny/0.1.0", version="0.1.0")
    assert scan(tmp_path).pick("tiny").folder == tmp_path / "tiny" / "0.4.0"
    assert scan(tmp_path).pick("tiny", "0.3.0").folder == tmp_path / "tiny"


def test_the_name_is_the_cards(put, tmp_path):
    put("some-folder", name="first")
    put("other/1.0.0", name="second", version="1.0.0")
    assert scan(tmp_path).names == ["first", "second"]
    with pytest.raises(ServiceError) as caught:
        scan(tmp_path).pick("some-folder")
    assert (caught.value.code, caught.value.allowed) == ("unknown_model", ["first", "second"])


def test_half_copies_and_other_folders_are_left_alone(put, tmp_path):
    put("tiny")
    put(".incoming")
    put("tiny/backup")
    put("tiny/.0.9.0", version="0.9.0")
    (tmp_path / "notes").mkdir()
    (tmp_path / "file").write_text("x")
    catalogue = scan(tmp_path)
    assert catalogue.names == ["tiny"]
    assert catalogue.pick("tiny").folder == tmp_path / "tiny"


def test_a_broken_newest_version_is_not_passed_over(put, tmp_path):
    put("tiny/0.1.0", version="0.1.0")
    card = put("tiny/0.2.0", version="0.2.0") / store.CARD
    card.write_text(card.read_text()[:-20])
    with pytest.raises(RejectedError) as caught:
        scan(tmp_path).pick("tiny")
    assert caught.value.check == "card"
    assert str(scan(tmp_path).pick("tiny", "0.1.0").version) == "0.1.0"


def test_a_broken_card_is_found_under_the_name_of_its_folder(put, tmp_path):
    card = put("tiny") / store.CARD
    card.write_text("{")
    with pytest.raises(RejectedError) as caught:
        scan(tmp_path).pick("tiny")
    assert "cannot be read" in caught.value.reason


def test_a_version_in_the_wrong_folder_is_refused(put, tmp_path):
    put("tiny/0.5.0", version="0.4.0")
    with pytest.raises(RejectedError, match=r"holds version 0\.4\.0"):
        scan(tmp_path).pick("tiny")


def test_a_name_or_version_that_two_folders_claim_is_refused(put, tmp_path):
    put("one")
    put("two", version="9.0.0")
    with pytest.raises(RejectedError, match="Two checkpoints are named 'tiny'"):
        scan(tmp_path).pick("tiny")
    shutil.rmtree(tmp_path / "two")
    put("one/9.0.0", version="9.0.0")
    put("one/9.0", version="9.0.0")
    with pytest.raises(RejectedError, match="same version"):
        scan(tmp_path).pick("tiny")


def test_every_check_runs_and_has_its_figures(put, tmp_path, loader):
    folder = put("tiny")
    announced: list[str] = []
    loaded = loader.load(scan(tmp_path).pick("tiny"), before_each=announced.append)
    try:
        figures = {check.name: check.figures for check in loaded.checks}
        assert list(figures) == announced == ["weights", "golden", "equivariance", "warm_up"]
        assert figures["weights"]["sha256"] == loaded.predictor.card.weights_sha256
        assert figures["golden"]["molecules"] == ["water"]
        assert figures["golden"]["forward"] == "eager"
        assert figures["equivariance"]["motions"] == ["permutation", "reflection", "rotation", "translation"]
        found = figures["equivariance"]
        assert 0.0 < found["hamiltonian_hartree"] <= found["hamiltonian_allowed_hartree"]
        assert loaded.fingerprint == fingerprint(folder)
    finally:
        loaded.backend.close()


@pytest.mark.parametrize(
    ("damage", "check", "words"),
    [
        (lambda folder: flip(folder / store.WEIGHTS), "weights", "SHA-256"),
        (lambda folder: (folder / store.WEIGHTS).unlink(), "weights", "has no weights.safetensors"),
        (lambda folder: (folder / store.GOLDEN).unlink(), "weights", "has no golden.json"),
        (lambda folder: (folder / store.GOLDEN).write_text("["), "weights", "cannot be read"),
        (lambda folder: replace_by_folder(folder / store.GOLDEN), "weights", "cannot be read"),
        (lambda folder: replace_by_folder(folder / store.WEIGHTS), "weights", "weights.safetensors"),
        (lambda folder: edit_golden(folder, lambda item: item["orbital_energies"].pop()), "golden", "does not repr"),
        (lambda folder: edit_golden(folder, lambda item: item.pop("numbers")), "golden", "cannot be read"),
        (lambda folder: edit_golden(folder, lambda item: item["numbers"].pop()), "golden", "atomic numbers came"),
        (
            lambda folder: (folder / store.GOLDEN).write_text('{"structures": []}'),
            "equivariance",
            "no golden structure",
        ),
    ],
)
def test_what_is_damaged_is_named_and_no_path_with_it(put, tmp_path, loader, damage, check, words):
    damage(put("tiny"))
    error = rejection(tmp_path, loader)
    assert error.check == check
    assert words in error.reason


def test_files_that_change_while_they_are_read_are_refused(put, tmp_path, loader):
    folder = put("tiny")
    candidate = scan(tmp_path).pick("tiny")
    card = json.loads((folder / store.CARD).read_text())
    (folder / store.CARD).write_text(json.dumps(card | {"description": "another"}))
    with pytest.raises(RejectedError, match="changed while they were read"):
        loader.load(candidate)


def test_any_file_that_changes_changes_the_fingerprint(put):
    folder = put("tiny")
    before = fingerprint(folder)
    assert before == fingerprint(folder)
    for name in (store.CARD, store.GOLDEN, store.WEIGHTS):
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(original + b" ")
        assert fingerprint(folder) != before
        (folder / name).write_bytes(original)
    assert fingerprint(folder) == before
    (folder / store.GOLDEN).unlink()
    assert fingerprint(folder) is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "not enough memory"),
        (PermissionError(13, "Permission denied", "/secret/weights"), "cannot be read"),
        (KeyError("/secret"), "could not be done"),
    ],
)
def test_the_cause_of_a_failure_is_for_the_log(error, words):
    with pytest.raises(RejectedError) as caught, CheckList(Path("/secret")).check("golden"):
        raise error
    assert words in caught.value.reason
    assert "secret" not in f"{caught.value.reason} {caught.value.hint}"
    assert type(error).__name__ in caught.value.for_operator


def test_what_is_asked_before_a_check_may_end_the_loading():
    def refuse(_: str) -> None:
        raise ServiceError("draining", "The service is shutting down.")

    with pytest.raises(ServiceError), CheckList(Path("/"), refuse).check("golden"):
        pytest.fail("the check ran")


def test_a_real_checkpoint_is_loaded_and_is_the_default(put, tmp_path):
    put("any-folder-name")
    (tmp_path / "not-a-checkpoint").mkdir()
    loaded = load_registry(settings_for(tmp_path))
    try:
        assert loaded.names == ["tiny"]
        assert loaded.defaults == {"molecules": "tiny", "crystals": None}
    finally:
        loaded.close()


def test_several_checkpoints_are_loaded_each_in_its_newest_version(put, tmp_path):
    put("tiny/0.9.0", version="0.9.0")
    put("tiny/0.10.0", version="0.10.0")
    put("default", name="other")
    loaded = load_registry(settings_for(tmp_path))
    try:
        assert {model.name: model.predictor.card.version for model in loaded.models} == {
            "tiny": "0.10.0",
            "other": loaded.get("other").predictor.card.version,
        }
        assert loaded.defaults["molecules"] == "other", "its folder is called default"
    finally:
        loaded.close()


def test_the_operator_names_the_default_and_a_name_that_is_not_there_stops_the_start(put, tmp_path):
    put("one", name="one")
    put("two", name="two")
    for asked, default in (("two", "two"), (" one , two ", "one"), ("", None)):
        loaded = load_registry(settings_for(tmp_path).model_copy(update={"default_model": asked}))
        loaded.close()
        assert loaded.defaults["molecules"] == default
    with pytest.raises(StartupError, match="no checkpoint is named 'three'"):
        load_registry(settings_for(tmp_path).model_copy(update={"default_model": "two,three"}))


def test_two_checkpoints_of_one_name_stop_the_start(put, tmp_path):
    put("one")
    put("two")
    with pytest.raises(StartupError, match="Two checkpoints"):
        load_registry(settings_for(tmp_path))


@pytest.mark.parametrize("content", ["", "{}", "[", '{"name": "x"}'])
def test_a_card_that_is_none_stops_the_start(tmp_path, content):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "card.json").write_text(content)
    with pytest.raises(StartupError, match="cannot be served"):
        load_registry(settings_for(tmp_path))


def test_a_second_checkpoint_that_fails_stops_the_start(put, tmp_path):
    put("good", name="good")
    flip(put("tiny") / store.WEIGHTS)
    with pytest.raises(StartupError, match=r"tiny.* cannot be served: .*SHA-256"):
        load_registry(settings_for(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"charges": [-1]},
        {"charges": [1, 0, -1], "elements": [8]},
        {"charges": [2], "elements": [6, 8]},
        {"multiplicities": [2]},
        {"charges": [-1], "multiplicities": [2], "elements": [6]},
        {"multiplicities": [3, 1]},
    ],
    ids=str,
)
def test_every_model_can_be_warmed_up_with_something_that_it_takes(tiny_checkpoint, change):
    card = read_card(tiny_checkpoint / "card.json").model_copy(update=change)
    card.check(warm_up_structure(card, {"structures": []}))


def test_a_crystals_model_is_warmed_up_with_a_golden_structure_where_its_tables_begin(tmp_path):
    """Of an atom's like at 1.2 Å the tables of B and N know nothing."""
    write_checkpoint(tmp_path / "bn", "two_centre")
    registry = load_registry(settings_for(tmp_path))
    (model,) = registry.models
    assert [check.name for check in model.checks] == ["weights", "golden", "equivariance", "warm_up"]
    registry.close()


def test_a_gpu_that_is_not_there_is_named():
    import torch

    if torch.cuda.is_available():
        assert resolve_device("auto") == "cuda"
    else:
        assert resolve_device("auto") == "cpu"
        with pytest.raises(StartupError, match="no GPU"):
            resolve_device("cuda:0")


def flip(path: Path) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def edit_golden(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    golden = json.loads((folder / store.GOLDEN).read_text())
    change(golden["structures"][0])
    (folder / store.GOLDEN).write_text(json.dumps(golden))


def test_a_checkpoint_of_approximate_symmetry_is_no_default(put, tmp_path):
    rough = {"symmetry": "approximate", "symmetry_error": {"hamiltonian": 1e-3, "energy": 1e-3}}
    put("default", name="default", **rough)
    put("exact", name="exact")
    with pytest.raises(StartupError, match="its symmetry is approximate"):
        load_registry(settings_for(tmp_path))
    shutil.move(tmp_path / "default", tmp_path / "rough")
    card = json.loads((tmp_path / "rough" / store.CARD).read_text())
    (tmp_path / "rough" / store.CARD).write_text(json.dumps(card | {"name": "rough"}))
    loaded = load_registry(settings_for(tmp_path))
    assert loaded.defaults["molecules"] == "exact"
    loaded.close()
