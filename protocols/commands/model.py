"""``slots fit``, ``evaluate``, ``predict`` and ``show``: a model from data, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from protocols.commands.options import (
    DATA,
    ROWS,
    AsJson,
    Data,
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
from protocols.commands.terminal import (
    cell,
    print_csv,
    print_json,
    print_table,
    progress_bar,
    remark,
    say,
    say_next,
    stop_on_signal,
)

_FEW = 5  # inputs from which on it is said that no slot matches any


def fit(
    data: Data,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="pixels, positive, explor, unfolding, ..., cifar_resnet56, torchvision:NAME, timm:NAME; text:NAME for "
            "text; none for feature rows. Default: pixels or none."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE, an option of the backbone, e.g. widths=[24,48]. May be given several times."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights to start from: a state dict file, or default for the library's best."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Model folder. Default: runs/DATA-BACKBONE.")] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from the project's trained weights; only the head learns.")
    ] = False,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="With --pretrained: train the backbone further too.")
    ] = False,
    reconstruction: Annotated[
        float,
        typer.Option(
            min=0.0, help="Weight of the loss that makes the gradients of winning units look like the inputs."
        ),
    ] = 0.0,
    detach: Annotated[
        bool, typer.Option("--detach", help="With --reconstruction: the backbone learns from that loss alone.")
    ] = False,
    stabilize: Annotated[
        float | None,
        typer.Option(min=0.0, help="Weight of the loss that makes a slot's template the same for all inputs."),
    ] = None,
    readable: Annotated[
        bool,
        typer.Option(
            "--readable",
            help="A backbone of few levels and soft gates, whose slots show the same template for any input; it costs "
            "accuracy.",
        ),
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=0, help="Passes over the training part.")] = None,
    slots_per_class: Annotated[
        int | None, typer.Option(min=0, help="Slots a class to start with; 0 grows them from the data.")
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Views matched beside the input, e.g. flip,shift1 or rotate10*shift1.")
    ] = None,
    closing: Annotated[
        str | None,
        typer.Option(help="compact: only slots that earn their place. full: every training example matched."),
    ] = None,
    precision: Annotated[
        float | None, typer.Option(help="Wanted precision of a slot on the training data; below 1 against label noise.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Learn these classes only, e.g. 0-7 or cat,dog.")] = None,
    reach: Annotated[
        float | None,
        typer.Option(help="Share of matches kept when the caps are made tight for classes to come; 0.8 is a good one."),
    ] = None,
    vouch: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Share of matched answers that shall be right on new data, e.g. 0.98, the default; none: no level.",
        ),
    ] = None,
    open_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of new inputs left unmatched however right matches are: a network behind the features may "
            "have seen the training data. Default: 0.2 for features and frozen networks; 0 suits one that has not.",
        ),
    ] = None,
    robust: Annotated[
        str | None,
        typer.Option(
            metavar="NORM:RADIUS",
            help="Train for certified answers on pixels or feature rows: l2:2.5 by length of a change, linf:0.3 by its "
            "largest entry.",
        ),
    ] = None,
    features_per_slot: Annotated[
        int | None,
        typer.Option(min=0, help="Features that a slot may use, none below 0: parts at places for --backbone parts."),
    ] = None,
    max_parts: Annotated[
        int | None, typer.Option(min=1, help="With --backbone parts: most training patches that become parts.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint of a fit that was killed.")] = False,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Side that images of a folder are resized to. Default: the network's own for torchvision: and timm:.",
        ),
    ] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, data and threads: same model (on the CPU).")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a model, write it with a report page, and print what it reached.

    Defaults are tuned for named data sets; elsewhere a short look at the data chooses them, where features stay as they
    are. Ctrl-C ends the training early and keeps what was learned. torchrun starts several processes that share one
    fit of features that stay as they are: torchrun --nproc-per-node 2 -m protocols.commands fit ...
    """
    if closing not in (None, "compact", "full"):
        raise usage(f"--closing must be compact or full, got {closing!r}.")
    from dataclasses import asdict

    from protocols.app.fit import fit_and_save
    from protocols.provenance import command_line
    from protocols.recipes.building import pick_device
    from protocols.recipes.planning import cut_of, parse_options, parse_robust, parse_vouch, plan
    from protocols.summaries.fit import NOT_MEASURED
    from slots.distributed import join

    ranks = join()
    options = parse_options(option or [], weights=weights)
    size, crop = cut_of(data, backbone, options, side=image_size)
    loaded = load(data, data_dir, columns=(text_column, label_column), image_size=size, crop=crop)
    if size is not None and crop is not None:
        options |= {"size": size[0], "crop": crop}
    if classes is not None:
        from protocols.data.dataset import only_classes

        loaded = only_classes(loaded, classes)
    changes: dict[str, Any] = {
        "epochs": epochs,
        "slots_per_class": slots_per_class,
        "views": views,
        "precision": precision,
    }
    changes |= {
        "closing": closing,
        "reach": reach,
        "vouch": parse_vouch(vouch),
        "open_share": open_share,
        "device": pick_device(device),
        "seed": seed,
    }
    changes |= {"reconstruction": reconstruction, "detach": detach, "stabilize": stabilize}
    changes |= {"readable": readable}
    changes |= {"robust": parse_robust(robust)}
    changes |= {"features_per_slot": features_per_slot, "max_parts": max_parts}
    chosen, recipe = plan(loaded, backbone, options, pretrained=pretrained, fine_tune=fine_tune, **changes)
    target = out or Path("runs") / f"{loaded.name}-{Path(chosen).name.replace(':', '-')}"
    with progress_bar(shown=ranks.is_first) as progress, stop_on_signal(among=ranks.size) as stop:
        _, summary = fit_and_save(
            loaded, chosen, recipe, out=target, command=command_line(), resume=resume, progress=progress,
            stop=stop if ranks.size == 1 else None, ranks=ranks,
        )  # fmt: skip
    if summary is None:  # the first process says it
        return
    if as_json:
        print_json(asdict(summary))
        return
    title = f"{summary.data}, backbone {summary.backbone}: {summary.n_slots} slots in {summary.elapsed_s:.0f} s"
    say(title, str(summary.vouching or NOT_MEASURED))
    print_table(
        "",
        [
            ("", "accuracy", "matched", "right when matched"),
            ("train", summary.train_accuracy, summary.train_matched, summary.train_precision),
            ("test", summary.test_accuracy, summary.test_matched, summary.test_accuracy_matched),
        ],
    )
    if summary.look is not None:
        say(f"{len(summary.look.tries)} settings were tried on {summary.look.n_checked:,} examples left out:")
        print_table("", summary.look.table())
        say(f"Used: {summary.look.sentence()}.")
    if n := len(summary.contradictions):
        say(f"{n} training examples contradict others (same input, another label); --json lists them.")
    say(f"Model: {summary.model}", f"Report: {summary.report}")
    if (figures := target / "figures").is_dir():
        say(f"Figures: {figures}")
    say_next("predict", summary.model, "--data", "NEW", "--out", "answers.csv")


def evaluate(
    model: Model,
    data: Data,
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    half: Half = False,
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled data."""
    from dataclasses import asdict

    from protocols.app.answers import true_labels
    from protocols.recipes.building import load_model
    from protocols.summaries.evaluation import evaluate as measure
    from slots.errors import DataError

    loaded_model = load_model(model, device=device, half=half)
    loaded = load(data, data_dir, loaded_model, columns=(text_column, label_column))
    x, y = part_of(loaded, part)
    if len(x) == 0 or (y < 0).any():
        raise DataError(f"The {part} part of {data!r} must have labelled examples to measure on. Try another --part.")
    result = measure(loaded_model.predict(x), true_labels(loaded_model, loaded, y))
    if as_json:
        print_json({"model": str(model), "data": loaded.name, "part": part, **asdict(result)})
        return
    rows = [("", "accuracy", "matched", "ambiguous", "right when matched", "right when not")]
    shares = result.accuracy, result.matched, result.ambiguous, result.accuracy_matched, result.accuracy_unmatched
    print_table(f"{loaded.name}, {result.n} examples", [*rows, (part, *shares)])


def predict(
    model: Model,
    inputs: Annotated[list[str] | None, typer.Argument(help="Image files; or texts, for a model of text.")] = None,
    data: Annotated[str | None, typer.Option(help=DATA)] = None,
    part: Annotated[str, typer.Option(help="test or train, of --data.")] = "test",
    out: Annotated[
        Path | None, typer.Option(help="Write the CSV there instead of to stdout; the folder of --shards.")
    ] = None,
    shards: Shards = None,
    rows: Rows = ROWS,
    workers: Workers = 1,
    engine: Engine = "processes",
    certified: Annotated[
        str | None,
        typer.Option(
            metavar="NORM:SIZE",
            help="Matched is only what no change of that size can have made, e.g. l2:0.5 by its length or linf:0.1 by "
            "its largest entry: on pixels or feature rows, or behind the backbone lipschitz.",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="With --certified, what must hold: match, or nearest, the label of the nearest slot.")
    ] = "match",
    id_column: IdColumn = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    half: Half = False,
    as_json: AsJson = False,
) -> None:
    """Answer inputs: label, kind of answer, slot, margin and runner-up, one CSV line or Parquet row each."""
    from protocols.app.answers import answers_csv, answers_json, load_inputs
    from protocols.app.certificates import predict_certified_by
    from protocols.recipes.building import load_model
    from slots.storage.atomic import write_text

    if sum((bool(inputs), data is not None, shards is not None)) != 1:
        raise usage("Give image files (texts to a model of text) or --data, or --shards: one of them.")
    if shards is not None:
        if certified is not None:
            raise usage("--certified must be left out with --shards. Give --data, part by part.")
        over_shards(
            model, "predict", shards, out, rows=rows, workers=workers, engine=engine, text_column=text_column,
            id_column=id_column, half=half, device=device, as_json=as_json,
        )  # fmt: skip
        return
    loaded = load_model(model, device=device, half=half)
    given, files = None, tuple[str, ...]()
    if data is not None:
        found = load(data, data_dir, loaded, columns=(text_column, label_column))
        given, files = part_of(found, part)[0], files_of(found, part)
    names, x = load_inputs(loaded, inputs or [], given, files)
    prediction = loaded.predict(x) if certified is None else predict_certified_by(loaded, x, certified, of=by)
    if as_json:
        print_json({"model": str(model), "answers": answers_json(loaded, names, x, prediction)})
    elif out is not None:
        write_text(out, answers_csv(loaded, names, x, prediction))
        say(f"{len(prediction)} answers: {out}")
        if data is not None and certified is None and not prediction.matched.all():
            say_next("update", model, "--data", data, "--part", part, "--budget", 20, "--dry-run")
    else:
        print_csv(answers_csv(loaded, names, x, prediction))
    if not (as_json or certified or prediction.matched.any()) and len(prediction) >= _FEW:
        remark(
            f"No slot matches any of the {len(prediction)} inputs: all labels are guesses. They may be new to the "
            "model (slots ood tells), or it vouches for little (slots show tells)."
        )


def show(model: Model, as_json: AsJson = False) -> None:
    """Say what a model is: slots per class, reach of the caps, coverage, history."""
    from textwrap import shorten

    from protocols.app.answers import describe, describe_vouching
    from protocols.recipes.building import load_model

    loaded = load_model(model, device="cpu")
    description = describe(loaded)
    if as_json:
        print_json({"model": str(model), **description})
        return
    say(describe_vouching(loaded))
    for key, value in description.items():
        if key not in ("classes", "history", "vouching"):
            say(f"{key.replace('_', ' '):>18}  {cell(value)}")
    heads = ("class", "slots", "training matches", "median radius (degrees)", "held-out precision", "remembers")
    rows: list[tuple[Any, ...]] = [tuple(line.values()) for line in description["classes"]]
    rows = [tuple(shorten(it, 60) if isinstance(it, str) else it for it in row) for row in rows]
    rows = [heads[: len(rows[0]) if rows else -1], *rows]
    print_table("", rows)
    for line in description["history"]:
        say(f"generation {line['number']}: {line['what']}, {line['n_slots']} slots")
