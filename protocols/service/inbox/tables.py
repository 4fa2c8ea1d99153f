"""The tables of the service's database, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

VERSION = 1
"""Of this layout; a database of another is refused, or migrated where that is known how."""

metadata = MetaData()

_number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself only in an INTEGER

meta = Table(
    "meta", metadata, Column("name", String(64), primary_key=True), Column("value", String(256), nullable=False)
)
"""The layout's version, and what else there is one of."""

item = Table(
    "item",
    metadata,
    Column("number", _number, primary_key=True, autoincrement=True),  # the order they came in
    Column("model", String(128), nullable=False),
    Column("id", String(256), nullable=False),  # the client's, or the content's digest
    Column("received", Float, nullable=False),  # seconds since 1970
    Column("key_id", Integer),
    Column("media", String(64), nullable=False),  # application/x-float32 | text/plain | image/png ...
    Column("content", LargeBinary),  # small ones; else NULL, and the blob of this digest
    Column("digest", String(64), nullable=False),  # SHA-256 of the content
    Column("size", _number, nullable=False),  # bytes of the content
    Column("generation", Integer, nullable=False),  # of the model that answered
    Column("answer", String(16), nullable=False),  # matched | ambiguous | unmatched
    Column("label_id", Integer, nullable=False),
    Column("label", String(256), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("margin", Float, nullable=False),
    Column("p_value", Float),
    Column("score", Float),
    Column("state", String(16), nullable=False),  # open | labelled | learned | set_aside
    UniqueConstraint("model", "id", name="item_of_model"),
    Index("item_state", "model", "state", "number"),
    Index("item_answer", "model", "answer", "number"),
    Index("item_digest", "digest"),
    sqlite_autoincrement=True,  # a number is never given twice: cursors and query lists hold numbers
)
"""What came in, with the answer it got."""

label = Table(
    "label",
    metadata,
    Column("number", _number, primary_key=True, autoincrement=True),
    Column("item", _number, ForeignKey("item.number", ondelete="CASCADE"), nullable=False, index=True),
    Column("label", String(256)),  # NULL takes an earlier one back
    Column("sure", Integer, nullable=False, default=1),
    Column("given", Float, nullable=False),
    Column("key_id", Integer),
    Column("by", String(128), nullable=False),  # the key's name: people are told apart by it
    Column("source", String(32), nullable=False, default="api"),  # api | review | labelstudio
    Column("group_id", _number),  # labelled with its whole group
    sqlite_autoincrement=True,  # what is undone is named by its numbers
)
"""Labels that people gave; append-only: the last one of each person counts."""

review = Table(
    "review",
    metadata,
    Column("number", _number, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False, index=True),
    Column("made", Float, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("unmatched", Integer, nullable=False),  # items that the groups were made of
    Column("bound", Integer, nullable=False),  # as many groups could cover no more than this
    Column("purity", Float),
)
"""Query lists."""

review_group = Table(
    "review_group",
    metadata,
    Column("number", _number, primary_key=True, autoincrement=True),
    Column("review", _number, ForeignKey("review.number", ondelete="CASCADE"), nullable=False, index=True),
    Column("place", Integer, nullable=False),  # 0 covers most
    Column("middle", _number, nullable=False),  # the item to look at
    Column("gain", Integer, nullable=False),  # items it covers that no group before it does
    Column("state", String(16), nullable=False),  # open | labelled | skipped
)
"""Groups of a query list."""

member = Table(
    "member",
    metadata,
    Column("review_group", _number, ForeignKey("review_group.number", ondelete="CASCADE"), primary_key=True),
    Column("item", _number, ForeignKey("item.number", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, nullable=False),
    Column("out", Integer, nullable=False, default=0),  # thrown out by whoever looked
)
"""Items of a group."""

job = Table(
    "job",
    metadata,
    Column("number", _number, primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False, index=True),
    Column("kind", String(32), nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("state", String(16), nullable=False),  # queued | running | done | failed | cancelled | interrupted
    Column("step", String(128), nullable=False, default=""),
    Column("share", Float, nullable=False, default=0.0),
    Column("result", JSON),
    Column("error", JSON),  # problem details
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("key_id", Integer),
    Column("by", String(128), nullable=False),
)
"""Work that takes longer than a request."""

event = Table(
    "event",
    metadata,
    Column("number", _number, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("key_id", Integer),
    Column("by", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("model", String(128), nullable=False, default=""),
    Column("before", Integer),  # generations
    Column("after", Integer),
    Column("request", String(64), nullable=False, default=""),
    Column("detail", JSON, nullable=False),
    Column("previous", String(64), nullable=False),  # digest of the event before
    Column("digest", String(64), nullable=False),
)
"""Who did what, each row with the digest of the row before."""

api_key = Table(
    "api_key",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("name", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("model", String(128)),  # NULL: all of them
    Column("digest", String(64), nullable=False, unique=True),  # SHA-256 of the key
    Column("created", Float, nullable=False),
    Column("revoked", Float),
    Column("last_used", Float),
)
"""Keys, as digests alone."""

done_request = Table(
    "done_request",
    metadata,
    Column("key", String(256), primary_key=True),  # of the client (Idempotency-Key), with route and caller
    Column("body", String(64), nullable=False),  # SHA-256 of the request's body
    Column("at", Float, nullable=False),
    Column("status", Integer, nullable=False),
    Column("response", JSON, nullable=False),
)
"""Answers to requests that may come again."""

drift_minute = Table(
    "drift_minute",
    metadata,
    Column("model", String(128), primary_key=True),
    Column("era", Integer, primary_key=True),  # of the drift monitor: a generation begins one, and so does a person
    Column("start", _number, primary_key=True),  # first second of the minute, since 1970
    Column("generation", Integer, nullable=False),  # of the model that answered
    Column("figures", JSON, nullable=False),
    Index("drift_minute_start", "model", "start"),
)
"""What a drift monitor saw, minute by minute."""

kept_state = Table(
    "kept_state",
    metadata,
    Column("name", String(256), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
"""Running states that must survive a restart, such as a drift monitor's."""
