"""Small bodies that cost a naive server gigabytes, minutes or its own files. The service refuses them and goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

WATER = "3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"

BOMBS: dict[str, tuple[str, str]] = {
    "ASE json that declares 50 million atoms": (
        "json",
        json.dumps(
            {
                "1": {
                    "numbers": {"__ndarray__": [[50_000_000], "int64", [1]]},
                    "positions": {"__ndarray__": [[50_000_000, 3], "float64", [0.0]]},
                    "cell": {"__ndarray__": [[3, 3], "float64", [0.0] * 9]},
                },
                "ids": [1],
                "nextid": 2,
            }
        ),
    ),
    "ASE json of negative shape": ("json", '{"1": {"numbers": {"__ndarray__": [[-1, -1], "int64", [1]]}}}'),
    "ASE json, deep": ("json", "[" * 100_000),
    "chemical JSON, deep": ("cjson", '{"atoms":' * 50_000),
    "extxyz with 20 million columns": ("extxyz", "1\nProperties=species:S:1:pos:R:3:x:R:20000000\nH 0 0 0\n"),
    "extxyz with 2 milliard columns": ("xyz", "1\nProperties=species:S:1:pos:R:3:x:R:2000000000\nH 0 0 0\n"),
    "xyz that promises 10^18 atoms": ("xyz", f"{10**18}\n\nH 0 0 0\n"),
    "vasp count line": ("vasp", "x\n1\n1 0 0\n0 1 0\n0 0 1\nH\n20000000\nDirect\n0 0 0\n"),
    "vasp count line, larger": ("vasp", "x\n1\n1 0 0\n0 1 0\n0 0 1\nH\n2000000000\nDirect\n0 0 0\n"),
    "lammps count": (
        "lammps-data",
        "x\n\n20000000 atoms\n1 atom types\n\nMasses\n\n1 1.0\n\nAtoms # atomic\n\n1 1 0 0 0\n",
    ),
    "cube of a huge grid": ("cube", "a\nb\n1 0 0 0\n90000 1 0 0\n90000 0 1 0\n90000 0 0 1\n1 0 0 0 0\n0.0\n"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_the_next_file_is_read(client, name):
    file_format, text = BOMBS[name]
    reply = client.post("/v1/predict", json=body(file_format, text))
    assert reply.status_code in (413, 422), reply.text
    assert reply.json()["code"] in ("unparsable_structure", "too_many_atoms", "empty_structure")
    assert client.post("/v1/predict", json=body("xyz", WATER)).status_code == 200


def test_a_crystal_file_of_many_sites_is_refused_by_its_atoms(client):
    sites = "".join(f"H{i} H {i / 130:.4f} {i / 170:.4f} {i / 190:.4f}\n" for i in range(40))
    text = (
        "data_x\n_cell_length_a 30\n_cell_length_b 30\n_cell_length_c 30\n_cell_angle_alpha 90\n_cell_angle_beta 90\n"
        "_cell_angle_gamma 90\n_space_group_name_H-M_alt 'F m -3 m'\nloop_\n_atom_site_label\n"
        "_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n" + sites
    )
    reply = client.post("/v1/predict", json=body("cif", text))
    assert (reply.status_code, reply.json()["code"]) == (413, "too_many_atoms")


@pytest.mark.parametrize("file_format", ["octopus-in", "onetep-in", "acemolecule-input", "xtd", "gpw", "db", "netcdf"])
def test_formats_that_reach_beyond_their_text_are_refused_by_name(client, file_format):
    problem = client.post("/v1/predict", json=body(file_format, "XYZCoordinates = '/etc/hostname'")).json()
    assert problem["code"] == "unsupported_format"
    assert file_format in problem["detail"]


def test_text_that_pyscf_would_evaluate_is_not_a_coordinate(client, tmp_path):
    target = tmp_path / "written"
    text = f"1\n\nHe 0 0 __import__('pathlib').Path('{target}').write_text('x')\n"
    assert client.post("/v1/predict", json=body("xyz", text)).json()["code"] == "unparsable_structure"
    assert not target.exists()


def body(file_format: str, text: str) -> dict[str, Any]:
    return {"structure": {"kind": "file", "format": file_format, "text": text}}
