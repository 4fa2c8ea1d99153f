"""A client of `slots serve`."""

from slots.client.documents import (
    Group,
    ItemReceipt,
    Job,
    ServedAnswer,
    ServedAnswers,
    ServedSlot,
    StoredItem,
    StreamReceipt,
)
from slots.client.service_client import Client

__all__ = [
    "Client",
    "Group",
    "ItemReceipt",
    "Job",
    "ServedAnswer",
    "ServedAnswers",
    "ServedSlot",
    "StoredItem",
    "StreamReceipt",
]
