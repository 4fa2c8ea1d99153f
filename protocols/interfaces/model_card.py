"""The card of a model: what it knows, what was measured, what it holds of its training data."""

from __future__ import annotations

from typing import Any

from protocols.summaries.fit import Vouched
from slots.model.slot_model import SlotModel

_TASKS = {"images": "image-classification", "text": "text-classification", "features": "tabular-classification"}
_TAGS = ("prototypes", "open-set", "abstention", "continual-learning", "model_hub_mixin", "pytorch_model_hub_mixin")
_MOST_NAMES = 30


def model_card(model: SlotModel, **fields: Any) -> Any:
    """Card of a model, with what its fit measured where it was fitted by ``slots fit``.

    Parameters
    ----------
    model : SlotModel
        A fitted model.
    **fields
        Of the header, as `huggingface_hub.ModelCardData` takes them, for example ``license``; they win.

    Returns
    -------
    ModelCard
        A header in YAML and a text in Markdown.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    task = _TASKS[model.preprocessing.kind]
    figures = model.history[0].figures if model.history and model.history[0].what == "fit" else {}
    header: dict[str, Any] = {
        "library_name": "neural-slots",
        "pipeline_tag": task,
        "tags": list(_TAGS),
    }
    if figures.get("test_accuracy") is not None:
        data = str(figures["data"])
        measured = {
            "Accuracy": figures["test_accuracy"],
            "Share of answers that a slot matches": figures.get("test_matched"),
            "Accuracy of matched answers": figures.get("test_accuracy_matched"),
        }
        header["model_name"] = f"slots on {data}"
        header["eval_results"] = [
            EvalResult(
                task_type=task, dataset_type=data, dataset_name=data, metric_type="accuracy", metric_name=name,
                metric_value=round(float(value), 6),
            )
            for name, value in measured.items()
            if value is not None
        ]  # fmt: skip
    head = ModelCardData(**{**header, **fields}).to_yaml()
    return ModelCard(f"---\n{head}\n---\n\n{_text(model, figures)}")


def _text(model: SlotModel, figures: dict[str, Any]) -> str:
    labels = [model.class_name(it) for it in range(model.n_labels)]
    more = len(labels) - _MOST_NAMES
    names = ", ".join(_plain(it) for it in labels[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    kind, shape = model.preprocessing.kind, model.preprocessing.shape
    takes = {
        "images": f"uint8 images of {' x '.join(map(str, shape[1:]))} pixels (height x width), {shape[0]} channels",
        "text": "sentences",
        "features": f"rows of {shape[0] if shape else 0} numbers",
    }[kind]
    backbone = (model.backbone_spec or ("none", {}))[0]
    vouched = Vouched.of_history(figures) if figures else None
    lines = [
        f"# {model.n_labels} classes, {model.head.n_slots} slots",
        "",
        "A prototype classifier of neural-slots. It answers with a label, or abstains: an answer is *matched* where "
        "the slots of one label fire, *ambiguous* where those of several do, and *unmatched* where none does.",
        "",
        f"- Takes {takes}. Backbone: {backbone}.",
        f"- Classes: {names}.",
        f"- Generation {model.generation}: {model.generation} changes since the fit.",
    ]
    if vouched is not None:
        lines.append(f"- {vouched}")
    if model.novelty is not None:
        lines.append("- Says how foreign an input is, at a rate of false alarms that you choose.")
    lines += [
        "",
        "## Use",
        "",
        "```python",
        "from protocols.interfaces import HubModel",
        "",
        'model = HubModel.from_pretrained("FOLDER").model',
        "answers = model.predict(x)         # answers.labels, answers.matched, answers.slots",
        "```",
        "",
        "In a shell: `slots show FOLDER`, `slots predict FOLDER --data DATA`.",
        "",
        "## Limits",
        "",
        "- Matched answers are as reliable as above on inputs like the training data; nothing is promised of others.",
        f"- {_remembered(model)}",
    ]
    if kind == "text":
        lines.append("- The sentence encoder is named, not held: it must be on the machine that answers.")
    return "\n".join(lines) + "\n"


def _remembered(model: SlotModel) -> str:
    count = int((model.head.exemplars >= 0).sum())
    if model.thumbnails is None:
        return f"The folder holds features of training examples: its slots remember {count}."
    what = "pictures" if model.preprocessing.kind == "images" else "beginnings of texts"
    return f"The folder holds training data: the slots show {what} of {count} examples that they remember."


def _plain(name: str) -> str:
    """A name of a class as text, not as markup."""
    return "".join(f"\\{it}" if it in "\\`*_{}[]<>#|!" else it for it in " ".join(name.split()))
