"""The harness, where QCEngine is installed: what comes back is the server's guess as an AtomicResult of either version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tracegrad_client import Client

qcengine = pytest.importorskip("qcengine")
models = pytest.importorskip("qcelemental").models

from tracegrad_client.adapters.qcengine import register  # noqa: E402 - after what it needs is known to be there

WATER: dict[str, Any] = {"symbols": ["O", "H", "H"], "geometry": [0.0, 0.0, 0.22, 0.0, 1.44, -0.9, 0.0, -1.44, -0.9]}


@pytest.fixture(autouse=True)
def registered() -> None:
    register()
    register()


def task(url: str, **changes: Any) -> Any:
    asked = {
        "molecule": {**WATER, "fix_com": True, "fix_orientation": True},
        "driver": "properties",
        "model": {"method": "b3lyp", "basis": "def2-svp"},
        "keywords": {"url": url},
        "protocols": {"wavefunction": "all"},
    }
    return models.AtomicInput(**{**asked, **changes})


def test_a_guess_comes_back_with_its_wavefunction(live: Client) -> None:
    result = qcengine.compute(task(live.base_url), "tracegrad", raise_error=True)
    assert result.success
    assert type(result).__name__ == "AtomicResult"
    expected = live.qcschema(WATER)
    assert result.return_result["gap"] == pytest.approx(expected["return_result"]["gap"], abs=1e-6)
    found = np.ravel(result.wavefunction.scf_density_a)
    np.testing.assert_allclose(found, np.ravel(expected["wavefunction"]["scf_density_a"]), atol=1e-6)
    np.testing.assert_allclose(np.ravel(result.molecule.geometry), WATER["geometry"], atol=1e-7)
    assert result.extras["tracegrad"]["xc"] == "b3lyp"


def test_a_model_may_be_named_and_the_second_version_asked(live: Client) -> None:
    v2 = pytest.importorskip("qcelemental.models.v2")
    asked = v2.AtomicInput(
        molecule=WATER,
        specification={"driver": "properties", "model": {"method": "default"}, "keywords": {"url": live.base_url}},
    )
    result = qcengine.compute(asked, "tracegrad", raise_error=True, return_version=2)
    assert isinstance(result, v2.AtomicResult)
    assert result.extras["tracegrad"]["model"] == "default"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"driver": "energy"}, "no energy"),
        ({"model": {"method": "b3lyp", "basis": "cc-pvdz"}}, "cc-pvdz"),
        ({"molecule": {"symbols": ["I", "H"], "geometry": [0, 0, 0, 0, 0, 3.0]}}, "unsupported_element"),
    ],
)
def test_what_cannot_be_is_an_input_error(live: Client, changes: dict[str, Any], said: str) -> None:
    result = qcengine.compute(task(live.base_url, **changes), "tracegrad")
    assert not result.success
    assert result.error.error_type == "input_error"
    assert said in result.error.error_message


def test_unknown_keywords_and_no_server_are_told_apart(live: Client, dead_url: str) -> None:
    wrong = qcengine.compute(task(live.base_url, keywords={"url": live.base_url, "scf": 1}), "tracegrad")
    assert (wrong.error.error_type, "scf" in wrong.error.error_message) == ("input_error", True)
    gone = qcengine.compute(task(dead_url), "tracegrad", task_config={"retries": 0})
    assert gone.error.error_type == "random_error"
