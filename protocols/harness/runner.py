"""Run a protocol over seeds: each seed is kept as soon as it is done, and is not computed again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from protocols.harness.outcome import SCHEMA, Column, MethodSummary, SeedOutcome, merge_rows, to_json
from protocols.harness.protocol import Protocol, Setting
from protocols.provenance import code_digest, commit, hardware, versions
from slots.errors import StorageError, UsageError
from slots.progress import Progress, silent
from slots.storage.atomic import write_file

PEER_LIBRARIES = ("scipy", "igraph", "faiss-cpu", "faiss-gpu", "cleanlab", "pytorch-ood", "avalanche-lib")


@dataclass(frozen=True)
class SeedRun:
    """One finished seed, and the seconds it took when it was computed."""

    seed: int
    elapsed_s: float
    outcome: SeedOutcome


@dataclass(frozen=True)
class Outcome:
    """A protocol's result over seeds, with all that is needed to repeat it.

    Parameters
    ----------
    protocol, title, about : str
        Name, heading and paragraph of the protocol.
    headline : str
        Key of the column that methods are ranked by.
    columns : sequence of Column
        Figures of each row, in the table's order.
    seeds : sequence of SeedRun
        What each seed gave, in the order of the seeds.
    command : str
        The line that makes it again.
    data, data_digest, backbone : str
        Name and digest of the data set, and what the features are.
    options : mapping
        All options in effect.
    versions, hardware : mapping
        Of Python and the packages that count, and the machine's processor and GPU.
    commit : str, optional
        Of the code, where it runs from a git checkout.
    findings : sequence of str
        Sentences about all seeds together; none by default.
    """

    protocol: str
    title: str
    about: str
    headline: str
    columns: Sequence[Column]
    seeds: Sequence[SeedRun]
    command: str
    data: str
    data_digest: str
    backbone: str
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    commit: str | None
    findings: Sequence[str] = ()

    @cached_property
    def rows(self) -> list[MethodSummary]:
        """Every method's mean and 95 % interval over the seeds."""
        return merge_rows([run.outcome for run in self.seeds], self.columns)

    @property
    def skipped(self) -> dict[str, str]:
        """Peers that were not run, and why."""
        return {name: why for run in self.seeds for name, why in run.outcome.skipped.items()}

    def as_json(self) -> dict[str, Any]:
        """The document of ``result.json``: this, each seed, and the means with their intervals."""
        seeds = [{"seed": run.seed, "elapsed_s": run.elapsed_s, "outcome": run.outcome.as_json()} for run in self.seeds]
        fields = {key: value for key, value in vars(self).items() if key not in ("columns", "seeds", "rows")}
        rows = [asdict(row) for row in self.rows]
        columns = [asdict(column) for column in self.columns]
        document: dict[str, Any] = to_json(
            {"schema": SCHEMA, **fields, "columns": columns, "rows": rows, "seeds": seeds}
        )
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Outcome:
        """The reverse of `as_json`."""
        fields = {key: value for key, value in document.items() if key not in ("schema", "rows", "columns", "seeds")}
        seeds = [SeedRun(it["seed"], it["elapsed_s"], SeedOutcome.from_json(it["outcome"])) for it in document["seeds"]]
        return cls(columns=[Column(**it) for it in document["columns"]], seeds=seeds, **fields)


def run(
    protocol: Protocol,
    setting: Setting,
    *,
    seeds: Sequence[int],
    out: Path,
    command: str,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Measure the seeds that have not been measured yet, and summarise all of them.

    Parameters
    ----------
    protocol : Protocol
        The claim to measure.
    setting : Setting
        Its options and peers are checked here.
    seeds : sequence of int
        One run for each; equal seeds give equal figures, times aside.
    out : Path
        Folder of the run. ``seeds/`` in it keeps one file a seed, which is used again only if the setting, the code
        and the versions are the same.
    command : str
        Recorded with the result.
    progress : callable, optional
        ``progress(step, share)``, told the progress over all seeds.
    stop : callable, optional
        Asked before each seed; true ends the run with the seeds that are done.

    Returns
    -------
    Outcome

    Raises
    ------
    UsageError
        If an option or peer is unknown, or no seed was finished.
    """
    check(protocol, setting)
    source = {"versions": versions(), "code": code_digest()}
    done = []
    for place, seed in enumerate(seeds):
        if stop is not None and stop():
            break
        path = out / "seeds" / f"{_key(protocol, setting, source)}-{seed}.json"
        found = _kept(path)
        if found is None:
            found = _run_one(protocol, setting, seed, _scaled(progress, place, len(seeds)))
            write_file(path, (json.dumps(_document(found), indent=1) + "\n").encode())
        done.append(found)
    if not done:
        raise UsageError("`seeds` must name at least one seed, got none that was finished. Let one run to its end.")
    return Outcome(
        protocol=protocol.name,
        title=protocol.title,
        about=protocol.about,
        headline=protocol.headline,
        columns=_used_columns(protocol.columns, done),
        seeds=done,
        command=command,
        data=_data_name(protocol, setting),
        data_digest=_data_digest(protocol, setting),
        backbone=_backbone_name(setting),
        options={**protocol.defaults, **setting.options},
        versions=_with_peers(versions()),
        hardware=hardware(setting.device),
        commit=commit(),
        findings=protocol.findings([it.outcome for it in done]),
    )


def check(protocol: Protocol, setting: Setting) -> None:
    """Refuse options and peers that the protocol does not know, before anything is computed.

    Raises
    ------
    UsageError
        With the name, what is known, and what to do.
    """
    for key, value in setting.options.items():
        if key not in protocol.defaults:
            known = ", ".join(protocol.defaults) or "left out"
            raise UsageError(f"`option` of {protocol.name} must be one of {known}, got {key!r}. Remove or rename it.")
        default = protocol.defaults[key]
        if not _fits(value, default):
            raise UsageError(
                f"`{key}` must be like its default {json.dumps(default)}, got {json.dumps(value)}. "
                f"Pass --option {key}={json.dumps(default)}."
            )
    unknown = [name for name in setting.peers if name not in protocol.peers]
    if unknown:
        raise UsageError(
            f"`peers` of {protocol.name} must be all, none or some of {', '.join(protocol.peers)}, "
            f"got {', '.join(unknown)}. Remove or rename them."
        )
    if not setting.data.has_labels:
        raise UsageError(f"`data` must have labels to measure with, got none in {setting.data.name!r}. Add y_test.")


def _fits(value: Any, default: Any) -> bool:
    """Whether a value has the type of the default."""
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, (list, tuple)):
        return isinstance(value, (list, tuple)) and all(_fits(it, default[0]) for it in value if len(default))
    return isinstance(value, type(default))


def _key(protocol: Protocol, setting: Setting, source: Mapping[str, Any]) -> str:
    """A name for all that decides a seed's result but the seed."""
    decides = [
        protocol.name,
        setting.data.digest,
        setting.backbone,
        _file_digest(setting.weights),
        _file_digest(setting.model),
        sorted(setting.peers),
        {**protocol.defaults, **setting.options},
        setting.device,
        source,
        *(_file_digest(path) for path in protocol.files(setting)),
    ]
    return hashlib.sha256(json.dumps(to_json(decides), sort_keys=True).encode()).hexdigest()[:12]


def _data_name(protocol: Protocol, setting: Setting) -> str:
    """The data set, and how many files are read beside it."""
    more = len(protocol.files(setting))
    return setting.data.name + (f" and {more} more" if more else "")


def _data_digest(protocol: Protocol, setting: Setting) -> str:
    """Digest of the data set, and of the files that are read beside it."""
    digests = [setting.data.digest, *(str(_file_digest(path)) for path in protocol.files(setting))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _file_digest(path: str | Path | None) -> str | None:
    """Content of a file or folder as a digest; the word itself where it is none."""
    if path is None or not Path(path).exists():
        return None if path is None else str(path)
    files = [Path(path)] if Path(path).is_file() else sorted(it for it in Path(path).rglob("*") if it.is_file())
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.read_bytes())
    return sha.hexdigest()


def _kept(path: Path) -> SeedRun | None:
    """A seed that was finished before."""
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text())
        return SeedRun(document["seed"], document["elapsed_s"], SeedOutcome.from_json(document["outcome"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"`{path}` must be a finished seed, got damaged content. Remove the file.") from error


def _document(done: SeedRun) -> dict[str, Any]:
    return {"schema": SCHEMA, "seed": done.seed, "elapsed_s": done.elapsed_s, "outcome": done.outcome.as_json()}


def _run_one(protocol: Protocol, setting: Setting, seed: int, progress: Progress) -> SeedRun:
    """Compute one seed."""
    started = time.monotonic()
    outcome = protocol.run_seed(setting, seed, progress)
    # Through JSON and back, so that a fresh result and a kept one are the same to the last digit.
    same = SeedOutcome.from_json(json.loads(json.dumps(outcome.as_json())))
    return SeedRun(seed, round(time.monotonic() - started, 2), same)


def _scaled(progress: Progress | None, place: int, n: int) -> Progress:
    """The progress of one seed as part of all."""
    if progress is None:
        return silent
    return lambda step, share: progress(f"seed {place + 1} of {n}: {step}", (place + min(1.0, share)) / n)


def _used_columns(columns: Sequence[Column], done: Sequence[SeedRun]) -> list[Column]:
    """Columns in which anything was measured."""
    used = {key for it in done for row in it.outcome.rows for key, value in row.figures.items() if value is not None}
    return [column for column in columns if column.key in used]


def _backbone_name(setting: Setting) -> str:
    """How the features are called in a result; no path."""
    if setting.model is not None:
        return f"model {setting.model.name}"
    return setting.backbone + (f" ({Path(setting.weights).name})" if setting.weights else "")


def _with_peers(base: Mapping[str, str]) -> dict[str, str]:
    """The versions with those of the peers' libraries that are there."""
    found = versions(*PEER_LIBRARIES)
    return {**base, **{name: found[name] for name in PEER_LIBRARIES if found[name] != "not installed"}}
