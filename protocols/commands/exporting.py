"""``slots report``, ``slots explain`` and ``slots export``: a model as pages for people, and for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocols.commands.options import (
    DATA,
    AsJson,
    DataDir,
    Device,
    LabelColumn,
    Model,
    TextColumn,
    load,
    usage,
)
from protocols.commands.terminal import print_json, print_table, say, say_next

if TYPE_CHECKING:
    import numpy.typing as npt

    from slots.model.slot_model import SlotModel

_EXPLAINED, _MEASURED = 10, 500  # inputs


def report(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(
            help=f"What to measure on, by its labelled test part: {DATA} Default: the named set of the fit, where it "
            "is here; else nothing is measured."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The page. Default: report.html in the model folder.")] = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Write the report page of a model anew, as it is now: its slots, its answers to test examples, its history."""
    from dataclasses import asdict

    from protocols.app.reporting.report import data_of_fit, report_and_save
    from protocols.recipes.building import load_model

    loaded = load_model(model, device=device)
    if data is None:
        tested = data_of_fit(loaded, data_dir)
    else:
        tested = load(data, data_dir, loaded, columns=(text_column, label_column))
    done = report_and_save(loaded, tested, folder=model, out=out or model / "report.html")
    if as_json:
        print_json(asdict(done))
        return
    say(f"Generation {done.generation}: {done.n_slots} slots")
    if done.on_test is not None:
        shares = done.on_test.accuracy, done.on_test.matched, done.on_test.accuracy_matched
        heads = ("", "accuracy", "matched", "right when matched")
        print_table(f"{done.data}, {done.on_test.n} examples", [heads, ("test", *shares)])
    if done.n_foreign:
        say(f"{done.n_foreign} examples of classes without a slot are left out.")
    say(f"Report: {done.report}")
    if done.data is None:
        say_next("report", model, "--data", "DATA")


def explain(
    model: Model,
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Image files whose answers are explained; without --unit.")
    ] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(
            help="LAYER:INDEX, or LAYER for up to 40 of its units, drawn at random; may be given again. Layers are "
            "those of the backbone, by their names in PyTorch, and slots."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help=f"Inputs to measure units on, or without --unit to explain: {DATA} Default: the named set of the fit, "
            "where it is here."
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Most inputs of the data, drawn at random. Default: 500 for units, 10 to explain."),
    ] = None,
    permutations: Annotated[int, typer.Option(min=1, help="Draws of each null.")] = 199,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The page. Default: explain.html in the model folder.")] = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Write a page that says why a model answers as it does, or test what its units stand for (--unit)."""
    from dataclasses import asdict

    from protocols.app.answers import load_inputs
    from protocols.app.reporting.answering import some_inputs
    from protocols.app.reporting.report import data_of_fit
    from protocols.recipes.building import load_model

    if inputs and (unit or data):
        raise usage("Image files must come without --unit and --data. Units are measured on data.")
    loaded = load_model(model, device=device)
    page = out or model / "explain.html"
    if inputs:
        _explain_answers(loaded, load_inputs(loaded, inputs, None), folder=model, out=page, as_json=as_json)
        return
    given = data_of_fit(loaded, data_dir) if data is None else load(data, data_dir, loaded)
    if given is None:
        raise usage("`--data` must be given: the data of the fit has no name, or is not on this machine.")
    if not unit:
        drawn = some_inputs(given, images or _EXPLAINED, seed=seed)
        _explain_answers(loaded, drawn, folder=model, out=page, as_json=as_json)
        return
    from protocols.app.reporting.explaining import explain_and_save
    from protocols.summaries.units import Asked

    asked = Asked(_MEASURED if images is None else images, permutations, seed)
    done = explain_and_save(loaded, given, unit, folder=model, out=page, asked=asked)
    if as_json:
        print_json(asdict(done))
        return
    heads = ("unit", *(row.name for row in next(iter(done.units.values()))))
    lines = [(name, *(_argument(row.statistic, row.p_value) for row in rows)) for name, rows in done.units.items()]
    print_table(f"{done.data}, {done.n_images} inputs: statistic (p-value)", [heads, *lines])
    say(f"Page: {done.page}")


def _explain_answers(
    model: SlotModel,
    inputs: tuple[list[str], npt.NDArray[Any]],
    *,
    folder: Path,
    out: Path,
    as_json: bool,
) -> None:
    """Explain the answers to named inputs."""
    from dataclasses import asdict

    from protocols.app.reporting.answering import explain_answers

    done = explain_answers(model, *inputs, folder=folder, out=out)
    if as_json:
        print_json(asdict(done))
        return
    rows = [("input", "answer", "", "slot", "next", "parts")]
    for it in done.answers:
        rows.append((it.name, it.label, it.answer, str(it.slot), it.rival or "–", str(len(it.parts) or "–")))
    print_table("", rows)
    say(f"Page: {done.page}")


def _argument(statistic: float | None, p_value: float | None) -> str:
    """A cell of the table."""
    return "–" if statistic is None or p_value is None else f"{statistic:.2f} ({p_value:.3f})"


def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="A new folder for it; nothing is overwritten.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="mlflow: a model that mlflow.pyfunc loads (extra mlflow). onnx: one graph from raw inputs to labels, "
            "model.onnx (extra onnx).",
        ),
    ] = "mlflow",
    data: Annotated[
        str | None,
        typer.Option(
            help=f"With --to onnx: inputs that graph and model must answer alike: {DATA} Default: remembered."
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a model for other tools: its current generation, whole, without a pickle or a path of this machine."""
    if to not in ("mlflow", "onnx"):
        raise usage(f"`--to` must be mlflow or onnx, got {to}.")
    if to == "onnx":
        _export_onnx(model, out, data, data_dir, as_json)
        return
    if data is not None:
        raise usage("`--data` must be left out with --to mlflow: nothing is compared there.")
    from protocols.app.exporting import export_mlflow

    made = export_mlflow(model, out)
    if as_json:
        print_json({"model": str(model), "to": to, "folder": str(made)})
        return
    say(f"{made} is a model of MLflow: mlflow.pyfunc.load_model({str(made)!r})")


def _export_onnx(model: Path, out: Path, data: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Write the graph and say how it was checked."""
    from dataclasses import asdict

    from protocols.app.onnx_graph.export import export_onnx
    from protocols.recipes.building import load_model

    given = None
    if data is not None:
        loaded = load(data, data_dir, load_model(model, device="cpu"))
        given = loaded.x_test if len(loaded.x_test) else loaded.x_train
    file, checked = export_onnx(model, out, given=given)
    if as_json:
        shown = None if checked is None else asdict(checked)
        print_json({"model": str(model), "to": "onnx", "folder": str(out), "file": str(file), "checked": shown})
        return
    say(f"{file} is an ONNX graph from raw inputs to label, answer, matched, slot and pooled_label.")
    if checked is None:
        say("It was not checked: onnxruntime is not installed.")
        return
    same = f"the same answers to {checked.source}"
    if checked.n_near_ties:
        same += f", but for {checked.n_near_ties} that lie closer to a border than float32 rounds"
    say(f"Checked by onnxruntime {checked.runtime}: {same}. Features differ by {checked.distance:.1g} at most.")
