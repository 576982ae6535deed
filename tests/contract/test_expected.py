"""The error to expect of a guess of the default checkpoint, in the answers of both routes; null where it is unknown."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

WATER: dict[str, Any] = {
    "kind": "atoms",
    "numbers": [8, 1, 1],
    "positions": [[0.0, 0.0, 0.0], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]],
}


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/initial-guess"])
def test_a_guess_says_what_error_to_expect_of_it(shipped: httpx.Client, path: str) -> None:
    reply = shipped.post(path, json={"structure": WATER})
    assert reply.status_code == 200, reply.text
    checks = reply.json()["checks"]
    assert checks["in_domain"]
    assert checks["out_of_domain"] == []
    for name, above, below in (("density_error_per_electron", 1e-5, 1e-2), ("cycles_ratio", 0.3, 1.0)):
        expected = checks["expected"][name]
        assert above < expected["lower"] < expected["value"] < expected["upper"] < below, name


def test_out_of_the_domain_the_reason_is_named_and_nothing_expected(shipped: httpx.Client) -> None:
    """Water with bonds that are half as long again."""
    positions = [[1.5 * value for value in row] for row in WATER["positions"]]
    reply = shipped.post("/v1/initial-guess", json={"structure": {**WATER, "positions": positions}})
    assert reply.status_code == 200, reply.text
    checks = reply.json()["checks"]
    assert not checks["in_domain"]
    assert "intruder" in checks["out_of_domain"]
    assert checks["expected"] is None
