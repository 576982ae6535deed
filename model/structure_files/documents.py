"""Documents of JSON and XML: Avogadro's Chemical JSON, ASE's JSON, CML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np

from model.structure_files.ase_json import decode_ase_json
from model.structure_files.fields import element, real
from model.structure_files.frame import Frame, Frames, ManyFramesError, UnreadableError
from model.structure_files.stated import Stated

_DRAWING_HINT = "Generate 3D coordinates, with hydrogens."


def read_cjson(text: str, max_frames: int) -> Frames:
    """Read a Chemical JSON document (https://github.com/OpenChemistry/chemicaljson).

    Raises:
        UnreadableError: without elements or 3D coordinates.
    """
    document = _object(json.loads(text))
    atoms = _object(document.get("atoms"))
    numbers = [element(str(number)) for number in _list(_object(atoms.get("elements")).get("number"))]
    coordinates = _object(atoms.get("coords"))
    frame = Frame(numbers, [])
    if (cell := _object(document.get("unitcell", {}))) != {}:
        frame.cell = _vectors(cell)
        frame.pbc = (True, True, True)
    for name in ("3d", "3dfractional"):
        if name in coordinates:
            frame.positions = np.array(_list(coordinates[name]), dtype=np.float64).reshape(len(numbers), 3).tolist()
            if name == "3dfractional":
                frame.positions = (np.array(frame.positions) @ np.array(frame.cell)).tolist()
            break
    else:
        raise UnreadableError("There are no coordinates in three dimensions.", hint=_DRAWING_HINT)
    stated = Stated()
    stated.say_keys(_object(document.get("properties", {})))
    stated.say_keys({name: value for name, value in document.items() if name in ("charge", "multiplicity")})
    formal = [real(str(charge)) for charge in _list(atoms.get("formalcharges", []))]
    if any(formal):
        stated.say_charge(sum(formal))
    return [stated.give(frame)]


def read_ase_json(text: str, max_frames: int) -> Frames:
    """Read ASE's own JSON, of one row."""
    row = decode_ase_json(text)
    stated = Stated()
    stated.say_keys(row["stated"])
    note = stated.say_atoms(row["initial_charges"], row["initial_magmoms"])
    frame = Frame(row["numbers"], row["positions"], row["cell"], row["pbc"], notes=[] if note is None else [note])
    return [stated.give(frame)]


def read_cml(text: str, max_frames: int) -> Frames:
    """Read the molecules of a Chemical Markup Language document.

    Raises:
        UnreadableError: a drawing, or fractional coordinates.
        ManyFramesError: more than ``max_frames``.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise UnreadableError("Documents that define entities are not read.", hint="Leave out the DOCTYPE.")
    root = ElementTree.fromstring(text)
    molecules = [node for node in root.iter() if _tag(node) == "molecule" and any(_tag(c) == "atomArray" for c in node)]
    if len(molecules) > max_frames:
        raise ManyFramesError
    return [_cml(node) for node in molecules]


def _cml(molecule: ElementTree.Element) -> Frame:
    frame = Frame([], [])
    stated = Stated()
    for name, say in (("formalCharge", stated.say_charge), ("spinMultiplicity", stated.say_multiplicity)):
        if name in molecule.attrib:
            say(molecule.attrib[name])
    formal = []
    for atom in (node for node in molecule.iter() if _tag(node) == "atom"):
        if "x3" not in atom.attrib:
            kind = "a 2D drawing" if "x2" in atom.attrib else "an atom without x3, y3 and z3"
            raise UnreadableError(f"The file holds {kind}.", hint=_DRAWING_HINT)
        frame.numbers.append(element(atom.attrib.get("elementType", "")))
        frame.positions.append([real(atom.attrib.get(name, "")) for name in ("x3", "y3", "z3")])
        formal.append(real(atom.attrib.get("formalCharge", "0")))
    if any(formal):
        stated.say_charge(sum(formal))
    return stated.give(frame)


def _tag(node: ElementTree.Element) -> str:
    return str(node.tag).rsplit("}", 1)[-1]


def _object(value: Any) -> Mapping[str, Any]:
    """Names in lower case and without blanks: versions of Avogadro write them differently."""
    if not isinstance(value, dict):
        raise UnreadableError("It is not laid out as Chemical JSON.")
    return {key.replace(" ", "").lower(): item for key, item in value.items()}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UnreadableError("It is not laid out as Chemical JSON.")
    return value


def _vectors(cell: Mapping[str, Any]) -> list[list[float]]:
    from ase.geometry import cellpar_to_cell

    if "cellvectors" in cell:
        return np.array(_list(cell["cellvectors"]), dtype=np.float64).reshape(3, 3).tolist()
    return cellpar_to_cell([float(cell[n]) for n in ("a", "b", "c", "alpha", "beta", "gamma")]).tolist()
