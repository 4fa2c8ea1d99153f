"""The distributions of an environment: their licences, what they need, who needs them, whether they are whole."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "neural-slots"
SHIPPED = ("faiss-cpu", "faiss-gpu", "text", "parquet", "serve")  # extras that a user runs; the others test and compare
# `postgres` is run by users too; its driver is under the LGPL, comes with no other extra, and is imported, not bundled.
# Metadata without a licence; read by hand on the publisher's page of exactly this distribution.
READ_BY_HAND = {"cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}
BLOCK = 1 << 20


def installed(folders: Iterable[str]) -> dict[str, Distribution]:
    """What lies in these folders (purelib and platlib), by the name that packaging makes of it."""
    found = distributions(path=sorted(set(folders)))
    return {canonicalize_name(it.metadata["Name"]): it for it in found}


def version(distribution: Distribution) -> str:
    """The version without the mark of a build (`2.9.0+cpu`)."""
    return distribution.version.split("+")[0]


def needs(distribution: Distribution, extras: Iterable[str] = ()) -> list[Requirement]:
    """The requirements that count on this machine with these extras."""
    asked = [Requirement(line) for line in distribution.requires or []]
    return [it for it in asked if it.marker is None or any(it.marker.evaluate({"extra": e}) for e in ("", *extras))]


def reached(found: Mapping[str, Distribution], extras: Iterable[str] = ()) -> set[str]:
    """Names of what `neural-slots` with these extras needs, and what that needs."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(OURS, frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        if name in found and (name, wanted) not in seen:
            seen.add((name, wanted))
            waiting += [(canonicalize_name(it.name), frozenset(it.extras)) for it in needs(found[name], wanted)]
    return {name for name, _ in seen} - {OURS}


def scopes(found: Mapping[str, Distribution]) -> dict[str, str]:
    """CycloneDX's word for each: `required`, `optional` (an extra that users run), `excluded` (tests, comparisons)."""
    required, shipped = reached(found), reached(found, SHIPPED)
    return {
        name: "required" if name in required else "optional" if name in shipped else "excluded"
        for name in found
        if name != OURS
    }


def expression(text: str | None) -> str | None:
    """The SPDX expression that a text is, if it is one."""
    try:
        return canonicalize_license_expression(text) if text else None
    except InvalidLicenseExpression:
        return None


def licence(distribution: Distribution) -> str | None:
    """The licence as an SPDX expression where the metadata has one, otherwise by the name given; None where none is."""
    metadata = distribution.metadata
    told = metadata.get("License") or ""
    classified = [it.split(" :: ")[-1] for it in metadata.get_all("Classifier") or [] if it.startswith("License ::")]
    return (
        expression(metadata.get("License-Expression"))
        or expression(told)
        or READ_BY_HAND.get(canonicalize_name(metadata["Name"]))
        or " and ".join(it for it in classified if it != "OSI Approved")
        or heading(told)
        or next((it for file in metadata.get_all("License-File") or [] if (it := titled(distribution, file))), None)
    )


def heading(text: str) -> str | None:
    """The first line that says something, unless that is that nothing is known."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return first if re.search(r"[A-Za-z]{2}", first) and first.upper() != "UNKNOWN" else None


def titled(distribution: Distribution, file: str) -> str | None:
    """The title of a licence's text, where it begins with one, as `MIT License` does."""
    text = distribution.read_text(f"licenses/{file}") or distribution.read_text(file) or ""
    title = heading(text)
    return title if title and re.fullmatch(r"[\w .,-]*Licen[cs]e\b[\w .,-]*", title) else None


def damaged(distribution: Distribution) -> list[str]:
    """Files that are missing or not as the wheel's RECORD says; the name of the RECORD where there is none."""
    files = distribution.files
    if files is None:
        return ["RECORD"]
    return [str(file) for file in files if file.hash and not _whole(file.locate(), file.hash.mode, file.hash.value)]


def _whole(path: object, mode: str, value: str) -> bool:
    digest = hashlib.new(mode)
    try:
        with open(str(path), "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() == value
