"""``slots doctor``: whether the installation is sound."""

from __future__ import annotations

from pathlib import Path

import typer

from protocols.commands.options import AsJson, DataDir
from protocols.commands.terminal import print_json, say, say_next


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Check the installation: clashing packages, devices, folders. Exits with 1 if something needs mending."""
    from dataclasses import asdict

    from protocols.app.doctor import diagnose

    findings = diagnose(data_dir=data_dir or _usual_data_dir())
    if as_json:
        print_json({"ok": all(f.ok for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            say(f"{'ok ' if finding.ok else 'BAD'} {finding.name}: {finding.message}")
            if not finding.ok and finding.fix:
                say(f"      {finding.fix}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
    if not as_json:
        say_next("fit", "--data", "digits")


def _usual_data_dir() -> Path | None:
    """Folder of the data sets; None where another's ``slots`` keeps our packages from being imported."""
    try:
        from protocols.data.loading import default_data_dir
    except ImportError:
        return None
    return default_data_dir()
