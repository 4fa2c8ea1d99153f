"""Forks that stand for the interpreters of pytest-xdist: what they have, how they end, and where there are none."""

import os
import signal
import subprocess
import sys

import pytest
from support import worker_nursery

SAYS = """
import os, sys
line = sys.stdin.readline().strip()
print(line, "numbers" in sys.modules and "collected_here" in vars(sys), os.environ.get("TOLD"), os.getcwd(), flush=True)
sys.stderr.write("heard")
sys.exit(7)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no forks of this kind on this system")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Start a server for a test file; the command that stands for an interpreter."""
    monkeypatch.chdir(tmp_path)

    def start(text):
        (tmp_path / "test_it.py").write_text(text)
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:schemathesis\n")
        command = worker_nursery.start([tmp_path / "test_it.py"], f"slots-workers-{os.getpid()}-{tmp_path.name}")
        return lambda code: [*command, "-u", "-c", code]

    return start


def said(command, tmp_path, **env):
    return subprocess.run(
        command, input="a line\n", capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **env}, check=False
    )


def test_a_worker_is_a_fork_that_has_collected_the_tests(begun, tmp_path):
    command = begun("import sys, numbers\nsys.collected_here = True\ndef test_it(): pass\n")
    for told in ("one", "two"):
        done = said(command(SAYS), tmp_path, TOLD=told)
        assert done.stdout == f"a line True {told} {tmp_path}\n"
        assert (done.stderr, done.returncode) == ("heard", 7)


def test_what_a_terminal_is_told_to_be_is_that_of_the_server(begun, tmp_path, monkeypatch):
    """Pytest tells what it starts, once it has read lines; workers would take it for another environment."""
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.delenv("LINES", raising=False)
    command = begun("def test_it(): pass\n")
    code = "import os; print(os.environ.get('COLUMNS'), os.environ.get('LINES'), os.environ['TOLD'])"
    assert said(command(code), tmp_path, COLUMNS="80", LINES="24", TOLD="one").stdout == "77 None one\n"


def test_a_killed_fork_is_a_killed_worker(begun, tmp_path):
    command = begun("import sys\nsys.collected_here = True\ndef test_it(): pass\n")
    done = said(command(f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"), tmp_path)
    assert done.returncode not in {0, 7}
    assert said(command(SAYS), tmp_path).returncode == 7  # the server forks others


@pytest.mark.parametrize(
    "text",
    [
        "import sys\nsys.collected_here = True\nraise ValueError",
        "import sys, threading\nsys.collected_here = True\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\ndef test_it(): pass\n",
    ],
    ids=["a test that cannot be imported", "a test that starts a thread"],
)
def test_what_cannot_be_forked_is_an_interpreter_of_its_own(begun, tmp_path, text):
    done = said(begun(text)(SAYS), tmp_path, TOLD="one")
    assert done.stdout == f"a line False one {tmp_path}\n"
    assert (done.stderr, done.returncode) == ("heard", 7)


def test_this_process_is_a_fork_where_it_is_a_worker():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("not a worker")
    assert sys.modules["__main__"].__file__ == worker_nursery.__file__
