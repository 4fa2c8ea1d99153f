"""Every test starts from the same seed and runs on one thread, so that results repeat."""

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("slots", deadline=None)  # what else runs on the machine decides how long an example takes
settings.load_profile("slots")


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.set_num_threads(1)
