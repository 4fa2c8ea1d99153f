"""What is forked from the nursery is a process like one that was started: streams, folder, environment, end, seeds."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import nursery
from support.command import SLOTS

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="starts the command itself there")

LOOKS = """
import json, os, random, signal, sys, tempfile, threading, time, atexit
import numpy as np
import torch
atexit.register(print, "exit functions ran")
threading.Thread(target=lambda: (time.sleep(0.3), print("a thread ended"))).start()
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(json.dumps({
    "words": sys.argv, "folder": os.getcwd(), "variable": os.environ.get("SLOTS_TEST"),
    "open": sorted(int(it) for it in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{it}")),
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler, "blocked": len(blocked),
    "drawn": [random.random(), float(np.random.rand())], "torch": torch.rand(1).item(), "name": __name__,
    "threads": torch.get_num_threads(), "temporary": tempfile.gettempdir(), "group": os.getpgid(0),
}))
sys.stderr.write("said\\n")
if sys.argv[1] == "fails":
    raise ValueError("so it is")
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def looks(tmp_path):
    script = tmp_path / "looks.py"
    script.write_text(LOOKS)
    return script


def test_a_fork_is_as_a_start_would_be(looks, tmp_path):
    env = {**nursery.BASE, "SLOTS_TEST": "here", "TMPDIR": str(tmp_path)}
    done = [nursery.run(["7", b"caf\xe9"], script=looks, cwd=tmp_path, env=env) for _ in range(2)]
    first, second = (json.loads(it.stdout.splitlines()[0]) for it in done)
    assert [(it.returncode, it.stderr) for it in done] == [(7, "said\n")] * 2
    assert done[0].stdout.splitlines()[1:] == ["a thread ended", "exit functions ran"]
    assert first["words"] == [str(looks), "7", "caf\udce9"]
    assert (first["folder"], first["variable"], first["temporary"]) == (str(tmp_path), "here", str(tmp_path))
    assert first["open"] == [0, 1, 2]
    assert (first["interrupt"], first["blocked"], first["name"], first["threads"]) == (True, 0, "__main__", 1)
    assert first["group"] == os.getpgid(0)
    assert set(first["drawn"]).isdisjoint(second["drawn"])  # seeded by the system, as in each interpreter
    assert first["torch"] == second["torch"]  # seeded with the same number, as in each interpreter


def test_an_error_is_shown_and_has_its_status(looks):
    done = nursery.run(["fails"], script=looks)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ValueError: so it is")
    assert "exit functions ran" in done.stdout


def test_the_command_says_what_the_installed_one_says(tmp_path):
    for words, status in ((["--version"], 0), (["show", "nowhere"], 4), (["fit"], 2)):
        done = nursery.run(words, cwd=tmp_path)
        own = subprocess.run([*SLOTS, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (own.returncode, own.stdout, own.stderr)
        assert done.returncode == status


def test_signals_reach_it_and_it_can_be_waited_for(tmp_path):
    script = tmp_path / "waits.py"
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = nursery.begin([], script=script, piped=True, env=nursery.BASE)
        assert process.stdout.readline() == "up\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(60) == process.poll() == -number
        process.kill()  # of what has ended: nothing
        process.stdout.close()


def test_one_server_forks_for_all_that_ask(looks):
    assert nursery.run(["0"], script=looks).returncode == 0
    other = nursery.Nursery()
    assert other._server is None  # it found one
    with open(os.devnull, "r+b") as nothing:
        line = other.fork((["5"], str(looks), os.getcwd(), nursery.BASE), [nothing.fileno()] * 3)
    begun = nursery.Begun(line, None)
    assert begun.wait(60) == 5
    other.close()
    assert nursery.run(["0"], script=looks).returncode == 0


def test_what_an_import_sets_itself_does_not_keep_from_forking():
    set_by_torch = {
        "TORCHINDUCTOR_CACHE_DIR": "there",
        "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    assert nursery.can_fork({**nursery.BASE, **set_by_torch, "KMP_INIT_AT_FORK": "FALSE"})
    assert not nursery.can_fork({**nursery.BASE, "PYTHONWARNINGS": "error"})


def test_where_an_import_may_read_the_environment_the_command_itself_is_started(tmp_path):
    process = nursery.begin(["--version"], env={**os.environ, "PYTHONWARNINGS": "error"})
    assert isinstance(process, subprocess.Popen)
    assert process.communicate()[0].startswith("slots ")


def test_a_script_that_begins_a_server_leaves_it_no_pipes(tmp_path):
    """Another environment has a server of its own, which outlives the script: its reader must not wait for that one."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(nursery.__file__).parents[1])!r}); from support import nursery; "
        "nursery.Nursery(); print('done')"
    )
    env = os.environ | {"ANOTHER_ENVIRONMENT": tmp_path.name, "SLOTS_TEST_RUN": str(os.getpid())}
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "done\n"
