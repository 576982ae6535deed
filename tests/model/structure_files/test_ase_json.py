"""Our decoder of ASE's JSON reads what ASE writes, and nothing larger than its own text."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from model.structure_files.ase_json import decode_ase_json


def written(atoms: Atoms) -> str:
    buffer = io.StringIO()
    write(buffer, atoms, format="json")
    return buffer.getvalue()


@pytest.mark.parametrize("atoms", [molecule("CH3CH2OH"), molecule("H2"), bulk("NaCl", "rocksalt", a=5.6)])
def test_reads_what_ase_writes(atoms):
    result = decode_ase_json(written(atoms))
    assert result["numbers"] == atoms.numbers.tolist()
    np.testing.assert_allclose(result["positions"], atoms.positions, atol=1e-12)
    assert list(result["pbc"]) == atoms.pbc.tolist()
    if atoms.cell.rank:
        np.testing.assert_allclose(result["cell"], atoms.cell.array, atol=1e-12)
    else:
        assert result["cell"] is None


@pytest.mark.parametrize(
    "row",
    [
        {"numbers": {"__ndarray__": [[10**9], "int64", [1]]}, "positions": [[0, 0, 0]]},
        {"numbers": {"__ndarray__": [[-1], "int64", [1]]}, "positions": [[0, 0, 0]]},
        {"numbers": {"__ndarray__": [[1, 1], "int64", [1]]}, "positions": [[0, 0, 0]]},
        {"numbers": [1], "positions": [[0, 0]]},
        {"numbers": [1, 1], "positions": [[0, 0, 0]]},
        {"numbers": [True], "positions": [[0, 0, 0]]},
        {"numbers": ["1"], "positions": [[0, 0, 0]]},
        {"numbers": [1], "positions": [["0", 0, 0]]},
        {"numbers": [1], "positions": [[0, 0, 0]], "cell": [[1, 0, 0]]},
        {"positions": [[0, 0, 0]]},
    ],
)
def test_refuses_arrays_that_are_not_what_they_declare(row):
    with pytest.raises((ValueError, TypeError, KeyError)):
        decode_ase_json(json.dumps({"1": row, "ids": [1]}))


@pytest.mark.parametrize("text", ["[]", "{}", "1", '{"1": 2}', '{"1": {}, "2": {}}'])
def test_refuses_documents_without_exactly_one_row(text):
    with pytest.raises((ValueError, TypeError, KeyError)):
        decode_ase_json(text)
