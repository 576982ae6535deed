"""The requests of the soak test: what is sent, of which kind it is, and which answers are right."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.io import write

from model.units import ANGSTROM_PER_BOHR

SMALL = ("H2O", "CH3OH", "CH3CH2OH", "NH3", "CH4", "C2H4", "H2CO", "HCN")
FILE_FORMATS = ("xyz", "extxyz", "gen", "turbomole", "proteindatabank", "mol", "xsf", "json")
ARRAY_FORMATS = ("json", "npz", "safetensors")
GUESS_FORMATS = (*ARRAY_FORMATS, "chk", "molden", "cube", "qcschema")
OUTPUTS = ("orbital_energies", "hamiltonian", "overlap", "mo_coeff", "density_matrix", "blocks")
RATTLE_ANGSTROM = 0.02
BUSY = frozenset({(503, "queue_full"), (504, "deadline_exceeded")})
"""Right for whatever needs the model or the parsers."""
OK = frozenset({(200, None)})

Expected = frozenset[tuple[int, str | None]]


@dataclass(frozen=True)
class Shot:
    """One request.

    Attributes:
        kind: for the report.
        method: of HTTP.
        path: with its query.
        expected: statuses with their codes (None without one) that are right.
        arguments: the rest for httpx.
    """

    kind: str
    method: str
    path: str
    expected: Expected
    arguments: dict[str, Any] = field(default_factory=dict)


class Mix:
    """An endless supply of requests; the same seed gives the same ones.

    Args:
        seed: of the random numbers.
        max_body_bytes: limit of the service.
        with_bombs: also send files that cost their reader seconds and gigabytes.
    """

    def __init__(self, seed: int, *, max_body_bytes: int, with_bombs: bool = True) -> None:
        self.random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self._max_body_bytes = max_body_bytes
        self._invalid = invalid_shots() + (bomb_shots() if with_bombs else [])

    def atoms(self) -> Atoms:
        """A small molecule in a geometry that nothing else has."""
        atoms: Atoms = molecule(self.random.choice(SMALL))
        atoms.positions += self._numbers.normal(scale=RATTLE_ANGSTROM, size=atoms.positions.shape)
        return atoms

    def predict(self) -> Shot:
        """A valid prediction, sent in any of the ways and answered in any of the formats."""
        outputs = self.random.sample(OUTPUTS, self.random.randint(1, 3))
        options = {"format_out": self.random.choice(ARRAY_FORMATS), "ao_order": self.random.choice(("pyscf", "e3nn"))}
        way: Callable[[dict[str, Any], list[str]], tuple[str, dict[str, Any]]] = self.random.choice(
            (self._json, self._multipart, self._raw)
        )
        query, arguments = way(options, outputs)
        name = f"predict: {way.__name__.strip('_')}"
        return Shot(name, "POST", "/v1/predict" + query, OK | BUSY, arguments)

    def guess(self) -> Shot:
        """A valid initial guess in any of the formats."""
        body = {"structure": wire(self.atoms()), "format_out": self.random.choice(GUESS_FORMATS)}
        return Shot(f"guess: {body['format_out']}", "POST", "/v1/initial-guess", OK | BUSY, {"json": body})

    def batch(self) -> Shot:
        """Two to six structures, one of them gold hydride now and then."""
        structures = [wire(self.atoms()) for _ in range(self.random.randint(2, 6))]
        if self.random.random() < 0.3:
            structures.append({"kind": "atoms", "numbers": [79, 1], "positions": [[0, 0, 0], [0, 0, 1.5]]})
        return Shot("batch", "POST", "/v1/predict/batch", OK | BUSY, {"json": {"structures": structures}})

    def job(self) -> Shot:
        """A valid submission of a job."""
        kind = self.random.choice(("predict", "initial-guess"))
        formats = ARRAY_FORMATS if kind == "predict" else GUESS_FORMATS
        body = {"kind": kind, "structure": wire(self.atoms()), "format_out": self.random.choice(formats)}
        return Shot("job submission", "POST", "/v1/jobs", frozenset({(202, None)}) | BUSY, {"json": body})

    def invalid(self) -> Shot:
        """One of the invalid requests."""
        return self.random.choice(self._invalid)

    def huge(self) -> Shot:
        """A body, or a structure, above a limit."""
        size = self._max_body_bytes
        padding = b" " * (size + 1)
        chain = [[0.0, 0.0, 0.9 * k] for k in range(201)]
        grid = [[1.6 * (k % 5), 1.6 * (k // 5 % 5), 1.6 * (k // 25)] for k in range(100)]
        return self.random.choice(
            [
                predict_shot("huge: body", 413, "body_too_large", content=padding, headers=JSON_TYPE),
                # without a length; the service answers while the body still comes
                predict_shot("huge: stream", 413, "body_too_large", content=pieces(padding), headers=JSON_TYPE),
                atoms_shot("huge: atoms", 413, "too_many_atoms", [1] * 201, chain),
                atoms_shot("huge: orbitals", 413, "too_many_orbitals", [6] * 100, grid),
            ]
        )

    def elsewhere(self) -> Shot:
        """What has nothing to do with structures, admin routes without a key among it."""
        return self.random.choice(
            [
                Shot("other: models", "GET", "/v1/models", OK),
                Shot("other: ready", "GET", "/health/ready", OK),
                Shot("other: metrics", "GET", "/metrics", OK),
                Shot("other: document", "GET", "/openapi.json", OK),
                Shot("other: admin", "POST", "/v1/admin/models/default/unload", frozenset({(403, "forbidden")})),
                Shot("other: no route", "GET", "/v1/predictions", frozenset({(404, "not_found")})),
                Shot("other: no method", "DELETE", "/v1/predict", frozenset({(405, "method_not_allowed")})),
                Shot("other: no job", "GET", "/v1/jobs/" + "A" * 43, frozenset({(404, "unknown_job")})),
            ]
        )

    def _json(self, options: dict[str, Any], outputs: list[str]) -> tuple[str, dict[str, Any]]:
        atoms = self.atoms()
        structure = self.random.choice((wire, qcschema, self._file))(atoms)
        return "", {"json": {"structure": structure, "outputs": outputs, **options}}

    def _multipart(self, options: dict[str, Any], outputs: list[str]) -> tuple[str, dict[str, Any]]:
        file = self._file(self.atoms())
        data = {**options, "outputs": ",".join(outputs), "format": file["format"]}
        return "", {"files": {"file": ("molecule", file["text"])}, "data": data}

    def _raw(self, options: dict[str, Any], outputs: list[str]) -> tuple[str, dict[str, Any]]:
        file = self._file(self.atoms())
        query = "&".join([f"{name}={value}" for name, value in options.items()] + [f"outputs={','.join(outputs)}"])
        content = {"content": file["text"].encode(), "headers": {"Content-Type": "text/plain"}}
        return f"?format={file['format']}&{query}", content

    def _file(self, atoms: Atoms) -> dict[str, Any]:
        file_format = self.random.choice(FILE_FORMATS)
        stream = io.StringIO()
        write(stream, atoms, format=file_format)
        return {"kind": "file", "format": file_format, "text": stream.getvalue()}


JSON_TYPE = {"Content-Type": "application/json"}


async def _stream(content: bytes) -> Any:
    for start in range(0, len(content), 1 << 16):
        yield content[start : start + (1 << 16)]


def pieces(content: bytes) -> Any:
    """A body that httpx sends in chunks, without a length."""
    return lambda: _stream(content)


def wire(atoms: Atoms) -> dict[str, Any]:
    """Numbers and positions."""
    return {"kind": "atoms", "numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}


def qcschema(atoms: Atoms) -> dict[str, Any]:
    """A QCSchema molecule."""
    geometry = (atoms.positions / ANGSTROM_PER_BOHR).ravel().tolist()
    return {"kind": "qcschema", "molecule": {"symbols": atoms.get_chemical_symbols(), "geometry": geometry}}


def predict_shot(kind: str, status: int, code: str, **arguments: Any) -> Shot:
    """A request to ``/v1/predict`` with one right answer."""
    return Shot(kind, "POST", "/v1/predict", frozenset({(status, code)}), arguments)


def atoms_shot(kind: str, status: int, code: str, numbers: list[int], positions: Any) -> Shot:
    """Atoms that cannot be predicted."""
    body = json.dumps({"structure": {"kind": "atoms", "numbers": numbers, "positions": positions}})
    return predict_shot(kind, status, code, content=body.encode(), headers=JSON_TYPE)


def invalid_shots() -> list[Shot]:
    """Bodies that are wrong in one way each."""
    nan = '{"structure": {"kind": "atoms", "numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, NaN]]}}'
    close = [[0, 0, 0], [0, 0, 0.01]]
    pair = [[0, 0, 0], [0, 0, 0.74]]
    body = {"structure": {"kind": "atoms", "numbers": [1, 1], "positions": pair}}

    def changed(kind: str, status: int, code: str, **fields: Any) -> Shot:
        return predict_shot(kind, status, code, json={**body, **fields})

    def text(kind: str, status: int, code: str, content: bytes) -> Shot:
        return predict_shot(kind, status, code, content=content, headers=JSON_TYPE)

    return [
        text("invalid: malformed JSON", 400, "malformed_body", b'{"structure": '),
        text("invalid: deep JSON", 400, "malformed_body", b"[" * 100_000),
        text("invalid: not UTF-8", 400, "malformed_body", b'{"structure": "\xff"}'),
        text("invalid: NaN", 422, "non_finite_coordinates", nan.encode()),
        text("invalid: infinity", 422, "non_finite_coordinates", nan.replace("NaN", "1e999").encode()),
        changed(
            "invalid: wrong type",
            422,
            "invalid_request",
            structure={"kind": "atoms", "numbers": "HH", "positions": pair},
        ),
        changed("invalid: boolean charge", 422, "invalid_request", charge=True),
        changed("invalid: unknown field", 422, "invalid_request", structures=[]),
        changed("invalid: unknown model", 404, "unknown_model", model="nobody"),
        changed("invalid: unknown format", 406, "not_acceptable", format_out="hdf5"),
        changed("invalid: anion", 422, "unsupported_charge", charge=-2),
        changed("invalid: odd electrons", 422, "electron_count", multiplicity=2),
        atoms_shot("invalid: unknown element", 422, "unsupported_element", [79, 1], [[0, 0, 0], [0, 0, 1.5]]),
        atoms_shot("invalid: element 300", 422, "unsupported_element", [300, 1], [[0, 0, 0], [0, 0, 1.5]]),
        atoms_shot("invalid: too close", 422, "atoms_too_close", [1, 1], close),
        atoms_shot("invalid: no atoms", 422, "empty_structure", [], []),
        predict_shot(
            "invalid: media type", 415, "unsupported_media_type", content=b"x", headers={"Content-Type": "image/png"}
        ),
        predict_shot(
            "invalid: no multipart",
            400,
            "malformed_body",
            content=b"x",
            headers={"Content-Type": "multipart/form-data"},
        ),
    ]


def bomb_shots() -> list[Shot]:
    """Files of a few bytes that cost a careless reader gigabytes, minutes or its own files."""
    refused = frozenset({(422, "unparsable_structure"), (413, "too_many_atoms"), (422, "empty_structure")}) | BUSY
    huge = {"__ndarray__": [[50_000_000], "int64", [1]]}
    texts = {
        "json": json.dumps({"1": {"numbers": huge, "positions": huge}, "ids": [1], "nextid": 2}),
        "cjson": '{"atoms":' * 50_000,
        "extxyz": "1\nProperties=species:S:1:pos:R:3:x:R:20000000\nH 0 0 0\n",
        "xyz": f"{10**18}\n\nH 0 0 0\n",
        "vasp": "x\n1\n1 0 0\n0 1 0\n0 0 1\nH\n2000000000\nDirect\n0 0 0\n",
        "cube": "a\nb\n1 0 0 0\n90000 1 0 0\n90000 0 1 0\n90000 0 0 1\n1 0 0 0 0\n0.0\n",
    }
    files = [
        Shot(f"bomb: {name}", "POST", "/v1/predict", refused, {"json": {"structure": file_of(name, text)}})
        for name, text in texts.items()
    ]
    reaching = file_of("octopus-in", "XYZCoordinates = '/etc/hostname'")
    evaluated = file_of("xyz", "1\n\nHe 0 0 __import__('os').getpid()\n")
    return [
        *files,
        predict_shot("bomb: opens files", 422, "unsupported_format", json={"structure": reaching}),
        Shot("bomb: code", "POST", "/v1/predict", refused, {"json": {"structure": evaluated}}),
    ]


def file_of(file_format: str, text: str) -> dict[str, str]:
    """A file as a structure."""
    return {"kind": "file", "format": file_format, "text": text}
