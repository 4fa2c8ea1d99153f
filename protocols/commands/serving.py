"""``slots serve``, ``keys`` and ``audit``: a service that answers, learns and can be undone, and who may use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from protocols.commands.options import AsJson, Device, usage
from protocols.commands.terminal import print_json, print_table, say

if TYPE_CHECKING:
    from protocols.service.gate.keys import Key
    from protocols.service.inbox.database import Database as ServiceDatabase

DATA_FOLDER = "The service's data folder, or the model folder whose `service` it is."
Database = Annotated[str, typer.Option("--db", help="URL of a database. Default: SQLite in the data folder.")]

Store = Annotated[
    str,
    typer.Option(
        envvar="SLOTS_STORE",
        metavar="POLICY",
        help="Which items are kept, by their answer: such as unmatched:all,matched:5%; all; none. A request may say "
        "otherwise. Default: all that is unmatched or ambiguous, and 1% of what is matched.",
    ),
]
KeepDays = Annotated[
    float,
    typer.Option(
        envvar="SLOTS_KEEP_DAYS", min=0, help="After so many days matched items go that nobody labelled or asked about."
    ),
]
MaxItems = Annotated[int, typer.Option(envvar="SLOTS_MAX_ITEMS", min=0, help="Items that are kept at most.")]
MaxSize = Annotated[
    float, typer.Option("--max-gib", envvar="SLOTS_MAX_GIB", min=0, help="Their contents at most, in GiB.")
]
MinFree = Annotated[
    float,
    typer.Option("--min-free-mib", envvar="SLOTS_MIN_FREE_MIB", min=0, help="What must stay free on the disk, in MiB."),
]
MaxBody = Annotated[
    float,
    typer.Option(
        "--max-body-mib", envvar="SLOTS_MAX_BODY_MIB", min=0.001, help="A request's body, or a stream's line, in MiB."
    ),
]
MaxArchive = Annotated[
    float,
    typer.Option(
        "--max-archive-mib",
        envvar="SLOTS_MAX_ARCHIVE_MIB",
        min=0.001,
        help="A model's archive that is imported, after decompression, in MiB.",
    ),
]
MaxStreams = Annotated[
    int, typer.Option(envvar="SLOTS_MAX_STREAMS", min=1, help="Streams of events that are open at a time.")
]
KeyStreams = Annotated[
    int, typer.Option("--streams-per-key", envvar="SLOTS_STREAMS_PER_KEY", min=1, help="Those of one key.")
]
BatchRows = Annotated[
    int,
    typer.Option(envvar="SLOTS_BATCH_ROWS", min=1, help="Inputs of several requests that are answered together."),
]


def serve(
    models: Annotated[list[str] | None, typer.Argument(help="Model folders, or NAME=FOLDER.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any that is free.")] = 8080,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the service's own data. Default: `service` in the first model folder."),
    ] = None,
    database: Database = "",
    rate: Annotated[
        float,
        typer.Option("--false-alarm-rate", min=0, max=1, help="Share of familiar inputs that may be called novel."),
    ] = 0.05,
    drain: Annotated[
        float, typer.Option(min=0, help="Seconds between saying that it is not ready and refusing connections.")
    ] = 0.0,
    requests: Annotated[
        float, typer.Option("--requests-per-second", min=0, help="Requests of one key; 0 for no bound.")
    ] = 1000.0,
    admin_key_file: Annotated[
        Path | None,
        typer.Option(help="A file with an administrator's key, made at the first start. Default: $SLOTS_ADMIN_KEY."),
    ] = None,
    store: Store = "",
    keep_days: KeepDays = 30.0,
    max_items: MaxItems = 5_000_000,
    max_gib: MaxSize = 50.0,
    min_free_mib: MinFree = 256.0,
    max_body_mib: MaxBody = 8.0,
    max_archive_mib: MaxArchive = 1024.0,
    max_streams: MaxStreams = 256,
    streams_per_key: KeyStreams = 16,
    batch_rows: BatchRows = 64,
    publish: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="Publish each generation there, for --follow: a folder, or an address such as s3://...",
        ),
    ] = "",
    follow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE/NAME",
            help="Answer with a model that another service publishes. Or NAME=PLACE, by another name.",
        ),
    ] = None,
    device: Device = "auto",
    demo: Annotated[
        bool, typer.Option("--demo", help="Fit the digits 0 to 7 and let a stream with 8s and 9s come in.")
    ] = False,
    openapi: Annotated[bool, typer.Option("--openapi", help="Print the API's description, and serve nothing.")] = False,
) -> None:
    """Serve models over HTTP until interrupted: answers, novelty, a queue of what is new, labels, updates, undo.

    It needs nothing but a model folder. What comes in and what is labelled lies in the data folder; new generations go
    into the model folder, where `slots log`, `slots diff` and `slots undo` see them.
    """
    from slots.importing import lasting

    try:
        with lasting():
            from protocols.service.gate.first_key import given_key
            from protocols.service.running import run
            from protocols.service.settings import Keeping, Limits, Policy, Settings
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if openapi:
        from protocols.service.application import api_description

        print_json(api_description())
        return
    pairs = [_named(word) for word in models or []]
    followed = [_named(word) for word in follow or []]
    if bool(pairs or followed) == demo:
        raise usage("Say either which model folders to serve or to follow, or --demo.")
    named, places = {name: Path(folder) for name, folder in pairs}, dict(followed)
    if len(named) + len(places) != len(pairs) + len(followed):
        raise usage(f"Model names must differ, got {', '.join(name for name, _ in pairs + followed)}. Use NAME=FOLDER.")
    if places and not named and data is None:
        raise usage("`--data` must name a folder for the service's own data where it only follows, got nothing.")
    settings = Settings(
        models={"digits": Path("digits")} if demo else named,
        data=data or next(iter(named.values()), Path()) / "service",
        host=host,
        port=port,
        database=database,
        device=device,
        false_alarm_rate=rate,
        drain_seconds=drain,
        admin_key=given_key(admin_key_file),
        limits=Limits(
            requests_per_second=requests,
            body=round(max_body_mib * 2**20),
            archive=round(max_archive_mib * 2**20),
            batch_rows=batch_rows,
            streams=max_streams,
            streams_per_key=streams_per_key,
        ),
        keeping=Keeping(
            policy=Policy.parse(store, Policy()) if store else Policy(),
            items=max_items,
            size=round(max_gib * 2**30),
            free=round(min_free_mib * 2**20),
            sample_days=keep_days,
        ),
        publish=publish,
        follow=places,
    )
    if demo:
        from protocols.service.demo import run_demo

        run_demo(settings, keep=data, said=say)
        return
    names = ", ".join([*named, *places])
    run(settings, started=lambda address: say(f"Serving {names} at {address}", "Stop it with Ctrl-C."))


def keys(
    action: Annotated[str, typer.Argument(help="add, list or revoke.")],
    name: Annotated[str, typer.Argument(help="Who or what will use it; to revoke, its number will do.")] = "",
    data: Annotated[Path | None, typer.Option(help=DATA_FOLDER)] = None,
    database: Database = "",
    role: Annotated[
        str, typer.Option(help="read, ingest, label or admin; each may do what those before it may.")
    ] = "read",
    model: Annotated[str | None, typer.Option(help="The only model it is for. Default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make, list and revoke the keys of a service, also while it runs. A key is shown once, and kept as its SHA-256.

    From the first key on every request needs one, but questions whether the service lives.
    """
    if action not in ("add", "list", "revoke") or (action == "list") == bool(name):
        raise usage("Say `slots keys add NAME`, `slots keys list` or `slots keys revoke NAME`, each with --data.")
    with _database(data, database) as opened:
        from protocols.service.callers import LOCAL
        from protocols.service.gate.keys import add_key, revoke_key, role_of
        from protocols.service.gate.keys import keys as read_keys

        if action == "add":
            key, secret = opened.write_now(lambda it: add_key(it, LOCAL, name, role_of(role), model))
            if as_json:
                print_json({**_key_facts(key), "key": secret})
            else:
                say(secret)
                say(f"That is key {key.number}, {key.name}: {role}. It is shown now and never again.", err=True)
        elif action == "revoke":
            found = opened.write_now(lambda it: revoke_key(it, LOCAL, name))
            if found is None:
                raise usage(f"`NAME` must be a key in use, got {name}. `slots keys list` shows them.")
            if as_json:
                print_json(_key_facts(found))
            else:
                say(f"Key {found.number}, {found.name}, is revoked. A running service knows it within a second.")
        else:
            listed = [_key_facts(it) for it in opened.read_now(read_keys)]
            if as_json:
                print_json({"keys": listed})
            else:
                heading = ("key", "name", "role", "model", "made (UTC)", "revoked", "last used")
                print_table("", [heading, *(tuple(it.values()) for it in listed)])


def audit(
    action: Annotated[str, typer.Argument(help="verify.")],
    data: Annotated[Path | None, typer.Option(help=DATA_FOLDER)] = None,
    database: Database = "",
    head: Annotated[
        str | None, typer.Option(help="A digest that `slots audit verify` printed before: is it still in the log?")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look whether the log of who did what is whole: no row changed, removed, inserted or moved.

    Whoever can write to the database can write the whole log anew: keep the digest that is printed in another place.
    """
    if action != "verify":
        raise usage(f"Say `slots audit verify`, got {action}.")
    with _database(data, database) as opened:
        from protocols.service.inbox.events import verify

        verdict = opened.read_now(lambda it: verify(it, expected=head))
    if as_json:
        print_json({"events": verdict.n_events, "head": verdict.head, "faults": list(verdict.faults)})
    elif not verdict.faults:
        say(f"The log is whole: {verdict.n_events} events. Its last digest: {verdict.head}")
    if verdict.faults:
        from slots.errors import StorageError

        raise StorageError(f"The log is not whole. {' '.join(verdict.faults[:20])} Compare it with a backup.")


@contextmanager
def _database(data: Path | None, url: str) -> Iterator[ServiceDatabase]:
    """The database of a service, by its data folder, by a model folder that holds one, or by its URL."""
    try:
        from protocols.service.inbox.database import Database as Opened
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if data is None and not url:
        raise usage("`--data` must name the service's data folder, or the model folder that holds it, got nothing.")
    if url:
        opened = Opened(url)
    else:
        assert data is not None
        if not data.is_dir():
            raise usage(f"`--data` must be a folder that is there, got {data}.")
        opened = Opened.in_folder(data / "service" if (data / "slots.json").exists() else data)
    try:
        yield opened
    finally:
        opened.close()


def _key_facts(key: Key) -> dict[str, Any]:
    """What is shown of a key."""
    return {
        "number": key.number,
        "name": key.name,
        "role": key.role.name.lower(),
        "model": key.model,
        "created": _when(key.created),
        "revoked": _when(key.revoked),
        "last_used": _when(key.last_used),
    }


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _missing(error: ModuleNotFoundError) -> Exception:
    from slots.errors import MissingExtraError

    return MissingExtraError(
        f"`slots serve` needs the package {error.name}. Install it: pip install 'neural-slots[serve]'"
    )


def _named(word: str) -> tuple[str, str]:
    """The name, and the folder or address, that a word stands for."""
    name, equals, place = word.partition("=")
    if not equals or "/" in name:
        name, place = Path(word).resolve().name, word
    if not name or not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or len(name) > 128:
        raise usage(f"A model's name must consist of letters, digits, '-', '_' and '.', got {name!r}. Use NAME=FOLDER.")
    return name, place
