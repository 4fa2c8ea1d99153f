"""One small model and one service on it for all tests that change nothing."""

import shutil

import pytest
from support import postgresql as server
from support.service import running, small_model


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "small"
    small_model(folder)
    return folder


@pytest.fixture(scope="session")
def client(small, tmp_path_factory):
    with running(small, tmp_path_factory.mktemp("data")) as client:
        yield client


@pytest.fixture
def own(small, tmp_path):
    """A copy of the model that a test may change."""
    return shutil.copytree(small, tmp_path / "own")


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server for all tests that want a database on one."""
    if server.programs() is None:
        pytest.skip("needs PostgreSQL's programs (Debian: apt-get install postgresql) and the extra postgres")
    with server.Server() as running_server:
        yield running_server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def new_database(request):
    """Makes an empty database of one kind, then the other, and gives its URL; empty for SQLite in the data folder."""
    if request.param == "sqlite":
        return str
    return request.getfixturevalue("postgresql").new
