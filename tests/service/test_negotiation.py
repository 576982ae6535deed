"""format_out wins over Accept, Accept by its weights, JSON where nothing is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.answers.output_formats import GUESS_FORMATS, PREDICT_FORMATS, header_text
from service.errors import ServiceError
from service.http.negotiation import choose_format


@pytest.mark.parametrize(
    ("format_out", "accept", "expected"),
    [
        (None, None, "json"),
        (None, "", "json"),
        (None, "*/*", "json"),
        (None, "application/*", "json"),
        (None, "chemical/*", "molden"),
        (None, "APPLICATION/X-NPZ", "npz"),
        (None, "application/json;q=0.1, chemical/x-molden;q=0.5", "molden"),
        (None, "text/html, application/x-hdf5;q=0.3", "chk"),
        (None, "application/x-hdf5; q=nonsense, application/json;q=0.1", "json"),
        ("chk", "application/json", "chk"),
        ("CHK", None, "chk"),
        (None, "application/x-qcschema+json", "qcschema"),
    ],
)
def test_choice(format_out, accept, expected):
    assert choose_format(format_out, accept, GUESS_FORMATS).name == expected


@given(accept=st.text(max_size=80))
def test_any_accept_header_is_met_or_refused(accept):
    try:
        outcome = choose_format(None, accept, PREDICT_FORMATS).name
    except ServiceError as error:
        outcome = error.code
    assert outcome in ("json", "npz", "safetensors", "not_acceptable")


@given(text=st.text())
def test_header_text_cannot_break_out_of_its_header(text):
    assert all(" " <= char <= "~" and char not in '"\\' for char in header_text(text))
