"""``slots ood``, ``clean`` and ``certify``: foreign inputs, wrong labels, and what no small change can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protocols.commands.options import (
    DATA,
    ROWS,
    AsJson,
    DataDir,
    Device,
    Engine,
    Half,
    IdColumn,
    LabelColumn,
    Model,
    Rows,
    Shards,
    TextColumn,
    Workers,
    files_of,
    load,
    over_shards,
    part_of,
    usage,
)
from protocols.commands.terminal import print_csv, print_json, print_table, progress_bar, remark, say, say_next


def ood(
    model: Model,
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    false_alarm_rate: Annotated[
        float, typer.Option(help="Largest share of inputs like the training data that may be called novel.")
    ] = 0.05,
    calibrate: Annotated[
        str | None, typer.Option(help="Familiar data the model never saw, to calibrate on instead of the fit's own.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the CSV there instead of to stdout; the folder of --shards.")
    ] = None,
    shards: Shards = None,
    rows: Rows = ROWS,
    workers: Workers = 1,
    engine: Engine = "processes",
    id_column: IdColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    half: Half = False,
    as_json: AsJson = False,
) -> None:
    """Say of each input how novel it is: score, p-value, decision, nearest slot and reason, one line each."""
    from protocols.app.novelty import assess_inputs, novelty_csv, novelty_json
    from protocols.recipes.building import load_model
    from slots.storage.atomic import write_text

    if (data is None) == (shards is None):
        raise usage("Give --data or --shards, one of the two.")
    if shards is not None:
        if calibrate is not None:
            raise usage("--calibrate goes with --data, got --shards. Calibrate at the fit, or leave it out.")
        over_shards(
            model, "ood", shards, out, rows=rows, workers=workers, engine=engine, text_column=text_column,
            id_column=id_column, false_alarm_rate=false_alarm_rate, half=half, device=device, as_json=as_json,
        )  # fmt: skip
        return
    assert data is not None
    loaded = load_model(model, device=device, half=half)
    columns = text_column, label_column
    given = load(data, data_dir, loaded, columns=columns)
    x, files = part_of(given, part)[0], files_of(given, part)
    familiar = None if calibrate is None else part_of(load(calibrate, data_dir, loaded, columns=columns), "test")[0]
    found = assess_inputs(loaded, x, false_alarm_rate=false_alarm_rate, familiar=familiar)
    flagged = f"{found.novel.sum()} of {len(found)} inputs are novel at a false-alarm rate of {false_alarm_rate:g}."
    if as_json:
        print_json(
            {"model": str(model), **novelty_json(loaded, found, x, false_alarm_rate=false_alarm_rate, files=files)}
        )
    elif out is not None:
        write_text(out, novelty_csv(loaded, found, x, files))
        say(f"{flagged} Scores: {out}")
        if found.novel.any():
            say_next("update", model, "--data", data, "--part", part, "--budget", 20, "--dry-run")
    else:
        print_csv(novelty_csv(loaded, found, x, files))
        remark(flagged)


def clean(
    source: Annotated[
        str,
        typer.Argument(metavar="MODEL|DATA", help=f"A model folder, whose features and slots judge; or data: {DATA}"),
    ],
    data: Annotated[str | None, typer.Option(help="With a model: the data to examine, best that of its fit.")] = None,
    part: Annotated[str, typer.Option(help="train or test.")] = "train",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most labels to list. Default: as many as are wrong by the estimate.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Without a model: the network to train, or text:NAME. Default: cnn; feature rows need none."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the list and the page. Default: runs/clean-DATA.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """List the labels that are likely wrong, with the slots they hold back and the nearest examples, as CSV and page.

    Nothing is changed: the list is for a person to go through.
    """
    from dataclasses import asdict

    from protocols.app.clean import clean_and_write
    from protocols.provenance import command_line
    from protocols.recipes.building import load_model, pick_device
    from protocols.summaries.cleaning import CleaningPlan

    if part not in ("train", "test"):
        raise usage(f"--part must be train or test, got {part!r}.")
    if data is None and (Path(source) / "slots.json").exists():
        raise usage(f"--data must say what to examine with the model {source!r}, got nothing. Add --data NAME.")
    judge = None if data is None else load_model(source, device=device)
    name = source if data is None else data
    loaded = load(name, data_dir, judge, columns=(text_column, label_column), whole=part)  # type: ignore[arg-type]
    plan = CleaningPlan(part=part, limit=limit, backbone=backbone, seed=seed, device=pick_device(device))  # type: ignore[arg-type]
    model_name = None if judge is None else Path(source).name
    with progress_bar() as progress:
        found = clean_and_write(
            loaded,
            plan,
            out=out or Path("runs") / f"clean-{loaded.name}",
            command=command_line(),
            model=judge,
            model_name=model_name,
            progress=progress,
        )
    if as_json:
        print_json(asdict(found))
        return
    say(f"{found.estimated_errors:,} of {found.n_examples:,} labels are wrong by the estimate.")
    if found.listed:
        held_back = f"they hold back {found.slots_held_back:,} of {found.n_slots:,} slots"
        say(f"{found.listed:,} are listed; {held_back}.")
    if rows := [(it.true, it.given, f"{it.count:,}") for it in found.confused[:8] if it.count > 1]:
        print_table("", [("really", "labelled as", "about"), *rows])
    say(f"List: {found.table}", f"Page: {found.page}")


def certify(
    model: Model,
    data: Annotated[str, typer.Option(help=DATA)],
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    norm: Annotated[str, typer.Option(help="l2: Euclidean length of a change. linf: its largest entry.")] = "l2",
    radius: Annotated[
        list[float] | None,
        typer.Option(help="Size of a change to count at; pixels lie in [0, 1]. May be given several times."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="pair: quick. box: changed pixels stay in [0, 1]. dual: exact, l2 only. Default: box for images."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at the first inputs only.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the radii of each input there, as CSV.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say how far each input may be moved, by whoever, before an answer can change.

    On pixels or feature rows, or behind the backbone lipschitz. Fit with --robust for radii worth having.
    """
    from dataclasses import asdict

    from protocols.app.answers import true_labels
    from protocols.app.certificates import certified_csv, certified_rows, certify_inputs
    from protocols.recipes.building import load_model
    from slots.storage.atomic import write_text

    if norm not in ("l2", "linf"):
        raise usage(f"--norm must be l2 or linf, got {norm!r}.")
    loaded = load_model(model, device="cpu")
    given = load(data, data_dir, loaded, columns=(text_column, label_column))
    x, y = part_of(given, part)
    x, y, files = x[:limit], y[:limit], files_of(given, part)[:limit]
    found = certify_inputs(
        loaded,
        x,
        true_labels(loaded, given, y),
        norm=norm,  # type: ignore[arg-type]
        radii=radius or (),
        method=method,  # type: ignore[arg-type]
    )
    if out is not None:
        write_text(out, certified_csv(loaded, found.certificate, files))
    if as_json:
        print_json(
            {
                "model": str(model),
                "data": given.name,
                "part": part,
                "norm": norm,
                "method": found.method,
                "n_inputs": len(x),
                "accuracy": found.accuracy,
                "shares": [asdict(share) for share in found.shares],
                "inputs": certified_rows(loaded, found.certificate, files),
            }
        )
        return
    heads = f"{norm} radius", "label stays", "nearest slots' label stays", "stays matched", "never matched wrongly"
    of = f"{len(x)} inputs" if found.accuracy is None else f"{len(x)} inputs, {found.accuracy:.2%} answered right"
    rows = [(f"{it.radius:g}", it.label, it.nearest, it.matched, it.never_wrong) for it in found.shares]
    print_table(f"{given.name}: {of}; shares that are right and certified ({found.method})", [heads, *rows])
    if out is not None:
        say(f"Radii: {out}")
