"""The job that makes an archive the next generation of a model, or only says what that would change."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocols.recipes.building import load_model
from protocols.service.answering.loaded import Loaded
from protocols.service.inbox.refusals import ConflictError
from protocols.service.jobs.archives.unpacking import ARCHIVE, unpack
from protocols.service.jobs.child.tasks import Task
from slots.errors import DataError, SlotsError
from slots.model.comparison import Difference, diff
from slots.model.slot_model import SlotModel
from slots.progress import Progress, part
from slots.storage.importing import MOST_GENERATION, holds_same, import_state
from slots.storage.states import files_of, load_document, read_pointer

_LISTED = 100  # changed answers that a result lists


@dataclass(frozen=True)
class Imported:
    """What an import changed, or would.

    Parameters
    ----------
    before, generation : int
        The generation that was there, and the new one; the same where its content is the archive's already, and where
        it was only found out.
    dry_run : bool
        Whether it was only found out.
    same : bool
        Whether the content was the archive's already: then nothing is done.
    sha256 : str
        Of the archive.
    archived : int
        The generation that the archive is of, by its own count.
    slots, slots_before : int
        Slots of the archive, and of the generation that was there (count).
    slots_added, slots_removed, slots_relabelled : int
        What becomes of the slots (count).
    compared, changed : int
        Remembered examples that were matched, and those of them that are answered otherwise (count).
    changes : list of dict
        The first of these: `slots.model.comparison.ChangedAnswer`.
    renamed : int
        Label ids that the generation there answers with and that have another name in the archive (count).
    proven : bool
        Whether for every possible input what was matched before has the same answer now.
    reasons : list of str
        Why it is not proven; empty where it is.
    """

    before: int
    generation: int
    dry_run: bool
    same: bool
    sha256: str
    archived: int
    slots: int
    slots_before: int
    slots_added: int
    slots_removed: int
    slots_relabelled: int
    compared: int
    changed: int
    changes: list[dict[str, Any]]
    renamed: int
    proven: bool
    reasons: list[str]


def bring_in(task: Task, progress: Progress) -> dict[str, Any]:
    """Import the archive of a job's material; the form is `Imported`."""
    folder, dry_run = task.material / "model", bool(task.arguments["dry_run"])
    shutil.rmtree(folder, ignore_errors=True)  # of the try before, where another writer was faster
    progress("unpacking", 0.0)
    n_files = unpack(task.material / ARCHIVE, folder, progress=part(progress, 0.0, 0.3))
    progress("checking", 0.3)
    newcomer = _loaded(folder, task.device, n_files)
    progress("comparing", 0.6)
    model = load_model(task.folder, device=task.device)
    asked = task.arguments.get("generation")
    if asked not in (None, model.generation):
        raise ConflictError(
            f"The import is onto generation {asked}, and generation {model.generation} is there now. "
            "Nothing was imported; try it dry again."
        )
    difference = _compared(model, newcomer)
    same = holds_same(task.folder, folder)
    number = model.generation
    if not (same or dry_run):
        progress("saving", 0.9)
        figures = {**_recorded(task), "proven": difference.proven, "changed": len(difference.changed)}
        figures |= {"detail": f"archive {figures['sha256'][:12]} of generation {newcomer.generation}"}
        figures |= {"before": number}
        number = import_state(task.folder, folder, onto=number, n_slots=newcomer.head.n_slots, figures=figures)
    return asdict(_imported(task, (model, newcomer), difference, number=number, same=same))


def _loaded(folder: Path, device: str, n_files: int) -> SlotModel:
    """The archive's model, which has answered once; nothing of it was taken on trust."""
    try:
        pointer = read_pointer(folder)
        path = folder / "states" / pointer.current
        if pointer.generations != [pointer.current] or len(files_of(load_document(path), path)) + 2 != n_files:
            raise DataError("it has other files than its model lists")
        model = Loaded.load(folder, device).model
        if model.generation > MOST_GENERATION:
            raise DataError(
                f"it counts {model.generation:,} generations, of at most {MOST_GENERATION:,}: it was edited"
            )
        if int(model.head.generations.max()) > model.generation:  # nothing bounds them where there is no history
            raise DataError("its slots are of later generations than its history has")
    except SlotsError as error:
        said = str(error).replace(f"{folder}/", "").replace(str(folder), "the archive").rstrip(".")
        raise DataError(
            f"The archive must hold a model that can be served, but: {said}. Nothing was imported."
        ) from error
    return model


def _compared(model: SlotModel, newcomer: SlotModel) -> Difference:
    mine, theirs = model.preprocessing, newcomer.preprocessing
    if (mine.kind, mine.shape) != (theirs.kind, theirs.shape):
        raise DataError(
            f"The archive's model must take the same inputs as the model that is served, {mine.kind} of shape "
            f"{tuple(mine.shape)}, got {theirs.kind} of shape {tuple(theirs.shape)}. Serve it by another name."
        )
    return diff(model, newcomer)


def _recorded(task: Task) -> dict[str, Any]:
    """What the history keeps of a job: by its token it is found again if nobody hears the answer."""
    return {"job": task.token, "by": task.by, "sha256": task.arguments["sha256"]}


def _imported(
    task: Task, models: tuple[SlotModel, SlotModel], difference: Difference, *, number: int, same: bool
) -> Imported:
    model, newcomer = models
    return Imported(
        before=model.generation,
        generation=number,
        dry_run=bool(task.arguments["dry_run"]),
        same=same,
        sha256=task.arguments["sha256"],
        archived=newcomer.generation,
        slots=newcomer.head.n_slots,
        slots_before=model.head.n_slots,
        slots_added=len(difference.added),
        slots_removed=len(difference.removed),
        slots_relabelled=len(difference.relabelled),
        compared=difference.n_compared,
        changed=len(difference.changed),
        changes=[asdict(it) for it in difference.changed[:_LISTED]],
        renamed=len(difference.renamed),
        proven=difference.proven,
        reasons=list(difference.reasons),
    )
