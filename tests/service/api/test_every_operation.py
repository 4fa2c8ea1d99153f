"""Whatever a client sends: an answer that the API's description knows, and no internal error (schemathesis)."""

import json
import os
import shutil

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks
from support.service import rows, running
from support.small_keys import keyed

from protocols.service.application import api_description

EXAMPLES = int(os.environ.get("SLOTS_FUZZ_EXAMPLES", "4"))
"""Requests an operation; `make fuzz-api` sends more, and others each time."""

SEED_FIXED = "SLOTS_FUZZ_EXAMPLES" not in os.environ

schema = schemathesis.openapi.from_dict(api_description())
# Streams of events go on until somebody ends them; their own tests read them.
schema = schema.exclude(path_regex=r"/events/stream$|/jobs/\{number\}/events$")


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.serializer("application/x-tar")
def archive(_context, value):
    return getattr(value, "data", value)


CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)


@pytest.fixture(scope="module")
def asked(small, tmp_path_factory):
    """A service with a key, items, and a query list's worth of what nobody matched."""
    folder = tmp_path_factory.mktemp("asked")
    own, data = shutil.copytree(small, folder / "own"), folder / "data"
    with running(own, data) as client:
        x, _ = rows(40, 3, classes=4)
        client.post("/api/v1/models/small/items", json={"inputs": x.tolist(), "store": "all"}).raise_for_status()
    secret = keyed(data)
    with running(own, data) as client:
        yield str(client.base_url), {"Authorization": f"Bearer {secret}"}


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=SEED_FIXED,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_described(case, asked):
    address, headers = asked
    if "model" in case.path_parameters and case.path_parameters["model"] != "none":
        case.path_parameters["model"] = "small"  # an unknown one is 404 everywhere, and asks nothing further
    case.call_and_validate(base_url=address, headers=headers, checks=CHECKS)
