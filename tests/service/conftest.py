"""One small model and one service on it for all tests that change nothing."""

import shutil

import pytest
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
