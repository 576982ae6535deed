"""Options as text become what the same options are in JSON, for every option there is."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import ServiceError
from service.http.intake import MODELS
from service.http.text_options import is_list, value_of
from service.schemas.requests import JSON_ONLY, BandsRequest, DosRequest, PredictRequest

SAMPLES: dict[str, tuple[str, Any]] = {
    "charge": ("-1", -1),
    "multiplicity": (" 3 ", 3),
    "pbc": ("False", False),
    "project": ("true", True),
    "model": ("bcn", "bcn"),
    "xc": ("pbe0", "pbe0"),
    "basis": ("def2-svp", "def2-svp"),
    "kmesh": ("6x6x1", "6x6x1"),
    "energy_unit": ("eV", "eV"),
    "format_out": ("npz", "npz"),
    "ao_order": ("e3nn", "e3nn"),
    "outputs": ("hamiltonian, overlap", ("hamiltonian", "overlap")),
    "orbital": ("homo-1", "homo-1"),
    "path": ("GMKG", "GMKG"),
    "npoints": ("30", 30),
    "states": ("40", 40),
    "window_ev": ("-5,5.5", (-5.0, 5.5)),
    "sigma_ev": ("0.05", 0.05),
    "fock": ("AAAA", "AAAA"),
}
OPTIONS = [
    (model, name)
    for model in MODELS
    for name in sorted(set(model.model_fields) - {"structure", "structures"} - JSON_ONLY)
]


@pytest.mark.parametrize(("model", "name"), OPTIONS, ids=[f"{model.__name__}.{name}" for model, name in OPTIONS])
def test_text_is_read_as_the_option_it_stands_for(model: Any, name: str) -> None:
    text, expected = SAMPLES[name]
    found = value_of(model, name, text)
    assert found == expected
    assert type(found) is type(expected)


def test_lists_may_be_repeated_and_nothing_else() -> None:
    assert {name for name in SAMPLES if is_list(name, MODELS)} == {"outputs"}


@pytest.mark.parametrize(
    ("model", "name", "text"),
    [(BandsRequest, "states", "forty"), (BandsRequest, "npoints", "1" * 12), (DosRequest, "sigma_ev", "wide")],
)
def test_text_that_is_no_such_value_is_refused_with_its_option(model: Any, name: str, text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        value_of(model, name, text)
    assert (caught.value.code, caught.value.field) == ("invalid_request", name)


def test_what_is_neither_true_nor_false_is_left_to_the_model() -> None:
    assert value_of(PredictRequest, "pbc", "perhaps") == "perhaps"
