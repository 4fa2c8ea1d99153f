"""Keys for tests, made in the database of a data folder before or while a service runs on it."""

from protocols.service.callers import LOCAL
from protocols.service.gate.keys import add_key, revoke_key, role_of
from protocols.service.inbox.database import Database


def cut(folder, name="anna", role="admin", model=None):
    """A new key, as the command line makes it: another connection than the service's."""
    database = Database.in_folder(folder)
    try:
        return database.write_now(lambda it: add_key(it, LOCAL, name, role_of(role), model))[1]
    finally:
        database.close()


def revoke(folder, name):
    """Take a key back."""
    database = Database.in_folder(folder)
    try:
        return database.write_now(lambda it: revoke_key(it, LOCAL, name))
    finally:
        database.close()


def bearer(key):
    """The header of a key."""
    return {"Authorization": f"Bearer {key}"}
