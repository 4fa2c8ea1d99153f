"""`join`: from the environment that ``torchrun`` makes to the processes that it started."""

from __future__ import annotations

import os
from collections.abc import Mapping

from slots.distributed.ranks import ALONE, Ranks
from slots.errors import UsageError

_START_S = 300
"""Seconds in which all processes must have come."""

_DAYS = 365  # that a process may take: a slow one is not lost, only one whose connection is closed


def join(environment: Mapping[str, str] | None = None) -> Ranks:
    """Join the processes that ``torchrun`` started with this one.

    Parameters
    ----------
    environment : mapping of str to str, optional
        With RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as ``torchrun`` sets them. Default: that of the process.

    Returns
    -------
    Ranks
        `ALONE` where WORLD_SIZE is not set, or 1.

    Raises
    ------
    UsageError
        If the environment is incomplete, or not all processes come within five minutes.
    """
    given = os.environ if environment is None else environment
    size = given.get("WORLD_SIZE", "1")
    if size == "1":
        return ALONE
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not given.get(name)]
    if missing or not (size.isdigit() and given["RANK"].isdigit()):
        raise UsageError(
            f"WORLD_SIZE={size} must come with what else torchrun sets, and {', '.join(missing) or 'a number'} is "
            "missing. Start with `torchrun --nproc-per-node N`, or unset WORLD_SIZE."
        )
    from datetime import timedelta

    import torch
    from torch import distributed as dist

    from slots.distributed.process_group import ProcessRanks

    rank, address = int(given["RANK"]), (given["MASTER_ADDR"], int(given["MASTER_PORT"]))
    owns_store = rank == 0 and given.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    patience = timedelta(seconds=_START_S)
    try:
        store = dist.PrefixStore(  # type: ignore[attr-defined]  # a restart by torchrun finds the old entries
            f"slots/{given.get('TORCHELASTIC_RESTART_COUNT', 0)}",
            dist.TCPStore(address[0], address[1], int(size), owns_store, patience),  # type: ignore[attr-defined]
        )
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=int(size), timeout=timedelta(days=_DAYS))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"All {size} processes must meet at {address[0]}:{address[1]}, and process {rank} met nobody: "
            f"{str(error).splitlines()[0][:200]}. Start them together."
        ) from error
    return ProcessRanks()
