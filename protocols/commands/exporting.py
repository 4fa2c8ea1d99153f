"""``slots export``: a model for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from protocols.commands.options import AsJson, Model, usage
from protocols.commands.terminal import print_json, say


def export(
    model: Model,
    out: Annotated[Path, typer.Argument(help="A new folder for it; nothing is overwritten.")],
    to: Annotated[
        str, typer.Option("--to", help="mlflow: a model that mlflow.pyfunc loads (extra mlflow).")
    ] = "mlflow",
    as_json: AsJson = False,
) -> None:
    """Write a model for other tools: its current generation, whole, without a pickle or a path of this machine."""
    if to != "mlflow":
        raise usage(f"`--to` must be mlflow, got {to}.")
    from protocols.app.exporting import export_mlflow

    made = export_mlflow(model, out)
    if as_json:
        print_json({"model": str(model), "to": to, "folder": str(made)})
        return
    say(f"{made} is a model of MLflow: mlflow.pyfunc.load_model({str(made)!r})")
