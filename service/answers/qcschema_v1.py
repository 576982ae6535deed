"""The same guess as a QCSchema v1 document: the ``AtomicResult`` that QCElemental gives and takes by default.

Contents, orders and conventions are those of ``qcschema``; only names, versions and places differ. The keywords are those by
which ``pyscf.tools.qcschema.recreate_mol_obj`` builds its molecule; its readers of orbitals ask for an energy, which a guess
has not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.answers import qcschema

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import Prediction


def document(prediction: Prediction, card: Card, mole: Any) -> dict[str, Any]:
    """The whole document; arguments and errors are those of :func:`service.answers.qcschema.document`."""
    second = qcschema.document(prediction, card, mole)
    specification = second["input_data"]["specification"]
    wavefunction = {name: value for name, value in second["wavefunction"].items() if name != "schema_name"}
    return {
        "schema_name": "qcschema_output",
        "schema_version": 1,
        "molecule": {**second["molecule"], "schema_version": 2},
        "driver": specification["driver"],
        "model": specification["model"],
        "keywords": {
            "scf": {"method": "rks"},
            "basisSet": {"name": card.basis.name, "cartesian": False},
            "xcFunctional": {"name": card.xc},
        },
        "protocols": specification["protocols"],
        "properties": second["properties"],
        "wavefunction": {
            **wavefunction,
            "basis": {**wavefunction["basis"], "schema_name": "qcschema_basis", "schema_version": 1},
        },
        **{name: second[name] for name in ("return_result", "success", "provenance", "extras")},
    }
