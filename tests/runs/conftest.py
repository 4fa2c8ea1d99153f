"""What the tests of several protocols share."""

import pytest


@pytest.fixture(scope="module")
def brief_training():
    """Networks that a protocol trains itself learn for 200 steps, not 600: enough for small pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protocols.harness.encoders.LEAST_STEPS", 200)
        yield
