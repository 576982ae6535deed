"""Decoder for ASE's own JSON structure files; ASE's decoder would allocate whatever shape the text declares.

Such a file maps ids to rows: ``{"1": {"numbers": A, "positions": A, "cell": A, "pbc": A}, "ids": [1], "nextid": 2}``,
where an array A is a nested list or ``{"__ndarray__": [shape, dtype, flat values]}``; a cell may be
``{"array": A, "__ase_objtype__": "cell"}``. The values are counted against the shape before anything is built.
"""

from __future__ import annotations

import json
import math
from typing import Any


def decode_ase_json(text: str) -> dict[str, Any]:
    """Read the only row of the file.

    Returns:
        ``numbers``, ``positions`` (atom, 3) in Å, ``cell`` or None, ``pbc``; ``stated``: charge and other pairs of names and
        values; ``initial_charges`` and ``initial_magmoms``, one for each atom or none.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: not such a file, or not exactly one row.
    """
    document = json.loads(text)
    if not isinstance(document, dict):
        raise TypeError("not an object")
    row = document if "numbers" in document else _only_row(document)
    numbers = [_integer(value) for value in _flat(row["numbers"], (None,))]
    flat = [_number(value) for value in _flat(row["positions"], (len(numbers), 3))]
    cell_values = row.get("cell")
    cell = None
    if cell_values is not None:
        if isinstance(cell_values, dict) and "array" in cell_values:
            cell_values = cell_values["array"]
        values = [_number(value) for value in _flat(cell_values, (3, 3))]
        cell = [values[0:3], values[3:6], values[6:9]] if any(values) else None
    pbc = [bool(value) for value in _flat(row.get("pbc", [False] * 3), (3,))]
    pairs = row.get("key_value_pairs")
    return {
        "numbers": numbers,
        "positions": [flat[3 * atom : 3 * atom + 3] for atom in range(len(numbers))],
        "cell": cell,
        "pbc": (pbc[0], pbc[1], pbc[2]),
        "stated": {"charge": row.get("charge"), **(pairs if isinstance(pairs, dict) else {})},
        "initial_charges": _of_atoms(row.get("initial_charges"), len(numbers)),
        "initial_magmoms": _of_atoms(row.get("initial_magmoms"), len(numbers)),
    }


def _of_atoms(values: Any, count: int) -> list[float]:
    return [] if values is None else [_number(value) for value in _flat(values, (count,))]


def _only_row(document: dict[str, Any]) -> dict[str, Any]:
    rows = [value for key, value in document.items() if key.isdigit()]
    if len(rows) != 1 or not isinstance(rows[0], dict):
        raise ValueError("not exactly one row")
    return rows[0]


def _flat(value: Any, shape: tuple[int | None, ...]) -> list[Any]:
    """Values of an array of the given shape (None: any length), row-major; at most as many as the text itself holds."""
    if isinstance(value, dict):
        declared, _, values = value["__ndarray__"]
        values = list(values)
        if math.prod(declared) != len(values):
            raise ValueError("the values do not fill the declared shape")
    else:
        values = list(value)
        if values and isinstance(values[0], list):
            declared = [len(values), len(values[0])]
            values = [item for row in values for item in row]
            if math.prod(declared) != len(values):
                raise ValueError("rows of different lengths")
        else:
            declared = [len(values)]
    if math.prod(declared) == 0 and 0 in shape:
        return []
    if len(declared) != len(shape) or any(want not in (None, have) for want, have in zip(shape, declared, strict=True)):
        raise ValueError("unexpected shape")
    return values


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("not a number")
    return float(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not an integer")
    return value
