"""Laws of an attached calculation: the same energy as without us, never a failure of ours, and an honest record."""

from __future__ import annotations

import copy
import json
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pyscf import dft, gto, scf
from pyscf.pbc import dft as pbc_dft
from pyscf.pbc import gto as pbc_gto
from safetensors.numpy import load, save

from tracegrad_client import Client, TraceGradWarning
from tracegrad_client.adapters.pyscf import TraceGradSCF, attach, detach
from tracegrad_client.guard import DEFAULT_THRESHOLD, rms_commutator

ENERGY_TOLERANCE = 1e-8


def rks(mol: Any, xc: str = "b3lyp") -> Any:
    return dft.RKS(mol, xc=xc)


@contextmanager
def counted_builds(mf: Any) -> Iterator[list[int]]:
    """Counts exchange-correlation integrations: one for each Fock matrix that is really built."""
    count = [0]
    original = mf._numint.nr_rks

    def counting(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        return original(*args, **kwargs)

    mf._numint.nr_rks = counting
    try:
        yield count
    finally:
        del mf._numint.nr_rks


@pytest.fixture
def client(server: Any) -> Client:
    return Client(server.url, timeout=30)


def quiet(mf: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", TraceGradWarning)
        return mf.kernel()


def test_a_perfect_guess_converges_at_once_and_costs_no_fock_build(water: Any, client: Client) -> None:
    own, ours = rks(water), client.attach(rks(water))
    reference = own.kernel()
    with counted_builds(ours) as builds:
        energy = quiet(ours)
    assert abs(energy - reference) < ENERGY_TOLERANCE
    assert ours.converged
    assert ours.cycles < own.cycles
    assert builds[0] == ours.cycles + 2  # initial, one for each cycle, and the last one that checks
    report = ours.tracegrad
    assert report.used
    assert report.rms_commutator < 1e-4
    assert report.model == "oracle 1"
    assert report.seconds > 0


def test_a_bad_guess_costs_one_fock_build_and_nothing_else(water: Any, server: Any, client: Client) -> None:
    server.noise = 0.3
    own, ours = rks(water), client.attach(rks(water))
    reference = own.kernel()
    with counted_builds(ours) as builds, pytest.warns(TraceGradWarning, match="too far off"):
        energy = ours.kernel()
    assert energy == pytest.approx(reference, abs=1e-10)
    assert ours.cycles == own.cycles
    assert builds[0] == own.cycles + 3
    assert not ours.tracegrad.used
    assert ours.tracegrad.rms_commutator >= DEFAULT_THRESHOLD


def test_without_the_guard_a_bad_guess_is_used_and_the_energy_is_still_the_same(
    water: Any, server: Any, client: Client
) -> None:
    server.noise = 0.3
    ours = client.attach(rks(water), guard=False)
    assert abs(quiet(ours) - rks(water).kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used
    assert ours.tracegrad.rms_commutator is None


def test_the_threshold_is_the_callers(water: Any, server: Any, client: Client) -> None:
    server.noise = 0.01
    strict, lenient = (client.attach(rks(water), threshold=value) for value in (1e-9, np.inf))
    with pytest.warns(TraceGradWarning, match="too far off"):
        strict.kernel()
    quiet(lenient)
    assert strict.tracegrad.rms_commutator == pytest.approx(lenient.tracegrad.rms_commutator)
    assert lenient.tracegrad.used
    with pytest.raises(ValueError, match="positive"):
        client.attach(rks(water), threshold=0)


def test_the_guards_figure_is_pyscfs_own_orbital_gradient(water: Any) -> None:
    mf = rks(water)
    mf.max_cycle = 3
    mf.kernel()
    fock, dm, s = mf.get_fock(), mf.make_rdm1(), mf.get_ovlp()
    gradient = mf.get_grad(mf.mo_coeff, mf.mo_occ, fock)  # 2 F_ia for each pair; the commutator holds ±2 F_ia
    expected = np.sqrt(2 * np.sum(gradient**2)) / len(s)
    assert rms_commutator(fock, dm, s) == pytest.approx(expected, rel=1e-6)


def test_another_functional_is_a_warning_and_the_guess_is_kept(water: Any, client: Client) -> None:
    ours = client.attach(rks(water, "b3lyp5"))
    with pytest.warns(TraceGradWarning, match="b3lyp5"):
        energy = ours.kernel()
    own = rks(water, "b3lyp5")
    assert abs(energy - own.kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used
    assert ours.cycles < own.cycles


@pytest.mark.parametrize("name", ["B3LYP", "b3lypg", "hyb_gga_xc_b3lyp"])
def test_another_spelling_is_the_same_functional(water: Any, client: Client, name: str) -> None:
    quiet(client.attach(rks(water, name)))


def drip(_: Any) -> Any:
    time.sleep(1.5)
    return 200, {"Content-Type": "application/json"}, b"{}"


def spoil(change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Callable[[Any], Any]:
    """A fault that changes the arrays or the document of an otherwise correct answer."""

    def fault(seen: Any) -> Any:
        fault.server.fault = None  # type: ignore[attr-defined]
        status, headers, body = fault.server.answer(seen)  # type: ignore[attr-defined]
        fault.server.fault = fault  # type: ignore[attr-defined]
        size = int.from_bytes(body[:8], "little")
        document = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["meta"])
        arrays = {name: array.copy() for name, array in load(body).items()}
        change(arrays, document)
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return status, headers, save(arrays, metadata={"meta": json.dumps(document)})

    return fault


FAULTS: dict[str, Callable[[Any], Any]] = {
    "status 500 with a page": lambda _: (500, {"Content-Type": "text/html"}, b"<h1>oops</h1>"),
    "status 204": lambda _: (204, {}, b""),
    "redirect": lambda _: (302, {"Location": "http://127.0.0.1:9/"}, b""),
    "a web page": lambda _: (200, {"Content-Type": "text/html"}, b"<html>hello, and welcome to this page</html>"),
    "empty": lambda _: (200, {}, b""),
    "cut off": lambda _: (200, {"Content-Length": "5000"}, b"1234"),
    "a header of 2**60 bytes": lambda _: (200, {}, (2**60).to_bytes(8, "little") + b"{}"),
    "no gzip": lambda _: (200, {"Content-Encoding": "gzip"}, b"not gzip at all"),
    "late": drip,
    "NaN": spoil(lambda arrays, _: arrays.update(density_matrix=arrays["density_matrix"] * np.nan)),
    "wrong shape": spoil(lambda arrays, _: arrays.update(density_matrix=arrays["density_matrix"][:-1])),
    "complex": spoil(lambda arrays, _: arrays.update(mo_coeff=arrays["mo_coeff"] * 1j)),
    "missing": spoil(lambda arrays, _: arrays.pop("mo_coeff")),
    "not symmetric": spoil(lambda arrays, _: arrays["density_matrix"].__setitem__((0, 1), 0.7)),
    "not of its orbitals": spoil(lambda arrays, _: arrays.update(density_matrix=arrays["density_matrix"] * 1.01)),
    "one electron pair too few": spoil(lambda arrays, _: arrays["occupations"].__setitem__(0, 0.0)),
    "orbitals in another order": spoil(lambda _, document: document["meta"].update(ao_order="e3nn")),
    "orbitals of another atom": spoil(lambda _, document: document["meta"]["ao_labels"].reverse()),
    "labels that are no text": spoil(lambda _, document: document["meta"].update(ao_labels=[1, 2])),
    "no meta": spoil(lambda _, document: document.pop("meta")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_server_changes_nothing(water: Any, server: Any, name: str) -> None:
    server.fault = FAULTS[name]
    server.fault.server = server
    own, ours = rks(water), Client(server.url, timeout=0.5 if name == "late" else 30).attach(rks(water))
    with pytest.warns(TraceGradWarning, match="own guess"):
        energy = ours.kernel()
    assert energy == pytest.approx(own.kernel(), abs=1e-10)
    assert ours.cycles == own.cycles
    assert not ours.tracegrad.used
    assert ours.tracegrad.reason
    assert server.seen


def test_no_server_changes_nothing(water: Any, dead_url: str) -> None:
    own, ours = rks(water), attach(rks(water), Client(dead_url))
    with pytest.warns(TraceGradWarning, match=r"\[unreachable\]"):
        energy = ours.kernel()
    assert energy == pytest.approx(own.kernel(), abs=1e-10)
    assert ours.cycles == own.cycles


def test_the_callers_own_choice_of_guess_is_what_it_falls_back_to(water: Any, dead_url: str) -> None:
    own, ours = rks(water), attach(rks(water), Client(dead_url))
    own.init_guess = ours.init_guess = "1e"
    with pytest.warns(TraceGradWarning):
        ours.kernel()
    own.kernel()
    assert ours.cycles == own.cycles


WATER = [("O", (0, 0, 0.119)), ("H", (0, 0.763, -0.477)), ("H", (0, -0.763, -0.477))]


def calculation(kind: str) -> Any:
    options: dict[str, Any] = {"atom": WATER, "basis": "def2-svp", "verbose": 0}
    match kind:
        case "another basis with the same labels":
            return rks(gto.M(**options | {"basis": "cc-pvdz"}))
        case "another basis":
            return rks(gto.M(**options | {"basis": "def2-svpd"}))
        case "Cartesian":
            return rks(gto.M(**options, cart=True))
        case "ghost atom":
            return rks(gto.M(**options | {"atom": [*WATER, ("ghost-He", (3, 0, 0))]}))
        case "unrestricted":
            return dft.UKS(gto.M(**options), xc="b3lyp")
        case "restricted open-shell":
            return dft.ROKS(gto.M(**options), xc="b3lyp")
        case "generalised":
            return dft.GKS(gto.M(**options), xc="b3lyp")
        case "unrestricted in another basis":
            return dft.UKS(gto.M(**options | {"basis": "6-31g*"}), xc="b3lyp")
        case "cation":
            return dft.UKS(gto.M(**options, charge=1, spin=1), xc="b3lyp")
        case "restricted cation":
            return dft.ROKS(gto.M(**options, charge=1, spin=1), xc="b3lyp")
        case "triplet":
            return dft.UKS(gto.M(**options, spin=2), xc="b3lyp")
        case "effective core":
            return rks(gto.M(**options | {"atom": [("H", (0, 0, 0)), ("I", (0, 0, 1.6))]}, ecp="def2-svp"))
        case "a radical's neutral":
            return dft.UKS(gto.M(**options | {"atom": [("O", (0, 0, 0)), ("H", (0, 0, 0.97))]}, spin=1), xc="b3lyp")
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["effective core", "a radical's neutral"])
def test_what_the_guess_is_not_for_runs_as_it_always_did(client: Client, kind: str) -> None:
    own, ours = calculation(kind), calculation(kind)
    with pytest.warns(TraceGradWarning, match="own guess"):
        energy = client.attach(ours).kernel()
    assert energy == pytest.approx(own.kernel(), abs=1e-9)
    assert ours.cycles == own.cycles
    assert not ours.tracegrad.used


@pytest.mark.parametrize("kind", ["unrestricted", "restricted open-shell", "generalised"])
def test_a_closed_shell_is_served_whatever_the_treatment_of_spin(client: Client, kind: str) -> None:
    own, ours = calculation(kind), client.attach(calculation(kind))
    assert abs(quiet(ours) - own.kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used
    assert ours.tracegrad.rms_commutator < 1e-4  # the guard's figure is the restricted one's
    assert ours.cycles <= own.cycles - 3


@pytest.mark.parametrize(
    "kind", ["another basis with the same labels", "another basis", "Cartesian", "unrestricted in another basis"]
)
def test_another_basis_gets_the_orbitals_projected(client: Client, kind: str) -> None:
    own, ours = calculation(kind), client.attach(calculation(kind))
    assert abs(quiet(ours) - own.kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used
    assert ours.tracegrad.projected_from == "def2-svp"
    assert ours.cycles <= own.cycles


def test_functions_without_an_atom_are_no_obstacle(client: Client) -> None:
    own, ours = calculation("ghost atom"), client.attach(calculation("ghost atom"))
    assert abs(quiet(ours) - own.kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used
    assert ours.cycles < own.cycles


@pytest.mark.parametrize("kind", ["cation", "restricted cation", "triplet"])
def test_an_ion_or_open_shell_starts_from_the_closed_shells_orbitals_and_says_so(client: Client, kind: str) -> None:
    own, ours = calculation(kind), client.attach(calculation(kind), threshold=1.0, parents=True)
    assert abs(quiet(ours) - own.kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used
    assert ours.tracegrad.parent == "closed shell of charge 0"


def test_a_crystal_is_left_alone(client: Client) -> None:
    cell = pbc_gto.M(atom="He 0 0 0", a=np.eye(3) * 5, basis="def2-svp", verbose=0)
    mf = pbc_dft.RKS(cell)
    plain = type(mf)
    with pytest.warns(TraceGradWarning, match="periodic"):
        client.attach(mf)
    assert type(mf) is plain
    with pytest.raises(TypeError, match="mean-field"):
        client.attach(cell)


def test_hartree_fock_takes_the_guess_with_a_warning(water: Any, client: Client) -> None:
    ours = client.attach(scf.RHF(water))
    with pytest.warns(TraceGradWarning, match="hf"):
        energy = ours.kernel()
    assert abs(energy - scf.RHF(water).kernel()) < ENERGY_TOLERANCE


@pytest.mark.parametrize(("xc", "said"), [("pbe0", ["The calculation uses pbe0", "Something"]), ("402", ["Something"])])
def test_the_server_hears_functional_and_basis_and_a_difference_is_told_once(
    water: Any, server: Any, client: Client, xc: str, said: list[str]
) -> None:
    server.warnings = ["xc mismatch: the model was trained on b3lyp.", "Something else."]
    ours = client.attach(rks(water, xc))
    with pytest.warns(TraceGradWarning):
        ours.get_init_guess()
    sent = json.loads(server.seen[-1].body)
    assert (sent["xc"], sent["basis"]) == (xc, "def2-svp")
    for text, start in zip(ours.tracegrad.warnings, said, strict=True):
        assert text.startswith(start)


def test_a_guess_that_was_shifted_to_the_functional_is_no_warning(water: Any, server: Any, client: Client) -> None:
    server.warnings = ["xc shifted: the model was trained on b3lyp.", "Something else."]
    ours = client.attach(rks(water, "pbe0"))
    with pytest.warns(TraceGradWarning, match="Something else") as told:
        ours.get_init_guess()
    assert len(told) == 1
    assert ours.tracegrad.warnings == ("Something else.",)
    assert "shifted from b3lyp to this functional" in ours.tracegrad.reason


def test_what_is_no_name_is_not_stated(water: Any, server: Any, client: Client) -> None:
    mol = gto.M(atom=water.atom, basis={"O": "def2-svp", "H": "def2-svp"}, verbose=0)
    quiet(client.attach(rks(mol, "b3lyp")))
    assert "basis" not in json.loads(server.seen[-1].body)
    with pytest.warns(TraceGradWarning):
        client.attach(rks(mol, "0.2*hf + " + "0.0001*slater + " * 20 + "0.8*slater, vwn")).get_init_guess()
    assert "xc" not in json.loads(server.seen[-1].body)


def test_atom_names_of_the_callers_choice_do_no_harm(client: Client) -> None:
    atoms = [("O@1", (0, 0, 0.119)), ("H1", (0, 0.763, -0.477)), ("H2", (0, -0.763, -0.477))]
    ours = client.attach(rks(gto.M(atom=atoms, basis="def2-svp", verbose=0)))
    quiet(ours)
    assert ours.tracegrad.used


def test_point_group_symmetry_is_kept(client: Client) -> None:
    mol = gto.M(atom="O 0.3 0.1 0; H 1.0 0.7 0.2; H -0.4 0.8 0.1", basis="def2-svp", symmetry=True, verbose=0)
    ours = client.attach(rks(mol))
    assert abs(quiet(ours) - rks(mol).kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used


# -- what PySCF makes of an attached object ---------------------------------------------------------------------------


def test_gradients_are_those_of_the_plain_object(water: Any, client: Client) -> None:
    own, ours = rks(water), client.attach(rks(water))
    own.kernel()
    quiet(ours)
    difference = ours.nuc_grad_method().kernel() - own.nuc_grad_method().kernel()
    assert np.abs(difference).max() < 1e-5


def test_a_second_run_starts_from_its_own_orbitals(water: Any, server: Any, client: Client) -> None:
    ours = client.attach(rks(water))
    first = quiet(ours)
    asked = len(server.seen)
    assert abs(quiet(ours) - first) < ENERGY_TOLERANCE
    assert len(server.seen) == asked


@pytest.mark.parametrize(
    "derive",
    [
        lambda mf: mf.density_fit(),
        lambda mf: mf.newton(),
        lambda mf: mf.copy(),
        lambda mf: mf.density_fit().newton(),
        lambda mf: mf.PCM(),
        lambda mf: mf.sfx2c1e(),
        copy.deepcopy,
        lambda mf: pickle.loads(pickle.dumps(mf)),
    ],
    ids=["density_fit", "newton", "copy", "density_fit+newton", "PCM", "x2c", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("order", ["attach first", "attach last"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_derived_objects_reach_the_energy_of_the_plain_ones(
    water: Any, server: Any, client: Client, derive: Callable[[Any], Any], order: str, noise: float
) -> None:
    server.noise = noise
    own = derive(rks(water))
    ours = derive(client.attach(rks(water))) if order == "attach first" else client.attach(derive(rks(water)))
    for mf in (own, ours):
        mf.verbose = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TraceGradWarning)
        energy = ours.kernel()
    assert abs(energy - own.kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used is (noise == 0.0)
    assert ours.converged


def new_geometry(mf: Any, dm: Any) -> tuple[Any, Any]:
    mf.reset(mf.mol.set_geom_(mf.mol.atom_coords() * 1.03, unit="Bohr", inplace=False))
    return mf, dm


def same_molecule_moved(mf: Any, dm: Any) -> tuple[Any, Any]:
    mf.reset(mf.mol.set_geom_(mf.mol.atom_coords() * 1.03, unit="Bohr", inplace=True))
    return mf, dm


def other_molecule_assigned(mf: Any, dm: Any) -> tuple[Any, Any]:
    mf.mol = mf.mol.set_geom_(mf.mol.atom_coords() * 1.03, unit="Bohr", inplace=False)
    mf.grids.reset(mf.mol)
    mf._eri = None
    return mf, dm


def other_functional(mf: Any, dm: Any) -> tuple[Any, Any]:
    mf.xc = "pbe0"
    return mf, dm


def other_density(mf: Any, dm: Any) -> tuple[Any, Any]:
    return mf, np.asarray(dm) * 0.9


@pytest.mark.parametrize(
    "change", [new_geometry, same_molecule_moved, other_molecule_assigned, other_functional, other_density]
)
@pytest.mark.parametrize("named", [True, False])
def test_a_potential_is_only_handed_to_the_calculation_that_it_was_built_for(
    water: Any, client: Client, change: Callable[[Any, Any], tuple[Any, Any]], named: bool
) -> None:
    mf = client.attach(rks(water))
    mf, dm = change(mf, mf.get_init_guess())  # this leaves a potential for an SCF that does not come
    expected = rks(mf.mol, mf.xc).get_veff(mf.mol, np.asarray(dm))
    np.testing.assert_allclose(np.asarray(mf.get_veff(mf.mol if named else None, dm)), np.asarray(expected), atol=1e-9)


def test_a_run_never_begins_with_a_potential_from_before_it(water: Any, client: Client) -> None:
    mf = client.attach(rks(water))
    dm = mf.get_init_guess()
    mf.grids.level = 1
    mf.grids.reset()
    own = rks(water)
    own.grids.level = 1
    mf.max_cycle = own.max_cycle = 0  # then the energy is that of the given density, by the first potential alone
    assert mf.kernel(dm0=dm) == pytest.approx(own.kernel(dm0=np.asarray(dm)), abs=1e-10)


@pytest.mark.parametrize("order", ["attach first", "attach last"])
def test_a_second_order_run_builds_no_fock_matrix_twice(water: Any, client: Client, order: str) -> None:
    given = rks(water).newton()
    with counted_builds(given) as expected:
        given.kernel(dm0=client.density_matrix(water))
    ours = client.attach(rks(water)).newton() if order == "attach first" else client.attach(rks(water).newton())
    with counted_builds(ours) as builds:
        quiet(ours)
    assert builds == expected


def test_a_conversion_to_unrestricted_keeps_the_guess(water: Any, client: Client) -> None:
    ours = client.attach(rks(water)).to_uks()
    assert abs(quiet(ours) - rks(water).kernel()) < ENERGY_TOLERANCE
    assert ours.tracegrad.used


def test_a_given_density_goes_before_ours(water: Any, server: Any, client: Client) -> None:
    start = rks(water).get_init_guess()
    quiet_start = client.attach(rks(water))
    quiet_start.kernel(dm0=start)
    assert not server.seen
    by_attribute = client.attach(rks(water))
    by_attribute.init_guess = start
    with pytest.warns(TraceGradWarning, match="init_guess"):
        by_attribute.kernel()
    assert not server.seen
    assert not by_attribute.tracegrad.used


def test_a_guess_asked_for_by_another_name_is_that_guess(water: Any, server: Any, client: Client) -> None:
    ours = client.attach(rks(water))
    np.testing.assert_allclose(ours.get_init_guess(key="1e"), rks(water).get_init_guess(key="1e"), atol=1e-12)
    assert not server.seen


def test_grid_pruning_by_density_does_not_see_the_rejected_guess(water: Any, server: Any, client: Client) -> None:
    server.noise = 0.3
    own, ours = rks(water), client.attach(rks(water))
    own.small_rho_cutoff = ours.small_rho_cutoff = 1e-4
    with pytest.warns(TraceGradWarning):
        energy = ours.kernel()
    assert energy == pytest.approx(own.kernel(), abs=1e-10)
    assert len(ours.grids.weights) == len(own.grids.weights)


def test_detach_gives_back_the_plain_object(water: Any, client: Client) -> None:
    mf = rks(water)
    plain = type(mf)
    attached = client.attach(mf)
    assert isinstance(attached, TraceGradSCF)
    assert attached is mf
    assert type(client.attach(mf)).__mro__.count(TraceGradSCF) == 1  # attaching twice is attaching once
    assert detach(mf) is mf
    assert type(mf) is plain
    assert not hasattr(mf, "tracegrad")
    assert set(vars(mf)) == set(vars(rks(water)))
