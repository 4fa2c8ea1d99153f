"""The page of ``slots update``: a picture or the text of each query, and a field for its label."""

from __future__ import annotations

from protocols.data.dataset import check_sum
from protocols.pages.cards import excerpt
from protocols.pages.environment import render_page
from protocols.pages.pictures import data_uri, png
from protocols.summaries.update import COLUMNS
from slots.features.exemplars import thumbnails
from slots.model.slot_model import SlotModel
from slots.shapes import RawInputs
from slots.update.queries import Proposal


def queries_page(model: SlotModel, x: RawInputs, proposal: Proposal, *, command: str) -> str:
    """A page with the picture or text of each query and a field for its label; it saves the filled-in list by itself.

    Parameters
    ----------
    model : SlotModel
        Gives the guesses their names, and the labels to choose from.
    x : array of shape (example, ...)
        The new data; the queries' pictures or texts are taken from it.
    proposal : Proposal
        For ``x``, with the queries in their order.
    command : str
        What to run with the saved list.

    Returns
    -------
    str
        HTML that asks for no other file and no network.
    """
    pictures = [""] * len(proposal.queries)
    is_text = model.preprocessing.kind == "text"
    if model.preprocessing.kind == "images":
        images = thumbnails(x, proposal.queries[:, None])
        pictures = [data_uri(png(image[0])) for image in images]
    rows = [
        {
            "example": int(row),
            "guess": model.class_name(int(proposal.prediction.labels[row])),
            "covers": int(gain),
            "check": check_sum(x, int(row)),
            "picture": picture,
            "text": str(x[int(row)]) if is_text else "",
            "excerpt": excerpt(x, int(row)) if is_text else "",
        }
        for row, gain, picture in zip(proposal.queries, proposal.gains, pictures, strict=True)
    ]
    names = [
        name
        for label, name in enumerate(model.class_names)
        if label not in model.clusters  # a person names things; a cluster has no name yet
    ]
    return render_page(
        "queries.html",
        rows=rows,
        names=names,
        proposal=proposal,
        columns=(*COLUMNS, "text") if is_text else COLUMNS,
        command=command,
    )
