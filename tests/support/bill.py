"""The bill of materials of the installed environment, as CycloneDX 1.6 (`make sbom`).

    python tests/support/bill.py --wheel dist/neural_slots-0.1.0-py3-none-any.whl --out dist/neural-slots.cdx.json
    python tests/support/bill.py --validate dist/neural-slots.cdx.json    # with cyclonedx-python-lib

`required` are the packages that the library needs, `optional` those of an extra that a user runs, `excluded` those that
only test it or are compared with it. The time of SOURCE_DATE_EPOCH, where it is set, makes the file repeat to the byte.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import sysconfig
import time
import uuid
from collections.abc import Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from packaging.utils import canonicalize_name
from support.installed import OURS, SHIPPED, expression, installed, licence, needs, scopes, version


def purl(name: str, distribution: Distribution) -> str:
    """The package's address among all packages."""
    return f"pkg:pypi/{name}@{version(distribution)}"


def component(name: str, distribution: Distribution, scope: str | None) -> dict[str, Any]:
    """One package."""
    address = purl(name, distribution)
    made = {"type": "library", "bom-ref": address, "name": name, "version": version(distribution), "purl": address}
    if scope:
        made["scope"] = scope
    named = licence(distribution)
    if spdx := expression(named):
        made["licenses"] = [{"expression": spdx}]
    elif named:
        made["licenses"] = [{"license": {"name": named}}]
    return made


def bill(found: Mapping[str, Distribution], wheel: Path | None = None) -> dict[str, Any]:
    """All of them, with what each needs; the digest of our wheel where it is given."""
    product = component(OURS, found[OURS], None)
    if wheel:
        product["hashes"] = [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}]
    components = [component(name, found[name], scope) for name, scope in sorted(scopes(found).items())]
    edges = []
    for name, distribution in sorted(found.items()):
        wanted = needs(distribution, SHIPPED if name == OURS else ())
        there = {canonicalize_name(it.name) for it in wanted} & found.keys()
        edges.append({"ref": purl(name, distribution), "dependsOn": sorted(purl(it, found[it]) for it in there)})
    stamp = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    body = {
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stamp)),
            "component": product,
            "properties": [
                {"name": "neural-slots:python", "value": platform.python_version()},
                {"name": "neural-slots:platform", "value": sysconfig.get_platform()},
            ],
        },
        "components": components,
        "dependencies": edges,
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(body, sort_keys=True))
    head = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
    }
    return {**head, "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def validate(path: Path) -> None:
    """Hold a file against CycloneDX's own schema, at its strictest."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text())
    if problem is not None:
        raise SystemExit(f"{path} is no CycloneDX 1.6: {problem}")
    sys.stdout.write(f"{path}: {len(json.loads(path.read_text())['components'])} packages, valid CycloneDX 1.6.\n")


def main() -> None:
    """Write one, or validate one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="our wheel, whose digest is written down")
    parser.add_argument("--out", type=Path, help="where to write it")
    parser.add_argument("--validate", type=Path, metavar="FILE", help="hold FILE against the schema")
    asked = parser.parse_args()
    if asked.validate:
        validate(asked.validate)
        return
    found = installed([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(bill(found, asked.wheel), indent=2) + "\n")


if __name__ == "__main__":
    main()
