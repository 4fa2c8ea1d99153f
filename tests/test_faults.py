"""A short pass of the command line killed, refused by the disk and cut off from power; `make fuzz` is longer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import faults, power_loss

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not faults.available(), reason="needs Linux and a C compiler"),
]


BOTH = """
import os, sys
from pathlib import Path
from support import kill_commands, power_loss
made, *passes = sys.argv[1:]
kill_commands.base(Path(made))  # once, and here: what a fit imports, each fork of a fit would import again
for script, words in zip((kill_commands, power_loss), passes, strict=True):
    if os.fork() == 0:
        sys.argv = [script.__file__, "--made", made, *words.split()]
        sys.exit(script.main())
    if os.wait()[1]:
        sys.exit(1)
"""


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """Of a pass of each, in two forks of a process that has the library before all others and has imported all."""
    library = faults.built(tmp_path_factory.mktemp("library"))
    kills = "--cases 24 --seed 2 --only relabel --only undo --only queries"
    losses = "--states 30 --only fit --only merge"
    environment = faults.environment(library)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), environment.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-c", BOTH, tmp_path_factory.mktemp("made"), kills, losses]
    done = subprocess.run(command, capture_output=True, env=environment, text=True, timeout=480, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_commands_killed_or_refused_at_an_operation(counts):
    counts, _ = counts
    assert counts["cases"] == 24
    assert counts["all cases"] == 6 * sum(counts["operations"].values()) > 300
    assert min(counts["killed"], counts["refused"], counts["then before"], counts["then after"]) >= 2


def test_commands_that_lose_power(counts):
    _, counts = counts
    assert counts["states looked at"] >= 50
    assert counts["after the acknowledgement"] >= 2  # one a command at least; more where something is not synced
    assert min(counts["then before"], counts["then after"]) >= 5


def test_a_disk_keeps_what_was_synced_and_may_lose_the_rest(tmp_path):
    disk = power_loss.Disk(tmp_path)
    operation = power_loss.Operation
    root = str(tmp_path)
    for number, (kind, path, other, data) in enumerate(
        [
            ("create", f"{root}/.a.tmp", "", b""),
            ("write", f"{root}/.a.tmp", "", b"x" * 600),
            ("sync", f"{root}/.a.tmp", "", b""),
            ("rename", f"{root}/.a.tmp", f"{root}/a", b""),
        ]
    ):
        disk.do(number, operation(kind, path, other, 0, data))
    rng = power_loss.random.Random(0)
    whole = b"x" * 600
    found = [disk.crash(lambda it: rng.choice([True, False, None]), rng) for _ in range(200)]
    assert all(set(tree.values()) <= {whole} for tree in found)  # its bytes were synced, its name was not
    assert {tuple(sorted(tree)) for tree in found} == {(), (".a.tmp",), ("a",), (".a.tmp", "a")}
    disk.do(9, operation("sync", root, "", 0, b""))
    assert disk.crash(lambda _: False, rng) == {"a": whole}
    disk.do(10, operation("write", f"{root}/a", "", 600, b"y" * 600))
    torn = [disk.crash(lambda _: None, rng)["a"] for _ in range(50)]
    assert len(set(torn)) > 10
    assert all(data[:512] == whole[:512] for data in torn)  # sectors that nobody wrote to stay
