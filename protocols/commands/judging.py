"""``slots ood`` and ``doctor``: which inputs are foreign, and whether the installation is sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocols.commands.options import AsJson, Data, DataDir, Device, Model, load, part_of
from protocols.terminal import print_json

if TYPE_CHECKING:
    pass


def ood(
    model: Model,
    data: Data,
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    false_alarm_rate: Annotated[
        float, typer.Option(help="Largest share of inputs like the training data that may be called novel.")
    ] = 0.05,
    calibrate: Annotated[
        str | None, typer.Option(help="Familiar data the model never saw, to calibrate on instead of the fit's own.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the CSV there instead of to stdout.")] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Say of each input how novel it is: score, p-value, decision, nearest slot and reason, one CSV line each."""
    from protocols.fitting import load_model
    from protocols.ood import assess_inputs, novelty_csv, novelty_json
    from slots.store import write_file

    loaded = load_model(model, device=device)
    x = part_of(load(data, data_dir, loaded), part)[0]
    familiar = None if calibrate is None else part_of(load(calibrate, data_dir, loaded), "test")[0]
    found = assess_inputs(loaded, x, false_alarm_rate=false_alarm_rate, familiar=familiar)
    flagged = f"{found.novel.sum()} of {len(found)} inputs are novel at a false-alarm rate of {false_alarm_rate:g}."
    if as_json:
        print_json({"model": str(model), **novelty_json(loaded, found, false_alarm_rate=false_alarm_rate)})
    elif out is not None:
        write_file(out, novelty_csv(loaded, found).encode())
        typer.echo(f"{flagged} Scores: {out}")
    else:
        typer.echo(novelty_csv(loaded, found), nl=False)
        typer.echo(flagged, err=True)


def doctor(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Check the installation: clashing packages, devices, folders. Exits with 1 if something needs mending."""
    from dataclasses import asdict

    from protocols.data import default_data_dir
    from slots.doctor import diagnose

    findings = diagnose(data_dir=data_dir or default_data_dir())
    if as_json:
        print_json({"ok": all(f.ok for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        for finding in findings:
            typer.echo(f"{'ok ' if finding.ok else 'BAD'} {finding.name}: {finding.message}")
            if not finding.ok and finding.fix:
                typer.echo(f"      {finding.fix}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
