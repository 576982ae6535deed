"""From a checkpoint folder to a model that serves: hash, tensors, golden numbers, symmetry, a warm-up, a backend.

Whatever fails, nothing of the checkpoint remains, and the models that serve are not touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from model.errors import CheckpointError
from model.structure import Structure
from service.checkpoints.catalogue import Candidate
from service.checkpoints.checks import CheckList
from service.checkpoints.loaded import LoadedModel
from service.serving.batches import BatchObserver, DeviceWorker
from service.serving.local import LocalBackend
from service.settings import Settings

if TYPE_CHECKING:
    from model.checkpoint.card import Card
    from model.predictor import Predictor

logger = logging.getLogger(__name__)

WARM_UP_DISTANCE_ANGSTROM: Final = 1.2


class ModelLoader:
    """Loads checkpoints for one device.

    Args:
        settings: as given to the service.
        device: torch device of the networks.
        observer: told of the models' batches.
    """

    def __init__(self, settings: Settings, device: str, observer: BatchObserver | None = None) -> None:
        self._settings = settings
        self._observer = observer
        self._worker: DeviceWorker | None = None
        self._large_workers: tuple[DeviceWorker, DeviceWorker] | None = None
        self.device = device

    def load(self, candidate: Candidate, before_each: Callable[[str], None] | None = None) -> LoadedModel:
        """Load a checkpoint and let it pass every check; takes seconds.

        Args:
            candidate: from a catalogue; its card reads.
            before_each: called with the name of each check; what it raises ends the loading.

        Raises:
            RejectedError: a check failed.
        """
        from model.checkpoint.golden import GOLDEN_TOLERANCE_HARTREE
        from model.checkpoint.self_test import ENERGY_TOLERANCE_HARTREE, HAMILTONIAN_TOLERANCE_HARTREE, self_test
        from model.predictor import Predictor

        started = time.perf_counter()
        checks = CheckList(candidate.folder.parent, before_each)
        print_of_files = fingerprint(candidate.folder)  # before they are read: a later change is seen by the next load
        with checks.check("weights") as figures:
            compiled = self._settings.compiled
            predictor = Predictor.load(candidate.folder, device=self.device, verify_golden=False, compiled=compiled)
            if predictor.card != candidate.card:
                raise CheckpointError("The checkpoint's files changed while they were read.", hint="Load it again.")
            figures["sha256"] = predictor.card.weights_sha256
        with checks.check("golden") as figures:
            predictor.verify_golden()
            figures["molecules"] = [str(entry["name"]) for entry in predictor.checkpoint.golden["structures"]]
            figures["allowed_hartree"] = GOLDEN_TOLERANCE_HARTREE
            figures["forward"] = predictor.model.forward_form
        with checks.check("equivariance") as figures:
            deviations = self_test(predictor, predictor.checkpoint.golden)
            figures["motions"] = sorted({deviation.motion for deviation in deviations})
            figures["hamiltonian_hartree"] = max(deviation.hamiltonian for deviation in deviations)
            figures["hamiltonian_allowed_hartree"] = HAMILTONIAN_TOLERANCE_HARTREE
            figures["energy_hartree"] = max(deviation.energy for deviation in deviations)
            figures["energy_allowed_hartree"] = ENERGY_TOLERANCE_HARTREE
        with checks.check("warm_up") as figures:
            structure = warm_up_structure(predictor.card, predictor.checkpoint.golden)
            predictor.forward([predictor.prepare(structure)])
            figures["atoms"] = len(structure)
            if predictor.card.periodic:
                import_for_crystals()
        card = predictor.card
        seconds, form = time.perf_counter() - started, predictor.model.forward_form
        logger.info("loaded %s %s on %s (%s) in %.1f s", card.name, card.version, self.device, form, seconds)
        backend = self.build_backend(predictor, card.name)
        return LoadedModel(card.name, predictor, backend, tuple(checks.passed), print_of_files)

    def build_backend(self, predictor: Predictor, name: str) -> LocalBackend:
        """The backend of a model: the one place where they are made. All models share the threads of their device."""
        if self._worker is None:
            self._worker = DeviceWorker(self.device)
            if self.device == "cpu":  # where two passes run side by side; a GPU has them one after another
                self._large_workers = DeviceWorker("cpu-large"), DeviceWorker("cpu-huge")
        return LocalBackend(
            predictor,
            name=name,
            queue_limit=self._settings.queue_limit,
            worker=self._worker,
            large_workers=self._large_workers,
            batch_cost=self._settings.batch_cost,
            batch_wait_s=self._settings.batch_wait_ms / 1000.0,
            observer=self._observer,
        )

    def close(self) -> None:
        """End the threads of the device; all backends have been closed."""
        for worker in (self._worker, *(self._large_workers or ())):
            if worker is not None:
                worker.close()


def fingerprint(folder: Path) -> str | None:
    """SHA-256 over all files of a checkpoint that are loaded; None if one of them cannot be read."""
    from model.checkpoint import expectation, store

    try:
        names = [store.CARD, store.WEIGHTS, store.GOLDEN]
        names += [expectation.FILE] if (folder / expectation.FILE).exists() else []
        digests = [store.sha256_of(folder / name) for name in names]
    except OSError:
        return None
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def import_for_crystals() -> None:
    """Import now what paths and pictures import where they need it: half a second each, of the first caller else."""
    import ase.dft.kpoints  # noqa: F401

    with contextlib.suppress(ImportError):  # the extra ``pictures``
        import matplotlib.backends.backend_agg
        import matplotlib.figure  # noqa: F401


def warm_up_structure(card: Card, golden: Mapping[str, Any]) -> Structure:
    """A row of two or three like atoms that a model takes, whatever its charges and multiplicities; of a crystal's the first
    golden structure, since its tables and its support begin at distances of their own."""
    if card.periodic:
        from model.checkpoint.golden import golden_structure

        return golden_structure(golden["structures"][0])  # there is one: the self-test has seen to it
    possible = product(sorted(card.charges, key=abs), card.multiplicities, sorted(card.elements), (2, 3))
    charge, multiplicity, number, count = next(
        (charge, multiplicity, number, count)
        for charge, multiplicity, number, count in possible
        if (count * number - charge - multiplicity) % 2  # paired electrons and the unpaired ones
    )
    positions = WARM_UP_DISTANCE_ANGSTROM * np.arange(count)[:, None] * np.array([0.0, 0.0, 1.0])
    return Structure(np.array([number] * count), positions, charge, multiplicity)
