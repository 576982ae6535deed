"""Shows what a predicted guess is worth: molecules converged twice, from PySCF's default guess and from the server's.

    python benchmarks/demo.py --url http://127.0.0.1:8000
    python benchmarks/demo.py --serve                          # starts a server of its own on a free port
    python benchmarks/demo.py --molecules CH3OH C4H4O my.xyz

RKS, B3LYP/def2-SVP, PySCF's default thresholds. Molecules are names of ASE's G2 collection or structure files. Seconds
are wall time of the whole ``kernel()`` call, ours with the request and the guard in it. Fock builds are counted where
they happen, at the exchange-correlation integration. Needs pyscf and ase.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local_server import local_server

from tracegrad_client.client import DEFAULT_URL, Client
from tracegrad_client.errors import TraceGradError, TraceGradWarning

MOLECULES: Final = ("H2O", "NH3", "HCN", "CH3OH", "H2CF2", "HCOOH", "CH3CH2OH", "CH3CONH2", "C4H4NH")
ENERGY_TOLERANCE: Final = 1e-7
"""Hartree; conv_tol is 1e-9, and two runs that end within it may differ by a little more than that."""


@dataclass(frozen=True)
class Run:
    """One converged calculation: energy (hartree), cycles, Fock builds, seconds."""

    energy: float
    converged: bool
    cycles: int
    builds: int
    seconds: float


@dataclass(frozen=True)
class Row:
    """A molecule converged from both guesses; ``note`` says what became of ours."""

    name: str
    orbitals: int
    minao: Run
    ours: Run
    used: bool
    rms: float | None
    note: str

    @property
    def agrees(self) -> bool:
        """Whether both runs converged to the same energy."""
        same = abs(self.ours.energy - self.minao.energy) <= ENERGY_TOLERANCE
        return self.minao.converged and self.ours.converged and same


def load_molecule(name: str) -> Any:
    """An ase.Atoms: from a file where ``name`` is one, otherwise from ASE's G2 collection.

    Raises:
        ValueError: neither a file nor a name of the collection.
    """
    from ase.collections import g2
    from ase.io import read

    if Path(name).is_file():
        return read(name)
    if name not in g2.names:
        raise ValueError(f"{name!r} is neither a structure file nor a molecule of ASE's G2 collection.")
    return g2[name]


def run_scf(mf: Any) -> Run:
    """Converge ``mf`` and count what it took."""
    integrate = mf._numint.nr_rks
    builds = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal builds
        builds += 1
        return integrate(*arguments, **options)

    mf._numint.nr_rks = counting
    started = time.perf_counter()
    energy = float(mf.kernel())
    seconds = time.perf_counter() - started
    return Run(energy, bool(mf.converged), int(mf.cycles), builds, seconds)


def compare(name: str, atoms: Any, client: Client, *, xc: str = "b3lyp", basis: str = "def2-svp") -> Row:
    """Converge one molecule from both guesses."""
    from pyscf import dft, gto

    pairs = zip(atoms.get_chemical_symbols(), atoms.get_positions().tolist(), strict=True)
    mol = gto.M(atom=list(pairs), unit="Angstrom", basis=basis, verbose=0)
    minao = run_scf(dft.RKS(mol, xc=xc))
    attached = client.attach(dft.RKS(mol, xc=xc))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TraceGradWarning)  # the report says the same, and the table shows it
        ours = run_scf(attached)
    report = attached.tracegrad
    return Row(name, mol.nao, minao, ours, report.used, report.rms_commutator, "" if report.used else report.reason)


def table(rows: Sequence[Row]) -> str:
    """The rows, means and ratios as text."""
    head = (
        f"{'molecule':<14} {'AOs':>4} | {'cycles':^13} | {'Fock builds':^13} | {'seconds':^15} | {'guess':^9} | "
        f"{'dE, hartree':>11}"
    )
    sub = f"{'':<14} {'':>4} | {'minao':>6} {'ours':>6} | {'minao':>6} {'ours':>6} | {'minao':>7} {'ours':>7} | "
    sub += f"{'RMS FDS':^9} |"
    lines = [head, sub, "-" * len(head)]
    for row in rows:
        a, b = row.minao, row.ours
        rms = "none" if row.rms is None else f"{row.rms:.1e}" + ("" if row.used else "*")
        lines.append(
            f"{row.name:<14.14} {row.orbitals:>4} | {a.cycles:>6} {b.cycles:>6} | {a.builds:>6} {b.builds:>6} | "
            f"{a.seconds:>7.2f} {b.seconds:>7.2f} | {rms:^9} | {b.energy - a.energy:>11.1e}"
            + ("" if row.agrees else "  <-- DIFFERS")
        )
    lines.append("-" * len(head))
    means = [[_mean(getattr(run, key) for run in runs) for key in ("cycles", "builds", "seconds")]
             for runs in ([row.minao for row in rows], [row.ours for row in rows])]  # fmt: skip
    (c1, f1, s1), (c2, f2, s2) = means
    lines.append(f"{'mean':<19} | {c1:>6.2f} {c2:>6.2f} | {f1:>6.2f} {f2:>6.2f} | {s1:>7.2f} {s2:>7.2f} |")
    lines.append(f"{'ours / minao':<19} | {c2 / c1:>13.2f} | {f2 / f1:>13.2f} | {s2 / s1:>15.2f} |")
    lines += [f"* {row.name}: {row.note}" for row in rows if not row.used]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 where all energies agree, 1 otherwise or where there is no server."""
    parser = argparse.ArgumentParser(prog="python benchmarks/demo.py", description=(__doc__ or "").split("\n")[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", default=os.environ.get("TRACEGRAD_URL", DEFAULT_URL), help="server (%(default)s)")
    where.add_argument("--serve", action="store_true", help="start a server for this run and stop it afterwards")
    parser.add_argument("--molecules", nargs="+", default=list(MOLECULES), metavar="NAME", help="G2 names or files")
    parser.add_argument("--model", help="name of a checkpoint (default: the server's)")
    chosen = parser.parse_args(arguments)
    try:
        molecules = [(name, load_molecule(name)) for name in chosen.molecules]
    except ValueError as error:
        parser.error(str(error))
    key = os.environ.get("TRACEGRAD_API_KEY") or None
    try:
        with (
            local_server() if chosen.serve else nullcontext(chosen.url) as url,
            Client(url, model=chosen.model, api_key=key) as client,
        ):
            return _show(molecules, client)
    except (TraceGradError, RuntimeError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _show(molecules: Sequence[tuple[str, Any]], client: Client) -> int:
    # Once for the shared costs of both sides: loaded libraries, the server's first forward pass. Also, without a server
    # there is nothing to show, and this is where it is found out.
    warm_up = load_molecule("H2O")
    model = client.guess(warm_up).model
    print(f"Server {client.base_url}, model {model}; RKS b3lyp/def2-svp, PySCF's default thresholds")
    compare("warm-up", warm_up, client)
    rows = []
    for name, atoms in molecules:
        rows.append(compare(Path(name).stem if Path(name).is_file() else name, atoms, client))
        print(f"  {rows[-1].name} done", file=sys.stderr, flush=True)
    print(table(rows))
    return 0 if all(row.agrees for row in rows) else 1


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    sys.exit(main())
