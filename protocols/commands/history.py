"""``slots log``, ``diff``, ``undo``, ``relabel``, ``merge`` and ``delete``: a model's history, and explicit edits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocols.commands.options import DATA, AsJson, DataDir, LabelColumn, Model, TextColumn, Wait, load, part_of, usage
from protocols.commands.terminal import print_json, print_table, say, say_next

if TYPE_CHECKING:
    from collections.abc import Callable

    from slots.model.editing import EditReport
    from slots.model.slot_model import SlotModel

SlotList = Annotated[str, typer.Option("--slots", help="Slot numbers, such as 3,7.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would change, and change nothing.")]


def log(model: Model, as_json: AsJson = False) -> None:
    """List the generations of a model: fit, updates, edits and undos."""
    from dataclasses import asdict

    from slots.storage.generations import log as read_log

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
    if len(entries) > 1:
        say_next("diff", model)


def diff(
    model: Model,
    old: Annotated[str | None, typer.Argument(help="Older generation, or a second model folder.")] = None,
    new: Annotated[str | None, typer.Argument(help="Newer generation. Default: the current one.")] = None,
    data: Annotated[str | None, typer.Option(help=f"Inputs to compare the answers on: {DATA}")] = None,
    part: Annotated[str, typer.Option(help="test or train, of --data.")] = "test",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say what changed between two generations, and whether any matched answer can have changed.

    Without numbers it compares the current generation with the one before.
    """
    from dataclasses import asdict

    from protocols.app.history import difference_lines, load_pair
    from slots.model.comparison import diff as compare

    older, newer = load_pair(model, old, new)
    found = compare(
        older,
        newer,
        None if data is None else part_of(load(data, data_dir, older, columns=(text_column, label_column)), part)[0],
    )
    if as_json:
        print_json({"model": str(model), **asdict(found)})
        return
    for line in difference_lines(found):
        say(line)


def undo(
    model: Model,
    to: Annotated[int | None, typer.Option(min=0, help="Generation to go back to. Default: the one before.")] = None,
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="With --to: change nothing where its content is current already.")
    ] = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Go back to an older generation, under a new number: nothing is lost, and an undo can be undone with --to.

    Each undo without --to goes one step further back. With --to and --if-needed it can be repeated: after a crash, for
    example, when nobody knows whether it was done.
    """
    from dataclasses import asdict

    from slots.storage.generations import undo as go_back

    entry = go_back(model, to, if_needed=if_needed, wait=wait)
    if as_json:
        print_json({"model": str(model), **asdict(entry)})
        return
    say(f"Generation {entry.number} is generation {entry.content} again: {entry.n_slots} slots.")
    if to is None:
        say(f"Once more would go further back; to repeat this one: slots undo --to {entry.content} --if-needed.")


def prune(
    model: Model,
    keep: Annotated[int | None, typer.Option(min=1, help="Keep the newest so many generations.")] = None,
    keep_days: Annotated[float | None, typer.Option(min=0.0, help="Keep those of the last so many days.")] = None,
    pin: Annotated[list[int] | None, typer.Option(help="A generation never to be removed; once for each.")] = None,
    unpin: Annotated[list[int] | None, typer.Option(help="A generation that need not be kept any more.")] = None,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Free the disk of old generations: those that neither --keep nor --keep-days keeps.

    Never the current one, the fit or a pinned one. Their lines stay in `slots log`; they cannot be gone back to.
    """
    from dataclasses import asdict

    from slots.storage.pruning import prune as drop

    done = drop(model, keep=keep, keep_days=keep_days, pin=pin or (), unpin=unpin or (), dry_run=dry_run, wait=wait)
    if as_json:
        print_json({"model": str(model), "dry_run": dry_run, **asdict(done)})
        return
    would = "would be removed" if dry_run else "removed"
    said = f"{len(done.removed)} generations {would}, {len(done.kept)} kept, {done.freed_bytes / 1e6:,.1f} MB freed."
    say(said)
    if done.pinned:
        say(f"Pinned: {', '.join(map(str, done.pinned))}.")


def relabel(
    model: Model,
    label: Annotated[str, typer.Option(help="A label of the model, or a new one.")],
    slots: Annotated[str | None, typer.Option(help="Slot numbers, such as 3,7.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Instead: all slots of this cluster or label.")] = None,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Give slots another label, or a cluster its name; says which remembered examples are answered otherwise."""
    from protocols.app.history import read_slots
    from slots.model.editing import merge as merge_labels
    from slots.model.editing import relabel as relabel_slots

    if (slots is None) == (cluster is None):
        raise usage("Give --slots or --cluster, one of the two.")
    numbers = [] if slots is None else read_slots(slots)
    if cluster is None:
        _edit(model, lambda it: relabel_slots(it, numbers, label), dry_run, wait, as_json)
    else:
        _edit(model, lambda it: merge_labels(it, [cluster], label), dry_run, wait, as_json)


def merge(
    model: Model,
    names: Annotated[list[str], typer.Option("--from", help="A label or cluster; give it once for each.")],
    into: Annotated[str, typer.Option(help="A label of the model, or a new one.")],
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Make one label of several: all their slots get it. The slots themselves stay as they are."""
    from slots.model.editing import merge as merge_labels

    _edit(model, lambda it: merge_labels(it, names, into), dry_run, wait, as_json)


def delete(model: Model, slots: SlotList, dry_run: DryRun = False, wait: Wait = 60.0, as_json: AsJson = False) -> None:
    """Forget slots; the slots behind them get new numbers. `slots undo` brings them back."""
    from protocols.app.history import read_slots
    from slots.model.editing import delete as delete_slots

    numbers = read_slots(slots)
    _edit(model, lambda it: delete_slots(it, numbers), dry_run, wait, as_json)


def _edit(model: Path, edit: Callable[[SlotModel], EditReport], dry_run: bool, wait: float, as_json: bool) -> None:
    """Edit, save, and print what changed."""
    from dataclasses import asdict

    from protocols.app.history import edit_and_save, edit_lines

    done = edit_and_save(model, edit, dry_run=dry_run, wait=wait)
    if as_json:
        print_json({"model": str(model), "dry_run": dry_run, "n_in_passing": done.n_in_passing, **asdict(done)})
        return
    for line in edit_lines(done, dry_run=dry_run):
        say(line)
    if not dry_run:
        say_next("diff", model)
