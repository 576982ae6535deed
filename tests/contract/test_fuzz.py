"""No JSON body whatsoever is answered with a server error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FIELDS = ["structure", "kind", "numbers", "positions", "cell", "pbc", "format", "text", "molecule", "charge", "outputs"]
WORDS = [*FIELDS, "atoms", "file", "qcschema", "xyz", "extxyz", "json", "overlap", "symbols", "geometry", "model"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*WORDS, "2\n\nH 0 0 0\nH 0 0 1\n"])
)
keys = st.sampled_from(WORDS) | st.text(max_size=8)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=20
)
structures = st.fixed_dictionaries(
    {"kind": st.just("atoms")},
    optional={
        "numbers": st.lists(st.integers(-2, 12), max_size=4) | anything,
        "positions": st.lists(st.tuples(*[st.floats(-9, 9)] * 3), max_size=4) | anything,
        "cell": anything,
        "pbc": anything,
    },
) | st.fixed_dictionaries(
    {"kind": st.just("file"), "format": st.sampled_from(["xyz", "json", "cjson", "mol"]), "text": st.text(max_size=60)}
)
bodies = anything | st.fixed_dictionaries(
    {"structure": structures | anything}, optional={name: anything for name in ("charge", "outputs", "model")}
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
def test_any_json_is_answered_or_refused(client, body: Any):
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    reply = client.post("/v1/predict", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code in (200, 400, 404, 413, 422), reply.text
    assert reply.json()["code" if reply.status_code != 200 else "results"]
