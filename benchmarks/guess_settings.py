"""SCF cycles through plain ``attach`` in the settings that people compute in: functionals, bases, treatments of spin, ions.

``OMP_NUM_THREADS=1 python benchmarks/guess_settings.py [--settings NAME ...] [--record]``; an hour of one core.
Ten molecules, PySCF's defaults, its own guess beside ours. Starts a server of its own.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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
    """One way to compute: method of a Mole, basis, charge and unpaired electrons."""

    method: Callable[[Any], Any]
    basis: str = "def2-svp"
    charge: int = 0
    spin: int = 0
    cart: bool = False

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
    "cation, UKS": Setting(uks, charge=1, spin=1),
    "anion, UKS": Setting(uks, charge=-1, spin=1),
    "triplet, UKS": Setting(uks, spin=2),
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
    parser.add_argument("--verbose", action="store_true", help="a line for each molecule")
    parser.add_argument("--record", action="store_true")
    chosen = parser.parse_args()
    lib.num_threads(1)
    rows: list[list[Cell]] = []
    with local_server() as url, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = Client(url)
        for name in chosen.settings:
            rows.append(measure(name, SETTINGS[name], chosen.molecules, client, verbose=chosen.verbose))
            print(rows[-1], flush=True)
    table = Table(columns=COLUMNS, rows=rows)
    print(describe())
    print(as_markdown(table))
    if chosen.record:
        version = read_card(DEFAULT_CHECKPOINT / "card.json").version
        print(record("guess_settings", tables=[table], spread="none: cycles repeat exactly", checkpoint=version))


def measure(name: str, setting: Setting, molecules: list[str], client: Client, *, verbose: bool) -> list[Cell]:
    """One row of the table. A rejected guess costs one Fock build, which is counted as a cycle of ours would be."""
    before = after = used = worse = most = count = 0
    largest = 0.0
    for each in molecules:
        own, ours = setting.calculation(each), client.attach(setting.calculation(each))
        energies = own.kernel(), ours.kernel()
        if not (own.converged and ours.converged):
            print(f"{name}, {each}: converged {own.converged} by itself, {ours.converged} with the guess", flush=True)
            continue
        report = ours.tracegrad
        rejected = int(not report.used and report.rms_commutator is not None)
        more = int(ours.cycles) + rejected - int(own.cycles)
        count, before, after = count + 1, before + int(own.cycles), after + int(ours.cycles)
        used, worse, most = used + int(report.used), worse + int(ours.cycles > own.cycles), max(most, more)
        largest = max(largest, abs(energies[0] - energies[1]))
        if verbose:
            print(
                f"  {name}, {each}: {own.cycles} -> {ours.cycles}, {energies[1] - energies[0]:.1e}; {report}",
                flush=True,
            )
    ratio = round(after / before, 3) if before else None
    return [name, count, before, after, ratio, used, worse, most, f"{largest:.0e}"]


if __name__ == "__main__":
    main()
