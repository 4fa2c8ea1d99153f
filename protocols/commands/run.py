"""``slots run``: a protocol over seeds, beside peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protocols.commands.options import DATA, AsJson, DataDir, Device, LabelColumn, TextColumn, load, usage
from protocols.commands.terminal import print_json, print_table, progress_bar, remark, say, stop_on_signal


def run(
    protocol: Annotated[
        str,
        typer.Argument(
            help="slot-update, continual, unsupervised, ood, label-errors, adversarial, robustness, lifetime or "
            "transfer."
        ),
    ],
    data: Annotated[str | None, typer.Option(help=f"{DATA} transfer: left out, or one more data set.")] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The features that all methods see: pixels, cnn, explor, ..., cifar_resnet20; none for feature rows. "
            "Default: the protocol's."
        ),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of a frozen network.")] = None,
    model: Annotated[
        Path | None, typer.Option(help="Take the features of this fitted model instead of a backbone's.")
    ] = None,
    peers: Annotated[str, typer.Option(help="all, none, or some of the protocol's peers with commas.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="Runs with seeds 0, 1, ...; intervals need two or more.")] = 3,
    option: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE, an option of the protocol, e.g. budgets=[50,100]. May be given several times."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: runs/PROTOCOL-DATA-BACKBONE.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a claim beside what a user would pick instead: same features, same splits, several seeds.

    Writes result.json, result.md and report.html. A seed that is done is kept: run again to go on after a stop.
    """
    from protocols.harness.page import write_files
    from protocols.harness.runner import run as run_protocol
    from protocols.harness.setting import make_setting
    from protocols.harness.tables import groups, notes, terminal_rows
    from protocols.provenance import command_line
    from protocols.recipes.planning import cut_of
    from protocols.runs.catalogue import find_protocol

    chosen = find_protocol(protocol)
    source = data or chosen.default_data
    if not source:
        raise usage(f"`--data` must be given for {protocol}, got none. Pass --data digits.")
    size, crop = cut_of(source, backbone, {})
    setting = make_setting(
        chosen,
        load(source, data_dir, columns=(text_column, label_column), image_size=size, crop=crop),
        backbone=backbone,
        weights=weights,
        model=model,
        peers=peers,
        options=option or (),
        device=device,
        data_dir=data_dir,
    )
    folder = out or Path("runs") / f"{protocol}-{setting.data.name}-{model.name if model else setting.backbone}"
    with progress_bar() as progress, stop_on_signal("Stopping after this seed. Once more to give it up.") as stop:
        outcome = run_protocol(
            chosen, setting, seeds=range(seeds), out=folder, command=command_line(), progress=progress, stop=stop
        )
    files = write_files(outcome, folder)
    if as_json:
        print_json(outcome.as_json())
        return
    for name, rows in groups(outcome.rows):
        print_table(name or outcome.title, terminal_rows(rows, outcome.columns, outcome.headline))
    for line in notes(outcome):
        remark(line)
    say(f"Report: {files.page}")
