"""``slots fit`` by processes of which one is killed, then again with ``--resume``: ``python rank_kill.py FOLDER``.

Writes one JSON object to stdout. One process imports torch and the command's parts; all others are forks of it that run
the command with the environment that ``torchrun`` would give them.
"""

import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch

from protocols.app.fit import checkpoint_path
from protocols.commands import main

SIZE, VICTIM = 3, 1
WORDS = (
    "--data", "digits", "--backbone", "pixels", "--classes", "0-3", "--slots-per-class", "16", "--epochs", "20",
    "--vouch", "none", "--device", "cpu", "--json",
)  # fmt: skip
"""A recipe without a look at the data, several steps an epoch, in which each process has its share of the slots."""


def start(folder, size, name, *options):
    """Processes that fit together; each says what it says in a file of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os.environ |= {
                "WORLD_SIZE": str(size), "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)
            }  # fmt: skip
            for number, stream in ((1, "out"), (2, "err")):
                os.dup2(os.open(folder / f"{name}.{rank}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            main(["fit", *WORDS, "--out", str(folder / name), *options])
        pids.append(pid)
    return pids


def by_one_process(folder, name):
    """Here, so that what a fit imports and compiles is there before the forks; exit status."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            main(["fit", *WORDS, "--out", str(folder / name)])
    except SystemExit as end:
        return end.code


def ended(pids):
    """Exit statuses."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def digests(model):
    """Of the files with numbers, whatever the folder of the generation is called."""
    files = sorted(model.glob("states/*/*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def story(folder):
    """A fit by one process; one of which a process is killed; its end by more processes."""
    alone = by_one_process(folder, "alone")
    pids = start(folder, SIZE, "killed")
    checkpoint = checkpoint_path(folder / "killed")
    while not checkpoint.exists() and os.waitpid(pids[0], os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    os.kill(pids[VICTIM], signal.SIGKILL)
    killed = ended(pids)
    said = [(folder / f"killed.{rank}.err").read_text() for rank in range(SIZE)]
    left = checkpoint.exists(), (folder / "killed").exists()
    resumed = ended(start(folder, SIZE + 1, "killed", "--resume"))
    return {
        "statuses": [alone, killed, resumed],
        "said": said,
        "left": left,
        "printed": [len((folder / f"killed.{rank}.out").read_text()) for rank in range(SIZE + 1)],
        "checkpoint": checkpoint.exists(),
        "digests": [digests(folder / "alone"), digests(folder / "killed")],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(story(Path(sys.argv[1]))))
