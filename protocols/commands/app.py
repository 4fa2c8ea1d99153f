"""The ``slots`` command: its commands in one list, and every error as one line and an exit status."""

from __future__ import annotations

import functools
import io
import sys
import traceback
from typing import Annotated, Any

import typer

from protocols.commands import detection, doctor, exporting, history, model, run, serving, update
from protocols.commands.parsing import completion, with_common_options
from protocols.commands.terminal import say, set_volume

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

COMMANDS = (
    (model.fit, "Example:  slots fit --backbone pixels --data mnist --out runs/mnist --json"),
    (model.evaluate, "Example:  slots evaluate runs/mnist-pixels --data mnist"),
    (
        model.predict,
        "Examples:  slots predict runs/m a.png b.png   slots predict runs/m --data new.npz --out answers.csv   "
        "slots predict runs/m --shards 'data/*.parquet' --workers 4 --out answers",
    ),
    (model.show, "Example:  slots show runs/digits-pixels"),
    (
        update.update,
        "Examples:  slots update runs/m --data new.npz --budget 50 --dry-run   "
        "slots update runs/m --data new.npz --labels labels.csv",
    ),
    (
        update.propose,
        "Example:  slots propose runs/m --shards 'data/*.parquet' --budget 50 --workers 4 --out proposed",
    ),
    (history.log, "Example:  slots log runs/mnist-pixels"),
    (
        history.diff,
        "Examples:  slots diff runs/m   slots diff runs/m 0 3 --data digits   slots diff runs/before runs/after",
    ),
    (history.undo, "Examples:  slots undo runs/m   slots undo runs/m --to 0"),
    (history.prune, "Examples:  slots prune runs/m --keep 10 --keep-days 30   slots prune runs/m --pin 3"),
    (
        history.relabel,
        "Examples:  slots relabel runs/m --slots 3,7 --label cat   "
        'slots relabel runs/m --cluster "cluster 12" --label cat',
    ),
    (history.merge, 'Example:  slots merge runs/m --from "cluster 12" --from "cluster 15" --into cat'),
    (history.delete, "Example:  slots delete runs/m --slots 3,7 --dry-run"),
    (
        detection.ood,
        "Example:  slots ood runs/mnist-pixels --data fashion_mnist --false-alarm-rate 0.01 --out scores.csv",
    ),
    (detection.clean, "Examples:  slots clean mnist   slots clean runs/mnist-pixels --data mnist --limit 200"),
    (detection.certify, "Example:  slots certify runs/mnist-pixels --data mnist --radius 1.58"),
    (serving.serve, "Examples:  slots serve runs/digits   slots serve cats=runs/a dogs=runs/b --port 9000"),
    (
        serving.keys,
        "Examples:  slots keys add anna --role label --data runs/digits   slots keys revoke anna --data runs/digits",
    ),
    (serving.audit, "Example:  slots audit verify --data runs/digits"),
    (
        exporting.report,
        "Examples:  slots report runs/digits   slots report runs/m --data new.npz --out new.html",
    ),
    (
        exporting.explain,
        "Examples:  slots explain runs/m --unit layers.3:5   slots explain runs/m --unit layers.0 --unit slots:7",
    ),
    (exporting.export, "Example:  slots export runs/digits-pixels --to mlflow exported/digits"),
    (run.run, "Example:  slots run continual --data mnist --peers all --seeds 3"),
    (doctor.doctor, None),
)
"""Every command in the order of the help, with an example for the end of its own."""


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


for _command, _example in COMMANDS:
    app.command(epilog=_example)(with_common_options(_command))
app.command(epilog='Example:  eval "$(slots completion bash)"')(completion)


@functools.cache
def parser() -> Any:
    """Every command's parser, made once a process: typer makes them anew at each call, 90 ms for these commands."""
    return typer.main.get_command(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line: 0 ok, 1 a bug, 2 usage, 3 bad data, 4 bad model, 5 storage, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal's encoding lacks is spelt out
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in given
    set_volume("normal")  # another command of this process may have changed it
    try:
        status = parser()(args=given, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        say("Interrupted. A fit goes on from its last epoch with --resume, a run from its last seed.", err=True)
        status = 130
    except Exception as error:  # noqa: BLE001  # the one place where every error becomes a line and a status
        if debug:
            say(*traceback.format_exc().splitlines(), err=True)
        status = int(getattr(error, "exit_code", 1))  # the package's errors and typer's carry theirs
        say(f"Error: {_message(error, status)}", err=True)
    sys.exit(status if isinstance(status, int) else 0)


def _message(error: Exception, status: int) -> str:
    """One line on an error; what nobody foresaw is called a bug."""
    if status == 1 and isinstance(error, ImportError) and (clash := _clash()):
        return clash
    describe = getattr(error, "format_message", None)  # the parser's errors
    text = " ".join(str(describe() if callable(describe) else error).split())
    if status == 1:
        return f"Internal error ({type(error).__name__}), please report it; --debug shows where: {text}"
    return text


def _clash() -> str:
    """Say which package of ours is another's, since that is why a module of it is missing; empty if none is."""
    from protocols.app.doctor import find_foreign

    found = find_foreign(sys.path)
    return f"{found[0].message}. Mend it: {found[0].fix}" if found else ""
