"""``slots update`` and ``propose``: learn from new data with few labels, and find the few among very many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from protocols.commands.options import (
    ROWS,
    AsJson,
    Data,
    DataDir,
    Device,
    Engine,
    IdColumn,
    LabelColumn,
    Model,
    Rows,
    Shards,
    TextColumn,
    Wait,
    Workers,
    load,
    over_shards,
    part_of,
    usage,
)
from protocols.commands.terminal import print_json, print_table, progress_bar, remark, say, say_next

if TYPE_CHECKING:
    from protocols.summaries.update import UpdateSummary
    from slots.model.slot_model import SlotModel


def update(
    model: Model,
    data: Data,
    budget: Annotated[int | None, typer.Option(min=0, help="Labels you can give; default: all that pay.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A queries.csv with its label column filled in.")] = None,
    spread: Annotated[
        bool,
        typer.Option("--spread", help="With --labels: spread them over all unmatched examples; best for few labels."),
    ] = False,
    recall: Annotated[
        bool,
        typer.Option(
            "--recall",
            help="For a model that learns again and again: ask where answers are in doubt, and with --labels let all "
            "that was ever labelled guess where nothing matches.",
        ),
    ] = False,
    part: Annotated[str | None, typer.Option(help="train or test. Default: train where there is one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the query list, and change nothing.")] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Learn from new data: find what no slot matches, ask for the fewest labels, add slots.

    Writes queries.csv and queries.html (pictures to label) into the model folder. Without labels the proposals become
    clusters, to be named later with `slots relabel`; with them they become labelled slots. No answer that a slot gives
    is changed; labels that the data holds are used to measure, never to learn.
    """
    from dataclasses import asdict

    from protocols.app.update import UpdatePlan, update_and_save
    from protocols.provenance import command_line
    from protocols.recipes.building import load_model
    from slots.errors import OutdatedError
    from slots.storage.locking import reserved
    from slots.update.config import UpdateConfig
    from slots.update.self_training import SpreadConfig

    if spread and labels is None:
        raise usage("--spread must come with --labels, got none to spread. Label a queries.csv first.")
    loaded_model = load_model(model, device=device)
    loaded = load(data, data_dir, loaded_model, columns=(text_column, label_column))
    chosen = part or ("train" if len(loaded.x_train) else "test")
    part_of(loaded, chosen)
    columns = (("--text-column", text_column), ("--label-column", label_column))
    named = tuple(word for option, value in columns if value for word in (option, value))
    plan = UpdatePlan(
        part=chosen, budget=budget, labels=labels, dry_run=dry_run, source=data, columns=named, wait=wait, doubt=recall
    )
    config = UpdateConfig(spread=SpreadConfig() if spread else None, recall=recall)
    with progress_bar() as progress:

        def learn(current: SlotModel) -> UpdateSummary:
            return update_and_save(
                current, loaded, plan, folder=model, command=command_line(), config=config, progress=progress
            )

        try:
            done = learn(loaded_model)
        except OutdatedError:
            remark("Another generation was written meanwhile: planning again on it.")
            with reserved(model, wait=wait):  # so that nobody is faster a second time
                done = learn(load_model(model, device=device))
    if as_json:
        print_json(asdict(done))
        return
    say(f"{done.unmatched} of {done.n_examples} inputs are unmatched.")
    if done.queries_file and done.queries:
        say(
            f"{done.queries} labels would cover {100 * done.covered:.1f} % of them (at most {100 * done.bound:.1f} % "
            f"for any {done.queries}).",
            f"Label them: {done.page} or {done.queries_file}",
        )
        if done.purity is not None:
            say(f"Groups like theirs have one label to {100 * done.purity:.1f} % (measured on remembered examples).")
    if not dry_run:
        clusters = f", {done.clusters_added} of them clusters to be named" if done.clusters_added else ""
        say(
            f"Generation {done.generation}: {done.slots_added} slots added{clusters}; {done.labels_used} labels used, "
            f"{done.changed_matched_answers} matched answers changed. {done.elapsed_s:.0f} s"
        )
        if done.verdict:
            say(f"Judged: {done.scope}. {done.verdict}")
    sets = (("new data", done.stream), ("never asked about", done.never_queried), ("held out", done.held_out))
    rows = [(name, it.n, it.before, it.control, it.after) for name, it in sets if it and not dry_run]
    if rows:
        print_table("", [("accuracy", "examples", "before", "labels, no new slots", "after"), *rows])
    for it in done.contradictions[:5]:
        say(f"Example {it['example']} is labelled {it['label']}, but slot {it['slot']} says {it['answer']}.")
    if n := len(done.contradictions):
        say(f"{n} labels contradict a slot; its answer stands. Mend it with slots relabel, merge or delete.")
    if not dry_run and done.slots_added:
        say_next("diff", model)
    elif dry_run and done.queries_file and done.queries:
        say_next("update", model, "--data", data, "--part", chosen, *named, "--labels", done.queries_file)


def propose(
    model: Model,
    shards: Shards = None,
    budget: Annotated[int | None, typer.Option(min=0, help="Labels you can give; default: all that pay.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of queries.csv and groups/.")] = None,
    stop_below: Annotated[
        int | None,
        typer.Option(min=1, help="Least rows that a label must stand for. Default: 1 with --budget, else 1 in 500."),
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(help="Of the groups, in radians. Default: measured on what the model remembers."),
    ] = None,
    purity: Annotated[float, typer.Option(help="Without --radius: wanted share of a group that has one label.")] = 0.95,
    max_candidates: Annotated[
        int, typer.Option(min=1, help="Rows that may be asked about, an even sample of the unmatched.")
    ] = 2000,
    data: Annotated[str | None, typer.Option(hidden=True)] = None,
    rows: Rows = ROWS,
    workers: Workers = 1,
    engine: Engine = "processes",
    id_column: IdColumn = None,
    text_column: TextColumn = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the few rows of very many whose labels would tell most about what no slot matches.

    Writes queries.csv, the rows to label, the most useful first, and the folder groups: a Parquet file a shard with all
    unmatched rows and the query in whose group each is. The model is not changed.
    """
    if data is not None or shards is None:
        raise usage(
            "slots propose takes --shards PATTERN, files of any size. For --data that fits into memory: slots update "
            f"{model} --data {data or 'NAME'} --dry-run."
        )
    over_shards(
        model, "propose", shards, out, rows=rows, workers=workers, engine=engine, text_column=text_column,
        id_column=id_column, device=device, as_json=as_json, budget=budget, stop_below=stop_below, radius=radius,
        purity=purity, max_candidates=max_candidates,
    )  # fmt: skip
