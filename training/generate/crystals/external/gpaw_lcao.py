"""H(k) and S(k) of a crystal by GPAW in LCAO mode: run by a Python that has GPAW, never imported here (GPAW is GPL).

    python3 gpaw_lcao.py job.json result.npz

Only interfaces of GPAW are used that 22.8 has. GPAW keeps the transpose of each matrix: the complex conjugate leaves, so that
H(k) = sum over R of exp(+2 pi i k.R) H(R). Of k and -k it computes one; with real orbitals the other is the conjugate.
Spin-orbit coupling is added to the converged Hamiltonian without spin, as ``gpaw.spinorbit`` does with all bands:

    H = H0 x 1 + sum over x, y, z of L_v x sigma_v,    L_v = sum over atoms of P* <phi| 1/r dV/dr L_v |phi> P^T

with the projections P of the orbitals on the atoms' partial waves. Parts are uu, ud, du, dd, the first letter the row's spin.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np


def main(job_path: str, result_path: str) -> None:
    """Run the job of a JSON file; write H and S in hartree, levels in hartree, (spin part, k, orbital, orbital)."""
    import gpaw  # type: ignore[import-not-found]
    from ase import Atoms
    from ase.units import Hartree
    from gpaw.lcao.tools import get_lcao_hamiltonian  # type: ignore[import-not-found]
    from gpaw.spinorbit import soc_eigenstates  # type: ignore[import-not-found]

    with open(job_path, encoding="utf-8") as stream:
        job = json.load(stream)
    atoms = Atoms(job["numbers"], job["positions"], cell=job["cell"], pbc=job["pbc"])
    atoms.calc = calc = gpaw.GPAW(
        mode="lcao",
        basis=job["basis"],
        xc=job["functional"],
        h=job["grid_angstrom"],
        kpts={"size": job["k_points"], "gamma": True},
        occupations=gpaw.FermiDirac(job["smearing_ev"]),
        mixer=gpaw.Mixer(0.25, 5, 1),
        symmetry={"point_group": False},
        convergence={"density": job["convergence"]},
        maxiter=job["maximum_cycles"],
        nbands="nao",
        txt="gpaw.txt",
    )
    energy = atoms.get_potential_energy(force_consistent=True)
    kd = calc.wfs.kd
    h_skmm, s_kmm = get_lcao_hamiltonian(calc)
    reversed_k = [bool(kd.time_reversal_k[k]) for k in range(kd.nbzkpts)]
    plain = [unfolded(matrix, kd, reversed_k) for matrix in (h_skmm[0] / Hartree, s_kmm)]
    if job["spin_orbit"]:
        h0 = plain[0]
        lx, ly, lz = spin_orbit(calc, kd, reversed_k)
        hamiltonian = np.stack([h0 + lz, lx - 1j * ly, lx + 1j * ly, h0 - lz])
        states = soc_eigenstates(calc)
        eigenvalues, fermi = np.asarray(states.eigenvalues()), states.fermi_level
    else:
        hamiltonian = plain[0][None]
        eigenvalues = np.array([calc.get_eigenvalues(kpt=int(kd.bz2ibz_k[k])) for k in range(kd.nbzkpts)])
        fermi = calc.get_fermi_level()
    shells = [[phit.get_angular_momentum_number() for phit in setup.phit_j] for setup in calc.wfs.setups]
    np.savez(
        result_path,
        hamiltonian=hamiltonian,
        overlap=plain[1][None],
        k_points=kd.bzk_kc,
        eigenvalues=eigenvalues / Hartree,
        fermi=fermi / Hartree,
        energy=energy / Hartree,
        n_electrons=calc.wfs.nvalence,
        cycles=calc.get_number_of_iterations(),
        version=gpaw.__version__,
        shells=json.dumps(shells),
    )


def unfolded(matrices: Any, kd: Any, reversed_k: list[bool]) -> Any:
    """All k-points from the irreducible ones, (k, orbital, orbital): the conjugate of GPAW's, or itself at -k."""
    whole = []
    for k in range(kd.nbzkpts):
        matrix = matrices[kd.bz2ibz_k[k]]
        whole.append(matrix if reversed_k[k] else matrix.conj())
    return np.stack(whole)


def spin_orbit(calc: Any, kd: Any, reversed_k: list[bool]) -> Any:
    """L_x, L_y, L_z of all k-points, hartree, (3, k, orbital, orbital)."""
    from gpaw.spinorbit import soc

    wfs = calc.wfs
    n_orbitals = wfs.setups.nao
    found = np.zeros((3, kd.nbzkpts, n_orbitals, n_orbitals), dtype=complex)
    q_of_ibz = {kpt.k: kpt.q for kpt in wfs.kpt_u}
    for atom, d_sp in calc.density.D_asp.items():
        coupling = soc(wfs.setups[atom], calc.hamiltonian.xc, d_sp)
        for k in range(kd.nbzkpts):
            projections = wfs.P_aqMi[atom][q_of_ibz[kd.bz2ibz_k[k]]]
            if reversed_k[k]:
                projections = projections.conj()
            found[:, k] += projections.conj() @ coupling @ projections.T
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
