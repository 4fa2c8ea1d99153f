"""Every test starts from the same seed and runs on one thread, so that results repeat."""

import atexit
import gc
import os
import shlex
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from support import worker_nursery

LONGEST = (
    "head/estimators/test_estimators.py", "head/cover/test_fused.py", "nets/test_backbones.py", "test_readme.py",
    "service/test_kills.py", "test_packaging.py", "test_cli.py", "runs/transfer/test_transfer.py",
    "service/test_postgresql.py", "head/distributed/test_ranks.py", "head/distributed/test_rank_kill.py",
    "service/browsing/test_every_page.py", "runs/app/test_doctor.py", "runs/data/test_hostile_images.py",
    "head/robust/test_certify.py", "head/index/test_index.py", "head/update/test_guarantee.py", "service/test_jobs.py",
    "service/browsing/test_keyboard.py", "service/test_one_service.py", "runs/lifetime/test_lifetime.py",
    "test_fuzz.py", "runs/commands/test_names.py", "runs/commands/test_update_command.py",
    "runs/commands/test_history_commands.py", "test_faults.py", "service/test_demo.py", "test_site.py",
)  # fmt: skip
"""Files in the order in which they begin; all others follow. A worker has a file to itself (``--dist loadfile``), so a
long one that begins last is waited for by all. The first three compile different things: what two need at once is
compiled twice."""

settings.register_profile("slots", deadline=None)  # what else runs on the machine decides how long an example takes
settings.load_profile("slots")


def pytest_configure(config):
    """Name the run, for what its workers have together: see `support.nursery`."""
    if not hasattr(config, "workerinput"):
        os.environ["SLOTS_TEST_RUN"] = str(os.getpid())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config, specs):
    """Let workers be forks of one process that has imported all tests: see `support.worker_nursery`."""
    command = worker_nursery.start(config.invocation_params.args, f"slots-workers-{os.getpid()}")
    if command is not None:
        python = f"//python={shlex.join(command)}"
        specs[:] = [type(spec)(f"{spec}{python}") if spec.popen else spec for spec in specs]


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect tests without a pass of the garbage collector, and let later passes leave out what is there then."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        # Alone, for Triton counts at the end what is left of its own, and complains.
        atexit.register(_leave if "PYTEST_XDIST_WORKER" in os.environ else gc.unfreeze)
        gc.enable()


def _leave():
    """End a worker once all has been said: to take apart a million objects takes it seven seconds of a processor."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def pytest_collection_modifyitems(items):
    """The longest files first."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(autouse=True)
def _repeatable():
    import numpy as np  # late, as torch: the process that only hands the tests out needs neither
    import torch

    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.set_num_threads(1)
