"""The bill of materials of what is installed is complete, true to CycloneDX, and repeats."""

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
from support import bill
from support.installed import installed
from support.sites import small_site

ROOT = Path(__file__).parent.parent
OWN = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
TOOLS = ROOT / ".tools" / "bin" / "python"
SAME_BUILD = pytest.mark.skipif(os.environ.get("SLOTS_TEST_WHEEL") != "1", reason="only `make test` installs the pins")
SCHEMA = {  # the parts of CycloneDX 1.6 that we write; `make sbom` holds the file against the whole schema
    "type": "object",
    "additionalProperties": False,
    "required": ["bomFormat", "specVersion", "serialNumber", "version", "metadata", "components", "dependencies"],
    "properties": {
        "$schema": {"type": "string"},
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "serialNumber": {"pattern": "^urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        "version": {"const": 1},
        "metadata": {"type": "object", "required": ["timestamp", "component", "properties"]},
        "components": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/$defs/component"}},
        "dependencies": {
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["ref", "dependsOn"],
                "properties": {"ref": {"type": "string"}, "dependsOn": {"type": "array", "uniqueItems": True}},
            }
        },
    },
    "$defs": {
        "component": {
            "type": "object",
            "additionalProperties": False,
            "required": ["type", "bom-ref", "name", "version", "purl", "scope", "licenses"],
            "properties": {
                "type": {"const": "library"},
                "bom-ref": {"type": "string"},
                "name": {"pattern": "^[a-z0-9-]+$"},
                "version": {"pattern": "^[0-9][A-Za-z0-9.]*$"},
                "purl": {"pattern": "^pkg:pypi/[a-z0-9-]+@[0-9][A-Za-z0-9.]*$"},
                "scope": {"enum": ["required", "optional", "excluded"]},
                "licenses": {"type": "array", "minItems": 1, "maxItems": 1},
            },
        }
    },
}


@pytest.fixture
def site(tmp_path):
    return small_site(tmp_path)


def test_the_bill_names_everything_once_and_each_edge_leads_somewhere(site, tmp_path):
    made = bill.bill(installed([str(site)]))
    jsonschema.validate(made, SCHEMA)
    refs = {it["bom-ref"] for it in made["components"]} | {made["metadata"]["component"]["bom-ref"]}
    assert len(refs) == 6
    edges = {it["ref"]: set(it["dependsOn"]) for it in made["dependencies"]}
    assert set(edges) == refs
    assert set().union(*edges.values()) <= refs
    assert edges["pkg:pypi/neural-slots@1.0"] == {"pkg:pypi/tensors@2.1", "pkg:pypi/web-server@1.0"}
    licences = {it["name"]: it["licenses"][0] for it in made["components"]}
    assert licences["tensors"] == {"expression": "BSD-3-Clause"}
    assert licences["quick"] == {"license": {"name": "MIT License"}}


def test_the_bill_has_the_digest_of_the_wheel_and_repeats(site, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "ours.whl").write_bytes(b"a wheel")
    found = installed([str(site)])
    made = bill.bill(found, tmp_path / "ours.whl")
    (digest,) = made["metadata"]["component"]["hashes"]
    assert digest == {"alg": "SHA-256", "content": hashlib.sha256(b"a wheel").hexdigest()}
    assert made["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    assert made == bill.bill(found, tmp_path / "ours.whl")
    assert made["serialNumber"] != bill.bill(found)["serialNumber"]


@SAME_BUILD
def test_the_bill_of_this_environment(tmp_path):
    path = tmp_path / "bill.json"
    command = [sys.executable, str(ROOT / "tests/support/bill.py"), "--out", str(path)]
    subprocess.run(command, check=True)
    made = json.loads(path.read_text())
    jsonschema.validate(made, SCHEMA)
    scope = {it["name"]: it["scope"] for it in made["components"]}
    assert (scope["torch"], scope["fastapi"], scope["pytest"]) == ("required", "optional", "excluded")
    assert len(scope) == len({it.metadata["Name"] for it in metadata.distributions(path=OWN)}) - 1


@pytest.mark.skipif(not TOOLS.exists(), reason="`make sbom` installs CycloneDX's schema")
def test_cyclonedx_finds_it_valid_and_an_invented_scope_not(site, tmp_path):
    made = bill.bill(installed([str(site)]))
    command = [TOOLS, ROOT / "tests/support/bill.py", "--validate", tmp_path / "bill.json"]
    (tmp_path / "bill.json").write_text(json.dumps(made))
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    made["components"][0]["scope"] = "perhaps"
    (tmp_path / "bill.json").write_text(json.dumps(made))
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is no CycloneDX 1.6" in done.stderr
