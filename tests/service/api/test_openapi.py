"""The API's description: committed as it is, and no change of it breaks a client unseen."""

import contextlib
import copy
import json
import sys
from pathlib import Path

import pytest
from support.openapi_changes import breaking
from typer.testing import CliRunner

import protocols.service.running
from protocols.commands.app import app
from protocols.service.application import api_description

DOCS = Path(__file__).parents[3] / "docs"
REGENERATE = "slots serve --openapi > docs/openapi.json"


@pytest.fixture(scope="module")
def committed():
    return json.loads((DOCS / "openapi.json").read_text())


def test_no_client_of_the_released_description_breaks():
    """That of the last release stays as it was, so that a description made anew does not hide what is gone."""
    released = json.loads((DOCS / "openapi-released.json").read_text())
    assert breaking(released, api_description()) == [], (
        "Keep what clients use until a release that says in CHANGELOG.md what breaks."
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


def _schema(document, name):
    return document["components"]["schemas"][name]


def _parameters(document, path, method="get"):
    return document["paths"][path][method].setdefault("parameters", [])


def _parameter(document, path, name, method="get"):
    return next(it for it in _parameters(document, path, method) if it["name"] == name)


MODEL = "/api/v1/models/{model}"
CHANGES = {
    "removed path": (lambda it: it["paths"].pop("/api/v1/jobs"), "GET /api/v1/jobs is gone"),
    "removed operation": (
        lambda it: it["paths"]["/api/v1/jobs/{number}"].pop("delete"), "DELETE /api/v1/jobs/{number} is gone",
    ),
    "removed field of an answer": (
        lambda it: _schema(it, "OneAnswer")["properties"].pop("slot"),
        f"POST {MODEL}/predict: the answer.answers[].slot is gone",
    ),
    "field of an answer that may be missing": (
        lambda it: _schema(it, "OneAnswer")["required"].remove("slot"),
        f"POST {MODEL}/predict: the answer.answers[].slot may be missing now",
    ),
    "another type in an answer": (
        lambda it: _schema(it, "OneAnswer")["properties"]["slot"].update(type="string"),
        f"POST {MODEL}/predict: the answer.answers[].slot was integer and is string",
    ),
    "null in an answer": (
        lambda it: _schema(it, "OneAnswer")["properties"]["slot"].update(type=["integer", "null"]),
        f"POST {MODEL}/predict: the answer.answers[].slot was integer and is integer|null",
    ),
    "value that is no longer answered": (
        lambda it: _schema(it, "OneAnswer")["properties"]["answer"]["enum"].remove("ambiguous"),
        f"POST {MODEL}/predict: the answer.answers[].answer no longer answers 'ambiguous'",
    ),
    "field of a problem": (
        lambda it: _schema(it, "Problem")["properties"].pop("detail"),
        "GET /api/v1/models: the answer 4XX.detail is gone",
    ),
    "another status": (
        lambda it: it["paths"]["/api/v1/keys"]["post"]["responses"].update(
            {"200": it["paths"]["/api/v1/keys"]["post"]["responses"].pop("201")}
        ),
        "POST /api/v1/keys: it no longer answers 201",
    ),
    "another media type": (
        lambda it: it["paths"]["/api/v1/models"]["get"]["responses"]["200"].update(content={"text/csv": {}}),
        "GET /api/v1/models: it no longer answers application/json",
    ),
    "required parameter": (
        lambda it: _parameters(it, "/api/v1/models").append({"in": "query", "name": "must", "required": True}),
        "GET /api/v1/models: the query parameter must is required now",
    ),
    "parameter that is required now": (
        lambda it: _parameter(it, f"{MODEL}/drift", "step").update(required=True),
        f"GET {MODEL}/drift: the query parameter step is required now",
    ),
    "removed parameter": (
        lambda it: _parameters(it, f"{MODEL}/drift").remove(_parameter(it, f"{MODEL}/drift", "step")),
        f"GET {MODEL}/drift: the query parameter step is gone",
    ),
    "parameter of another type": (
        lambda it: _parameter(it, f"{MODEL}/predict", "rate", "post").update(schema={"type": "string"}),
        f"POST {MODEL}/predict: the query parameter rate was null|number and is string",
    ),
    "parameter with a narrower bound": (
        lambda it: _parameter(it, f"{MODEL}/predict", "model", "post")["schema"].update(maxLength=64),
        f"POST {MODEL}/predict: the path parameter model has maxLength 64 now",
    ),
    "required field of a body": (
        lambda it: _schema(it, "UpdateOrder").update(required=["spread"]),
        f"POST {MODEL}/updates: the body.spread is required now",
    ),
    "removed field of a body": (
        lambda it: _schema(it, "UpdateOrder")["properties"].pop("budget"),
        f"POST {MODEL}/updates: the body.budget is gone",
    ),
    "value that is no longer taken": (
        lambda it: _schema(it, "EditOrder")["properties"]["what"]["enum"].remove("merge"),
        f"POST {MODEL}/edits: the body.what no longer takes 'merge'",
    ),
    "one of two forms of a body": (
        lambda it: _schema(it, "Inputs")["properties"]["inputs"]["anyOf"].pop(),
        f"POST {MODEL}/predict: the body.inputs[] was string and is array",
    ),
    "a body that must be sent": (
        lambda it: it["paths"]["/api/v1/models"]["get"].update(requestBody={"required": True, "content": {}}),
        "GET /api/v1/models: a body is required now",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_breaks_clients_is_named(committed, name):
    change, sentence = CHANGES[name]
    changed = copy.deepcopy(committed)
    change(changed)
    assert sentence in breaking(committed, changed)


ADDITIONS = {
    "path": lambda it: it["paths"].update({"/api/v1/new": {"get": {"responses": {"200": {"description": "new"}}}}}),
    "operation": lambda it: it["paths"]["/api/v1/models"].update(put={"responses": {"200": {"description": "new"}}}),
    "field of an answer": lambda it: _schema(it, "OneAnswer")["properties"].update(more={"type": "string"}),
    "required field of an answer": lambda it: (
        _schema(it, "OneAnswer")["properties"].update(more={"type": "string"}),
        _schema(it, "OneAnswer")["required"].append("more"),
    ),
    "never null in an answer": lambda it: _schema(it, "OneAnswer")["properties"].update(margin={"type": "number"}),
    "parameter": lambda it: _parameters(it, "/api/v1/models").append({"in": "query", "name": "may"}),
    "field of a body": lambda it: _schema(it, "UpdateOrder")["properties"].update(more={"type": "string"}),
    "null in a body": lambda it: _schema(it, "UpdateOrder")["properties"].update(
        spread={"anyOf": [{"type": "null"}, {"type": "boolean"}]}
    ),
    "value that is taken": lambda it: _schema(it, "EditOrder")["properties"]["what"]["enum"].append("split"),
    "form of a body": lambda it: _schema(it, "Inputs")["properties"]["inputs"]["anyOf"].insert(
        0, {"type": "array", "items": {"type": "boolean"}}
    ),
    "wider bound": lambda it: _parameter(it, f"{MODEL}/predict", "model", "post")["schema"].update(maxLength=256),
    "schema of another name": lambda it: it.update(json.loads(json.dumps(it).replace("OneAnswer", "Answered"))),
    "description": lambda it: _schema(it, "OneAnswer").update(description="In other words."),
}


@pytest.mark.parametrize("name", ADDITIONS)
def test_what_is_added_breaks_nobody(committed, name):
    changed = copy.deepcopy(committed)
    ADDITIONS[name](changed)
    assert changed != committed
    assert breaking(committed, changed) == []


def test_the_command_prints_the_description(committed):
    done = CliRunner().invoke(app, ["serve", "--openapi"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["paths"].keys() == committed["paths"].keys()


def test_what_serving_imports_is_left_out_by_the_garbage_collector(monkeypatch):
    """Else a service starts a second and a half later (`benchmarks/service_start.py`)."""
    opened = []

    @contextlib.contextmanager
    def lasting():
        opened.append("protocols.service.running" in sys.modules)
        yield
        opened.append("protocols.service.running" in sys.modules)

    monkeypatch.setattr("slots.importing.lasting", lasting)
    monkeypatch.setattr(protocols.service, "running", protocols.service.running)  # to be put back as it was
    monkeypatch.delitem(sys.modules, "protocols.service.running")
    assert CliRunner().invoke(app, ["serve", "--openapi"]).exit_code == 0
    assert opened == [False, True]
