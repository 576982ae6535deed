"""SCF cycles through plain ``attach`` in the settings that people compute in: functionals, bases, treatments of spin, ions.

``OMP_NUM_THREADS=1 python benchmarks/guess_settings.py [--settings NAME ...] [--runs FILE] [--record]``; an hour of one core.
Ten molecules, PySCF's defaults, its own guess beside ours, each molecule in every setting before the next one. Starts a
server of its own. With ``--runs`` every pair of calculations is a line of that file, and those that it has are not run again.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ase.build import molecule
from local_server import local_server
from machine import DEFAULT_CHECKPOINT, describe
from pyscf import dft, gto, lib, scf
from recorded import Cell, Column, Table, as_markdown, record

from model.checkpoint.card import read_card
from tracegrad_client import Client

MOLECULES: Final = (
    "HCN", "CH3OH", "H2CO", "HCOOH", "CH3CH2OH", "CH3CN", "CH3CHO", "CH2OCH2", "C2H6NH", "H2CF2",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One way to compute: method of a Mole, basis, charge and unpaired electrons; and whether ions take parents' orbitals."""

    method: Callable[[Any], Any]
    basis: str = "def2-svp"
    charge: int = 0
    spin: int = 0
    cart: bool = False
    parents: bool = False

    def calculation(self, name: str) -> Any:
        """Of a molecule of ASE's G2 set."""
        atoms = molecule(name)
        pairs = list(zip(atoms.get_chemical_symbols(), atoms.positions.tolist(), strict=True))
        mol = gto.M(atom=pairs, basis=self.basis, charge=self.charge, spin=self.spin, cart=self.cart, verbose=0)
        return self.method(mol)


def rks(xc: str) -> Callable[[Any], Any]:
    """Restricted Kohn-Sham of a functional."""
    return lambda mol: dft.RKS(mol, xc=xc)


def uks(mol: Any) -> Any:
    """Unrestricted B3LYP."""
    return dft.UKS(mol, xc="b3lyp")


SETTINGS: Final[dict[str, Setting]] = {
    "B3LYP/def2-SVP": Setting(rks("b3lyp")),
    "UKS, singlet": Setting(uks),
    "ROKS, singlet": Setting(lambda mol: dft.ROKS(mol, xc="b3lyp")),
    "density fitting": Setting(lambda mol: dft.RKS(mol, xc="b3lyp").density_fit()),
    "PCM": Setting(lambda mol: dft.RKS(mol, xc="b3lyp").density_fit().PCM()),
    "PBE": Setting(rks("pbe")),
    "PBE0": Setting(rks("pbe0")),
    "wB97X": Setting(rks("wb97x")),
    "r2SCAN": Setting(rks("r2scan")),
    "HF": Setting(scf.RHF),
    "6-31G*": Setting(rks("b3lyp"), "6-31g*"),
    "6-31G*, Cartesian": Setting(rks("b3lyp"), "6-31g*", cart=True),
    "cc-pVDZ": Setting(rks("b3lyp"), "cc-pvdz"),
    "def2-TZVP": Setting(rks("b3lyp"), "def2-tzvp"),
    "PBE0/cc-pVDZ": Setting(rks("pbe0"), "cc-pvdz"),
    "cation, UKS, parents": Setting(uks, charge=1, spin=1, parents=True),
    "anion, UKS, parents": Setting(uks, charge=-1, spin=1, parents=True),
    "triplet, UKS, parents": Setting(uks, spin=2, parents=True),
}

COLUMNS = [
    Column(name="setting"),
    Column(name="molecules"),
    Column(name="own guess, cycles"),
    Column(name="attach, cycles"),
    Column(name="ratio", digits=2),
    Column(name="guesses used"),
    Column(name="worse in"),
    Column(name="most builds more"),
    Column(name="largest difference of energies, hartree"),
]


def main() -> None:
    """Print one row per setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--molecules", nargs="+", default=list(MOLECULES))
    parser.add_argument("--runs", type=Path, help="file of finished runs, one JSON object a line")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    lib.num_threads(1)
    known = [json.loads(line) for line in chosen.runs.read_text().splitlines()] if _is_file(chosen.runs) else []
    runs = {(run["setting"], run["molecule"]): run for run in known}
    pairs = [(setting, molecule) for molecule in chosen.molecules for setting in chosen.settings]
    with local_server() as url, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = Client(url)
        for setting, name in pairs:
            if (setting, name) in runs:
                continue
            runs[setting, name] = run = {
                "setting": setting,
                "molecule": name,
                **measure(SETTINGS[setting], name, client),
            }
            print(json.dumps(run), flush=True)
            if chosen.runs:
                with chosen.runs.open("a") as file:
                    file.write(json.dumps(run) + "\n")
    rows = [row_of(setting, [runs[setting, molecule] for molecule in chosen.molecules]) for setting in chosen.settings]
    table = Table(columns=COLUMNS, rows=rows)
    print(describe())
    print(as_markdown(table))
    if chosen.record:
        version = read_card(DEFAULT_CHECKPOINT / "card.json").version
        print(record("guess_settings", tables=[table], spread="none: cycles repeat exactly", checkpoint=version))


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()


def measure(setting: Setting, name: str, client: Client) -> dict[str, Any]:
    """Both calculations of a molecule; a guess that was rejected cost one Fock build, as a cycle does."""
    own, ours = setting.calculation(name), client.attach(setting.calculation(name), parents=setting.parents)
    energies = own.kernel(), ours.kernel()
    report = ours.tracegrad
    if "[unreachable]" in report.reason:
        raise RuntimeError(f"The server of this benchmark has ended: {report.reason}")
    return {
        "converged": bool(own.converged and ours.converged),
        "own": int(own.cycles),
        "ours": int(ours.cycles),
        "used": bool(report.used),
        "rejected": not report.used and report.rms_commutator is not None,
        "difference": float(energies[1] - energies[0]),
        "reason": report.reason,
    }


def row_of(setting: str, runs: list[dict[str, Any]]) -> list[Cell]:
    """One row of the table, of the molecules whose calculations both converged."""
    runs = [run for run in runs if run["converged"]]
    before, after = (sum(run[which] for run in runs) for which in ("own", "ours"))
    used, worse = sum(run["used"] for run in runs), sum(run["ours"] > run["own"] for run in runs)
    most = max((run["ours"] + run["rejected"] - run["own"] for run in runs), default=None)
    largest = max((abs(run["difference"]) for run in runs), default=0.0)
    ratio = round(after / before, 3) if before else None
    return [setting, len(runs), before, after, ratio, used, worse, most, f"{largest:.0e}"]


if __name__ == "__main__":
    main()
