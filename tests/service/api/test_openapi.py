"""The API's description: committed as it is, and no change of it breaks a client unseen."""

import copy
import json
from pathlib import Path

import pytest
from support.openapi_changes import breaking
from typer.testing import CliRunner

from protocols.commands.app import app
from protocols.service.application import api_description

COMMITTED = Path(__file__).parents[3] / "docs" / "openapi.json"
REGENERATE = "slots serve --openapi > docs/openapi.json"


@pytest.fixture(scope="module")
def committed():
    return json.loads(COMMITTED.read_text())


def test_no_client_of_the_committed_description_breaks(committed):
    assert breaking(committed, api_description()) == [], (
        f"Keep what clients use; or, where it must go, say so in CHANGELOG.md and: {REGENERATE}"
    )


def test_the_committed_description_is_that_of_the_service(committed):
    made = json.loads(json.dumps(api_description()))
    committed["info"]["version"] = made["info"]["version"]
    assert made == committed, f"The API has changed. Look at the difference after: {REGENERATE}"


def test_every_error_is_described_as_it_looks(committed):
    for path, operations in committed["paths"].items():
        for operation in operations.values():
            (media,) = operation["responses"]["4XX"]["content"]
            assert media == ("application/json" if path.startswith("/v2") else "application/problem+json")
            assert "422" not in operation["responses"]


CHANGES = {
    "removed path": (lambda it: it["paths"].pop("/api/v1/jobs"), "GET /api/v1/jobs is gone"),
    "removed operation": (
        lambda it: it["paths"]["/api/v1/jobs/{number}"].pop("delete"), "DELETE /api/v1/jobs/{number} is gone",
    ),
    "removed field of an answer": (
        lambda it: it["components"]["schemas"]["OneAnswer"]["properties"].pop("slot"),
        "POST /api/v1/models/{model}/predict: the answer.answers[].slot is gone",
    ),
    "another type": (
        lambda it: it["components"]["schemas"]["OneAnswer"]["properties"]["slot"].update(type="string"),
        "POST /api/v1/models/{model}/predict: the answer.answers[].slot was integer and is string",
    ),
    "required parameter": (
        lambda it: it["paths"]["/api/v1/models"]["get"].setdefault("parameters", []).append(
            {"in": "query", "name": "must", "required": True}
        ),
        "GET /api/v1/models: the query parameter must is required now",
    ),
    "removed parameter": (
        lambda it: it["paths"]["/api/v1/models/{model}/drift"]["get"]["parameters"].pop(),
        "GET /api/v1/models/{model}/drift: the query parameter step is gone",
    ),
    "required field of a body": (
        lambda it: it["components"]["schemas"]["UpdateOrder"].update(required=["spread"]),
        "POST /api/v1/models/{model}/updates: the body.spread is required now",
    ),
    "another status": (
        lambda it: it["paths"]["/api/v1/keys"]["post"]["responses"].update(
            {"200": it["paths"]["/api/v1/keys"]["post"]["responses"].pop("201")}
        ),
        "POST /api/v1/keys: it no longer answers 201",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_breaks_clients_is_named(committed, name):
    change, sentence = CHANGES[name]
    changed = copy.deepcopy(committed)
    change(changed)
    assert sentence in breaking(committed, changed)


def test_what_is_added_breaks_nobody(committed):
    changed = copy.deepcopy(committed)
    changed["paths"]["/api/v1/new"] = {"get": {"responses": {"200": {"description": "new"}}}}
    changed["components"]["schemas"]["OneAnswer"]["properties"]["more"] = {"type": "string"}
    changed["paths"]["/api/v1/models"]["get"].setdefault("parameters", []).append({"in": "query", "name": "may"})
    assert breaking(committed, changed) == []


def test_the_command_prints_the_description(committed):
    done = CliRunner().invoke(app, ["serve", "--openapi"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["paths"].keys() == committed["paths"].keys()
