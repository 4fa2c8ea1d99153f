"""A PostgreSQL server for tests, from the programs that lie on this machine, on a socket and in a folder of its own."""

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy
from sqlalchemy import text
from sqlalchemy.pool import NullPool


@cache
def programs():
    """The folder of `initdb` and `pg_ctl`; None where there is none, or no driver."""
    if find_spec("psycopg") is None:
        return None
    beside = [Path(found).parent for found in (shutil.which("initdb"),) if found]
    installed = sorted(Path(it) for it in glob.glob("/usr/lib/postgresql/*/bin"))
    return next((it for it in [*beside, *reversed(installed)] if (it / "pg_ctl").exists()), None)


def _somebody():
    """The user who runs the server, who must not be root; None for whoever this is."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("root has nobody who could run PostgreSQL")


class Server:
    """A running server; `with` stops it and removes its folder.

    Parameters
    ----------
    sync : bool, default False
        Whether what is committed is forced to the disk, as it is by default elsewhere.
    """

    def __init__(self, *, sync=False):
        self._user, self._counted = _somebody(), itertools.count()
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has 107 characters
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._data = self.folder / "data"
        self._run("initdb", "-D", self._data, "-U", "slots", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        settings = ["listen_addresses=''", f"unix_socket_directories='{self.folder}'", "max_connections=60"]
        settings += [] if sync else ["fsync=off"]
        (self._data / "postgresql.auto.conf").write_text("\n".join(settings) + "\n")
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        """Start it, and return when it takes connections."""
        self._run("pg_ctl", "-D", self._data, "-l", self.folder / "log", "-w", "-t", "120", "start")

    def stop(self, *, immediate=True):
        """Stop it; ``immediate`` as a crash would, so that it recovers when it starts."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate" if immediate else "fast", "-w", "-t", "120", "stop")

    def address(self, name):
        """URL of a database."""
        return f"postgresql+psycopg://slots@/{name}?host={self.folder}"

    def new(self):
        """URL of a new, empty database."""
        name = f"test_{next(self._counted)}"
        engine = sqlalchemy.create_engine(self.address("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return self.address(name)

    def _run(self, program, *options):
        bin_folder = programs()
        assert bin_folder is not None
        who = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        # Files, not pipes: the server keeps what its starter had open.
        with (self.folder / "said").open("w") as said:
            done = subprocess.run(
                [str(bin_folder / program), *map(str, options)],
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                **who,
            )
        if done.returncode:
            raise AssertionError((self.folder / "said").read_text()[-2000:])
