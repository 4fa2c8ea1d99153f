"""Four processes that join as gloo ranks once and do many things in groups of one to four: ``python rank_party.py``.

Run as ``python rank_party.py CASES FOLDER``: ``CASES`` is a module beside this one with a function ``cases(ranks)``
that yields names and dictionaries of arrays, and ``warm()``, called before the forks. What the process of rank ``r`` in
the group of ``n`` found is written to ``FOLDER/NAME-n-r.npz``. One process imports torch, and the others are its forks.
"""

import importlib
import os
import socket
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist

MOST = 4


def main(module, folder):
    torch.set_num_threads(1)
    cases = importlib.import_module(module).cases
    importlib.import_module(module).warm()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(MOST):
        child = os.fork()
        if child == 0:
            take_part(cases, Path(folder), rank, port)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    raise SystemExit(max(map(abs, codes)))


def take_part(cases, folder, rank, port):
    from slots.distributed.process_group import ProcessRanks

    try:
        store = dist.TCPStore("127.0.0.1", port, MOST, rank == 0)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=MOST)
        groups = [dist.new_group(list(range(size))) for size in range(1, MOST + 1)]
        for size, group in enumerate(groups, 1):
            if rank < size:
                for name, found in cases(ProcessRanks(group)):
                    np.savez(folder / f"{name}-{size}-{rank}.npz", **found)
        dist.barrier()
    except BaseException:  # noqa: BLE001  # a fork must not go on with what its parent was about to do
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
