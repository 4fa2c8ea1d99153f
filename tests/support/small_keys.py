"""A key whose number nobody guesses, for tests that send anything to the routes of keys."""

from contextlib import closing

from sqlalchemy import update

from protocols.service.callers import LOCAL, Role
from protocols.service.gate.keys import add_key
from protocols.service.inbox.database import Database
from protocols.service.inbox.tables import api_key

NUMBER = 1_918_273_645


def keyed(data):
    """Make an administrator's key in the database of a data folder; its secret."""

    def work(connection):
        made, secret = add_key(connection, LOCAL, "fuzz", Role.ADMIN, None)
        connection.execute(update(api_key).where(api_key.c.number == made.number).values(number=NUMBER))
        return secret

    with closing(Database.in_folder(data)) as database:
        return database.write_now(work)
