"""The ``slots`` command: parse, call one function, print. Results on stdout, progress on stderr.

Heavy imports happen inside the commands, so that ``slots --help`` is quick.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocols.terminal import cell, print_json, print_table, progress, stop_on_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.data import Dataset
    from slots.editing import EditReport
    from slots.model import SlotModel

app = typer.Typer(
    name="slots",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Continual learning and clustering that never forgets and can explain itself.",
    epilog="Examples:  slots fit --data digits   slots fit --data mnist --json   slots show runs/digits-pixels",
)

_DATA = "digits, mnist, fashion_mnist, cifar10, an .npz archive, or a folder of class folders of images."
Data = Annotated[str, typer.Option(help=_DATA)]
DataDir = Annotated[
    Path | None, typer.Option(help="Where named data sets lie. Default: $SLOTS_DATA_DIR, else a cache folder.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Model = Annotated[Path, typer.Argument(help="A model folder that `slots fit` wrote.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"slots {metadata.version('neural-slots')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del debug, version  # `main` reads --debug itself, since an error may come before the parser has


@app.command(epilog="Example:  slots fit --backbone pixels --data mnist --out runs/mnist --json")
def fit(
    data: Data,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="pixels, positive, explor, unfolding, ..., cifar_resnet56, torchvision:NAME, timm:NAME; none for "
            "feature rows. Default: pixels or none."
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
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint of a fit that was killed.")] = False,
    data_dir: DataDir = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, data and threads: same model (on the CPU).")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a model, write it with a report page, and print what it reached.

    The defaults are tuned for each data set. Ctrl-C ends the training early and keeps what was learned.
    """
    if closing not in (None, "compact", "full"):
        raise _usage(f"--closing must be compact or full, got {closing!r}.")
    from protocols.fitting import command_line, fit_and_save
    from protocols.planning import parse_options, pick_device, plan

    loaded = _load(data, data_dir)
    if classes is not None:
        from protocols.data import only_classes

        loaded = only_classes(loaded, classes)
    changes: dict[str, Any] = {
        "epochs": epochs,
        "slots_per_class": slots_per_class,
        "views": views,
        "precision": precision,
    }
    options = parse_options(option or [], weights=weights)
    changes |= {"closing": closing, "reach": reach, "device": pick_device(device), "seed": seed}
    changes |= {"reconstruction": reconstruction, "detach": detach}
    chosen, recipe = plan(loaded, backbone, options, pretrained=pretrained, fine_tune=fine_tune, **changes)
    target = out or Path("runs") / f"{loaded.name}-{chosen}"
    with progress() as report, stop_on_signal() as stop:
        _, summary = fit_and_save(
            loaded, chosen, recipe, out=target, command=command_line(), resume=resume, report=report, stop=stop
        )
    if as_json:
        print_json(summary.as_json())
        return
    print_table(
        f"{summary.data}, backbone {summary.backbone}: {summary.n_slots} slots in {summary.elapsed_s:.0f} s",
        [
            ("", "accuracy", "matched", "right when matched"),
            ("train", summary.train_accuracy, summary.train_matched, summary.train_precision),
            ("test", summary.test_accuracy, summary.test_matched, summary.test_accuracy_matched),
        ],
    )
    if n := len(summary.contradictions):
        typer.echo(f"{n} training examples contradict others (same input, another label); --json lists them.")
    typer.echo(f"Model: {summary.model}\nReport: {summary.report}")
    if (figures := target / "figures").is_dir():
        typer.echo(f"Figures: {figures}")


@app.command(epilog="Example:  slots evaluate runs/mnist-pixels --data mnist")
def evaluate(
    model: Model,
    data: Data,
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a model on labelled data."""
    from dataclasses import asdict

    from protocols.evaluation import evaluate as measure
    from protocols.fitting import load_model
    from slots.errors import DataError

    loaded_model, loaded = load_model(model, device=device), _load(data, data_dir)
    x, y = _part(loaded, part)
    if len(x) == 0 or (y < 0).any():
        raise DataError(f"The {part} part of {data!r} must have labelled examples to measure on. Try another --part.")
    result = measure(loaded_model.predict(x), y)
    if as_json:
        print_json({"model": str(model), "data": loaded.name, "part": part, **asdict(result)})
        return
    rows = [("", "accuracy", "matched", "ambiguous", "right when matched", "right when not")]
    shares = result.accuracy, result.matched, result.ambiguous, result.accuracy_matched, result.accuracy_unmatched
    print_table(f"{loaded.name}, {result.n} examples", [*rows, (part, *shares)])


@app.command(
    epilog="Examples:  slots predict runs/m a.png b.png   slots predict runs/m --data new.npz --out answers.csv"
)
def predict(
    model: Model,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.")] = None,
    data: Annotated[str | None, typer.Option(help=_DATA)] = None,
    part: Annotated[str, typer.Option(help="test or train, of --data.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Write the CSV there instead of to stdout.")] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Answer inputs: label, kind of answer, slot, margin and runner-up, one CSV line each."""
    from protocols.answers import answers_csv, answers_json, load_inputs
    from protocols.fitting import load_model
    from slots.store import write_file

    if bool(images) == (data is not None):
        raise _usage("Give image files or --data, one of the two.")
    loaded = load_model(model, device=device)
    names, x = load_inputs(loaded, images or [], None if data is None else _part(_load(data, data_dir), part)[0])
    prediction = loaded.predict(x)
    if as_json:
        print_json({"model": str(model), "answers": answers_json(loaded, names, prediction)})
    elif out is not None:
        write_file(out, answers_csv(loaded, names, prediction).encode())
        typer.echo(f"{len(prediction)} answers: {out}")
    else:
        typer.echo(answers_csv(loaded, names, prediction), nl=False)


@app.command(epilog="Example:  slots show runs/digits-pixels")
def show(model: Model, as_json: AsJson = False) -> None:
    """Say what a model is: slots per class, reach of the caps, coverage, history."""
    from protocols.answers import describe
    from protocols.fitting import load_model

    description = describe(load_model(model, device="cpu"))
    if as_json:
        print_json({"model": str(model), **description})
        return
    for key, value in description.items():
        if key not in ("classes", "history"):
            typer.echo(f"{key.replace('_', ' '):>18}  {cell(value)}")
    rows: list[tuple[Any, ...]] = [
        ("class", "slots", "training matches", "median radius (degrees)", "held-out precision")
    ]
    rows += [tuple(line.values()) for line in description["classes"]]
    print_table("", rows)
    for line in description["history"]:
        typer.echo(f"generation {line['number']}: {line['what']}, {line['n_slots']} slots")


@app.command(
    epilog="Examples:  slots update runs/m --data new.npz --budget 50 --dry-run   "
    "slots update runs/m --data new.npz --labels labels.csv"
)
def update(
    model: Model,
    data: Data,
    budget: Annotated[int | None, typer.Option(min=0, help="Labels you can give; default: all that pay.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A queries.csv with its label column filled in.")] = None,
    part: Annotated[str | None, typer.Option(help="train or test. Default: train where there is one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the query list, and change nothing.")] = False,
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Learn from new data: find what no slot matches, ask for the fewest labels, add slots.

    Writes queries.csv and queries.html (pictures to label) into the model folder. Without labels the proposals become
    clusters, to be named later with `slots relabel`; with them they become labelled slots. No answer that a slot gives
    is changed; labels that the data holds are used to measure, never to learn.
    """
    from protocols.fitting import command_line, load_model
    from protocols.updating import UpdatePlan, update_and_save

    loaded_model = load_model(model, device=device)
    loaded = _load(data, data_dir, loaded_model)
    chosen = part or ("train" if len(loaded.x_train) else "test")
    _part(loaded, chosen)
    plan = UpdatePlan(part=chosen, budget=budget, labels=labels, dry_run=dry_run, source=data)
    with progress() as report:
        done = update_and_save(loaded_model, loaded, plan, folder=model, command=command_line(), report=report)
    if as_json:
        print_json(done.as_json())
        return
    typer.echo(f"{done.unmatched} of {done.n_examples} inputs are unmatched.")
    if done.queries_file and done.queries:
        typer.echo(
            f"{done.queries} labels would cover {100 * done.covered:.1f} % of them (at most {100 * done.bound:.1f} % "
            f"for any {done.queries}).\nLabel them: {done.page} or {done.queries_file}"
        )
    if not dry_run:
        clusters = f", {done.clusters_added} of them clusters to be named" if done.clusters_added else ""
        typer.echo(
            f"Generation {done.generation}: {done.slots_added} slots added{clusters}; {done.labels_used} labels used, "
            f"{done.changed_matched_answers} matched answers changed. {done.elapsed_s:.0f} s"
        )
    sets = (("new data", done.stream), ("never asked about", done.never_queried), ("held out", done.held_out))
    rows = [(name, it.n, it.before, it.control, it.after) for name, it in sets if it and not dry_run]
    if rows:
        print_table("", [("accuracy", "examples", "before", "labels, no new slots", "after"), *rows])
    for it in done.contradictions[:5]:
        typer.echo(f"Example {it['example']} is labelled {it['label']}, but slot {it['slot']} says {it['answer']}.")
    if n := len(done.contradictions):
        typer.echo(f"{n} labels contradict a slot; its answer stands. Mend it with slots relabel, merge or delete.")


@app.command(epilog="Example:  slots log runs/mnist-pixels")
def log(model: Model, as_json: AsJson = False) -> None:
    """List the generations of a model: fit, updates, edits and undos."""
    from dataclasses import asdict

    from slots.generations import log as read_log

    entries = read_log(model)
    if as_json:
        print_json({"model": str(model), "generations": [asdict(entry) for entry in entries]})
        return
    rows: list[tuple[Any, ...]] = [("generation", "slots", "clusters", "when (UTC)", "what", "")]
    for it in entries:
        what = it.what if it.detail is None else f"{it.what} {it.detail}"
        state = "current" if it.current else "" if it.kept else "not kept"
        slots, when = f"{it.n_slots} ({it.slots_gained:+d})", it.when and it.when[:16].replace("T", " ")
        rows.append((it.number, slots, it.n_clusters, when, what, state))
    print_table("", rows)


@app.command(
    epilog="Examples:  slots diff runs/m   slots diff runs/m 0 3 --data digits   slots diff runs/before runs/after"
)
def diff(
    model: Model,
    old: Annotated[str | None, typer.Argument(help="Older generation, or a second model folder.")] = None,
    new: Annotated[str | None, typer.Argument(help="Newer generation. Default: the current one.")] = None,
    data: Annotated[str | None, typer.Option(help=f"Inputs to compare the answers on: {_DATA}")] = None,
    part: Annotated[str, typer.Option(help="test or train, of --data.")] = "test",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what changed between two generations, and whether any matched answer can have changed.

    Without numbers it compares the current generation with the one before.
    """
    from dataclasses import asdict

    from protocols.history import difference_lines, load_pair
    from slots.comparing import diff as compare

    older, newer = load_pair(model, old, new)
    found = compare(older, newer, None if data is None else _part(_load(data, data_dir, older), part)[0])
    if as_json:
        print_json({"model": str(model), **asdict(found)})
        return
    for line in difference_lines(found):
        typer.echo(line)


@app.command(epilog="Examples:  slots undo runs/m   slots undo runs/m --to 0")
def undo(
    model: Model,
    to: Annotated[int | None, typer.Option(min=0, help="Generation to go back to. Default: the one before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Go back to an older generation, under a new number: nothing is lost, and an undo can be undone with --to."""
    from dataclasses import asdict

    from slots.generations import undo as go_back

    entry = go_back(model, to)
    if as_json:
        print_json({"model": str(model), **asdict(entry)})
        return
    typer.echo(f"Generation {entry.number} is generation {entry.content} again: {entry.n_slots} slots.")


SlotList = Annotated[str, typer.Option("--slots", help="Slot numbers, such as 3,7.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would change, and change nothing.")]


@app.command(
    epilog="Examples:  slots relabel runs/m --slots 3,7 --label cat   "
    'slots relabel runs/m --cluster "cluster 12" --label cat'
)
def relabel(
    model: Model,
    label: Annotated[str, typer.Option(help="A label of the model, or a new one.")],
    slots: Annotated[str | None, typer.Option(help="Slot numbers, such as 3,7.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Instead: all slots of this cluster or label.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Give slots another label, or a cluster its name; says which remembered examples are answered otherwise."""
    from protocols.history import read_slots
    from slots.editing import merge as merge_labels
    from slots.editing import relabel as relabel_slots

    if (slots is None) == (cluster is None):
        raise _usage("Give --slots or --cluster, one of the two.")
    numbers = [] if slots is None else read_slots(slots)
    if cluster is None:
        _edit(model, lambda it: relabel_slots(it, numbers, label), dry_run, as_json)
    else:
        _edit(model, lambda it: merge_labels(it, [cluster], label), dry_run, as_json)


@app.command(epilog='Example:  slots merge runs/m --from "cluster 12" --from "cluster 15" --into cat')
def merge(
    model: Model,
    names: Annotated[list[str], typer.Option("--from", help="A label or cluster; give it once for each.")],
    into: Annotated[str, typer.Option(help="A label of the model, or a new one.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make one label of several: all their slots get it. The slots themselves stay as they are."""
    from slots.editing import merge as merge_labels

    _edit(model, lambda it: merge_labels(it, names, into), dry_run, as_json)


@app.command(epilog="Example:  slots delete runs/m --slots 3,7 --dry-run")
def delete(model: Model, slots: SlotList, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Forget slots; the slots behind them get new numbers. `slots undo` brings them back."""
    from protocols.history import read_slots
    from slots.editing import delete as delete_slots

    numbers = read_slots(slots)
    _edit(model, lambda it: delete_slots(it, numbers), dry_run, as_json)


@app.command(
    epilog="Example:  slots ood runs/mnist-pixels --data fashion_mnist --false-alarm-rate 0.01 --out scores.csv"
)
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
    x = _part(_load(data, data_dir, loaded), part)[0]
    familiar = None if calibrate is None else _part(_load(calibrate, data_dir, loaded), "test")[0]
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


@app.command()
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


def _edit(model: Path, edit: Callable[[SlotModel], EditReport], dry_run: bool, as_json: bool) -> None:
    """Edit, save, and print what changed."""
    from dataclasses import asdict

    from protocols.history import edit_and_save, edit_lines

    done = edit_and_save(model, edit, dry_run=dry_run)
    if as_json:
        print_json({"model": str(model), "dry_run": dry_run, "n_in_passing": done.n_in_passing, **asdict(done)})
        return
    for line in edit_lines(done, dry_run=dry_run):
        typer.echo(line)


@app.command(epilog="Example:  slots run continual --data mnist --peers all --seeds 3")
def run(
    protocol: Annotated[
        str, typer.Argument(help="slot-update, continual, unsupervised, ood, label-errors or adversarial.")
    ],
    data: Data,
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
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a claim beside what a user would pick instead: same features, same splits, several seeds.

    Writes result.json, result.md and report.html. A seed that is done is kept: run again to go on after a stop.
    """
    from protocols.fitting import command_line
    from protocols.runs.catalogue import find_protocol, make_setting
    from protocols.runs.pages import write_files
    from protocols.runs.running import run as run_protocol
    from protocols.runs.tables import groups, notes, terminal_rows

    chosen = find_protocol(protocol)
    setting = make_setting(
        chosen,
        _load(data, data_dir),
        backbone=backbone,
        weights=weights,
        model=model,
        peers=peers,
        options=option or (),
        device=device,
        data_dir=data_dir,
    )
    folder = out or Path("runs") / f"{protocol}-{setting.data.name}-{model.name if model else setting.backbone}"
    with progress() as report, stop_on_signal("Stopping after this seed. Once more to give it up.") as stop:
        outcome = run_protocol(
            chosen, setting, seeds=range(seeds), out=folder, command=command_line(), report=report, stop=stop
        )
    files = write_files(outcome, folder)
    if as_json:
        print_json(outcome.as_json())
        return
    for name, rows in groups(outcome.rows):
        print_table(name or outcome.title, terminal_rows(rows, outcome.columns))
    for line in notes(outcome):
        typer.echo(line, err=True)
    typer.echo(f"Report: {files.page}")


def _load(data: str, data_dir: Path | None, model: SlotModel | None = None) -> Dataset:
    """Load data; the images of a folder in the size that a model was fitted on."""
    from protocols.data import NAMES, load_data

    size = None
    if model is not None and model.preprocessing.kind == "images" and data not in NAMES and Path(data).is_dir():
        size = model.preprocessing.shape[1:]
    return load_data(data, data_dir=data_dir, image_size=size)  # type: ignore[arg-type]


def _part(data: Dataset, part: str) -> tuple[Any, Any]:
    """Inputs and labels of one part; a data set without that part gives the other one."""
    if part not in ("train", "test"):
        raise _usage(f"--part must be train or test, got {part!r}.")
    return (data.x_train, data.y_train) if part == "train" else (data.x_test, data.y_test)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: 0 ok, 1 a bug, 2 usage, 3 bad data, 4 bad model, 5 storage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        status = app(args=given, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Interrupted. A fit goes on from its last epoch with --resume, a run from its last seed.", err=True)
        status = 130
    except Exception as error:  # noqa: BLE001  # the one place where every error becomes a line and a status
        if debug:
            traceback.print_exc()
        status = int(getattr(error, "exit_code", 1))  # the package's errors and typer's carry theirs
        typer.echo(f"Error: {_message(error, status)}", err=True)
    sys.exit(status if isinstance(status, int) else 0)


def _message(error: Exception, status: int) -> str:
    """One line on an error; what nobody foresaw is called a bug."""
    describe = getattr(error, "format_message", None)  # the parser's errors
    text = " ".join(str(describe() if callable(describe) else error).split())
    if status == 1:
        return f"Internal error ({type(error).__name__}), please report it; --debug shows where: {text}"
    return text


def _usage(sentence: str) -> Exception:
    from slots.errors import UsageError

    return UsageError(sentence)


if __name__ == "__main__":
    main()
