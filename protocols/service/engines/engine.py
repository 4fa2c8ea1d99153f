"""Engines for the two databases, set up so that what is committed is on the disk."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import QueuePool

from slots.errors import MissingExtraError, UsageError

_BUSY_SECONDS = 30.0
_CONNECTIONS = 8

# How long a server that does not answer is waited for; a URL may say otherwise.
_PATIENCE = {"connect_timeout": "5", "tcp_user_timeout": "20000"}  # seconds; milliseconds


def make_engine(address: str) -> Engine:
    """An engine for a database.

    Parameters
    ----------
    address : str
        ``sqlite:///FILE`` or ``postgresql+psycopg://...``. Transactions that write need the execution option
        ``slots_writes``, for the others there is `reading`.

    Raises
    ------
    UsageError
        If the URL is of another kind, or none.
    MissingExtraError
        If its driver is not installed.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError) as error:
        raise _unknown("no URL") from error
    make = {"sqlite": _sqlite, "postgresql": _postgresql}.get(url.get_backend_name())
    if make is None:
        raise _unknown(repr(url.drivername))
    try:
        return make(url)
    except NoSuchModuleError as error:
        raise _unknown(repr(url.drivername)) from error


def _unknown(got: str) -> UsageError:  # never the URL itself: it may hold a password
    return UsageError(
        f"`database` must be a URL of SQLite or PostgreSQL, got {got}. Leave it out for SQLite, or name "
        "postgresql+psycopg://USER@HOST/DATABASE."
    )


def _sqlite(url: URL) -> Engine:
    engine = sqlalchemy.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=_CONNECTIONS,
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _prepare(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # the driver's own idea of transactions knows no savepoints
        cursor = raw.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        # A transaction that reads first and writes then would fail if another process wrote in between.
        writes = connection.get_execution_options().get("slots_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    given = {name: word for name, word in _PATIENCE.items() if name not in url.query}
    try:
        engine = sqlalchemy.create_engine(
            url, pool_pre_ping=True, poolclass=QueuePool, pool_size=_CONNECTIONS, connect_args=given
        )
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"PostgreSQL needs the package {error.name}. Install it: pip install 'neural-slots[serve,postgres]'"
        ) from error

    @event.listens_for(engine, "connect")
    def _prepare(raw: Any, _record: Any) -> None:
        # Where the server's default is off, a commit would be acknowledged before it is on the disk.
        raw.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        raw.commit()

    return engine


def reading(engine: Engine) -> Engine:
    """The same engine for transactions that only read: they see one state of the database, as SQLite's do."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
