"""A client that others generate from docs/openapi.json can be imported and used for the JSON routes, as it comes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.contract.waiting import wait_until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"
PACKAGE = "generated_tracegrad_client"
FILE = {"kind": "file", "format": "extxyz", "text": "2\ncharge=2\nC 0 0 0\nO 0 0 1.1\n"}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("generated")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(DOCUMENT), "--meta", "none"]
    done = subprocess.run(
        [*command, "--output-path", str(folder / PACKAGE)], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    # what it cannot read, it leaves out: that may be the chemical content types, and nothing else
    left_out = [line for line in done.stdout.splitlines() if line.startswith(("Unsupported", "Cannot", "Invalid"))]
    assert all(line.startswith("Unsupported content type chemical/") for line in left_out), left_out
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def api(generated: ModuleType, client: httpx.Client) -> Iterator[Any]:
    """module name, arguments -> what the generated function of that operation returns."""
    with generated.Client(base_url=str(client.base_url), httpx_args={"trust_env": False}) as connection:

        def call(operation: str, **arguments: Any) -> Any:
            module = importlib.import_module(f"{PACKAGE}.api.{operation}")
            return module.sync(client=connection, **arguments)

        yield call


@pytest.fixture
def model_of(generated: ModuleType) -> Any:
    models = importlib.import_module(f"{PACKAGE}.models")
    return lambda name, values: getattr(models, name).from_dict(values)


@pytest.mark.parametrize(
    ("operation", "request_model"), [("predict", "PredictRequest"), ("initial_guess", "GuessRequest")]
)
def test_a_structure_is_answered(api, model_of, water, client, operation, request_model):
    answer = api(f"structures.{operation}", body=model_of(request_model, water))
    direct = client.post(f"/v1/{operation.replace('_', '-')}", json=water).json()
    assert answer.meta.model == direct["meta"]["model"]
    assert answer.results.orbital_energies == direct["results"]["orbital_energies"]
    assert answer.defaults_applied == direct["defaults_applied"], "it sends no option that its caller did not give"


def test_it_does_not_contradict_what_a_file_states(api, model_of):
    problem = api("structures.predict", body=model_of("PredictRequest", {"structure": FILE}))
    assert problem.code == "unsupported_charge", "the charge of the file was used"


def test_a_batch_is_answered(api, model_of, water):
    answer = api("structures.predict_batch", body=model_of("BatchRequest", {"structures": [water["structure"], FILE]}))
    assert (answer.meta.succeeded, [item.status for item in answer.items]) == (1, [200, 422])
    assert answer.items[0].answer.results.gap > 0


def test_a_job_runs_to_its_result(api, model_of, water):
    job = api("jobs.submit_job", body=model_of("JobSubmission", {**water, "kind": "initial-guess"}))
    wait_until(lambda: api("jobs.show_job", id=job.id).state == "done")
    assert api("jobs.job_result", id=job.id).results.density_matrix
    api("jobs.delete_job", id=job.id)
    assert api("jobs.show_job", id=job.id).code == "unknown_job"


def test_models_and_health_are_read(api, predictor):
    listed = api("models.list_models")
    assert listed.default.to_dict() == {"molecules": predictor.card.name, "crystals": None}
    assert [card["name"] for card in listed.models] == [predictor.card.name]
    assert api("models.show_model", name="no-such-model").code == "unknown_model"
    assert (api("health.live").status, api("health.ready").status) == ("alive", "ready")


def test_the_names_of_its_functions_do_not_change():
    operations = {
        operation["operationId"]
        for path in json.loads(DOCUMENT.read_bytes())["paths"].values()
        for operation in path.values()
    }
    assert operations == {
        "predict", "predict_batch", "bands", "dos", "evaluate", "initial_guess",
        "submit_job", "show_job", "job_result", "delete_job", "list_models",
        "show_model", "load_model", "unload_model", "live", "ready", "metrics",
    }  # fmt: skip
