"""Which PySCF calculations a guess may be asked for, and whether two names mean the same functional."""

from __future__ import annotations

from typing import Any, Final, Literal

from pyscf import scf
from pyscf.dft import libxc

from tracegrad_client.ask import Options

Treatment = Literal["restricted", "unrestricted", "restricted open-shell", "generalised"]
"""How a calculation treats spin: what its density matrix looks like."""

_TREATMENTS: Final[tuple[tuple[type, Treatment], ...]] = (
    (scf.uhf.UHF, "unrestricted"),
    (scf.rohf.ROHF, "restricted open-shell"),  # before RHF, which it is derived from
    (scf.ghf.GHF, "generalised"),
    (scf.hf.RHF, "restricted"),
)

_EXPLICIT: Final = {"b3lyp": "b3lypg"}
"""Before PySCF 2.3 ``b3lyp`` was the VWN5 flavour; ``b3lypg`` has always been the VWN-RPA one, which is meant."""

LONGEST_NAME: Final = 100
"""The contract takes no longer name of a functional or a basis; a longer one is no name that a model could have."""


def is_periodic(mf: Any) -> bool:
    """Whether a calculation is of a crystal."""
    return hasattr(mf.mol, "lattice_vectors")


def treatment(mf: Any) -> Treatment | None:
    """How ``mf`` treats spin; None where its density is none of those that a guess can be turned into."""
    if is_periodic(mf):
        return "restricted" if _is_restricted_in_k(mf) else None
    return next((name for kind, name in _TREATMENTS if isinstance(mf, kind)), None)


def obstacle(mf: Any, mol: Any = None, *, check_molecule: bool = True) -> str | None:
    """Why no guess can be asked for ``mf``, in words; None where nothing stands in the way.

    What the server's model supports (elements, charges, sizes) is the server's to say; here is only what makes
    orbitals of a molecule's electrons the wrong kind of thing.
    """
    mol = mf.mol if mol is None else mol
    if type(mf).__module__.startswith("gpu4pyscf"):
        return (
            "An object of gpu4pyscf came, which attach cannot stand in front of; give it the density itself: "
            "mf.kernel(dm0=client.density_matrix(mol))."
        )
    if is_periodic(mf):
        if _is_restricted_in_k(mf):
            return None
        return f"{type(mf).__name__} of a periodic cell came; supported are KRKS and KRHF without symmetry of k-points."
    if treatment(mf) is None:
        return f"{type(mf).__name__} is not supported; supported are RKS, UKS, ROKS, GKS and RHF, UHF, ROHF, GHF."
    if not check_molecule:
        return None
    if mol.has_ecp():
        return "The molecule uses effective core potentials; supported are all-electron bases."
    if (mol.nelectron - mol.spin) % 2:
        return f"The molecule has {mol.nelectron} electrons and {mol.spin} unpaired ones, which cannot be."
    return None


def _is_restricted_in_k(mf: Any) -> bool:
    from pyscf.pbc.scf import khf, khf_ksymm, krohf  # whoever has a cell has loaded them

    return isinstance(mf, khf.KRHF) and not isinstance(mf, krohf.KROHF | khf_ksymm.KsymAdaptedKSCF)


def stated_level(mf: Any, mol: Any) -> Options:
    """Functional and basis of a calculation, by which the server chooses among its models; only names are stated."""
    names = {"xc": getattr(mf, "xc", "hf"), "basis": mol.basis}
    found = {key: name for key, name in names.items() if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME}
    return {"xc": found.get("xc"), "basis": found.get("basis")}


def functional_difference(mine: Any, theirs: str) -> str | None:
    """A warning where a calculation and a model use different functionals; None where both mean the same.

    Names are resolved by libxc's numbers, so that ``B3LYP``, ``b3lypg`` and ``hyb_gga_xc_b3lyp`` are one functional and
    ``b3lyp5`` is another.
    """
    if not isinstance(mine, str):
        mine = "a custom functional"
    if _components(mine) == _components(theirs):
        return None
    return (
        f"The calculation uses {mine}, the model was trained for {theirs}: the guess is used, but it saves fewer "
        f"cycles. Set mf.xc = {theirs!r} if that was meant."
    )


def _components(name: str) -> object:
    name = name.strip().lower()
    name = _EXPLICIT.get(name, name)
    try:
        hybrid, parts = libxc.parse_xc(name)
    except Exception:  # PySCF raises KeyError and others for names that it does not know: then the name itself decides
        return name
    return hybrid, tuple((int(number), float(weight)) for number, weight in parts)
