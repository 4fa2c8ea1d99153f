"""A short pass of each fuzz target; `make fuzz` runs them for longer."""

import pytest
from support import fuzz_folders, fuzz_images

pytestmark = pytest.mark.slow


def test_mutated_model_folders_open_or_are_refused():
    found = fuzz_folders.fuzz(120, seed=1)
    assert found.bad == []
    assert found.counts["cases"] == 120
    assert min(found.counts[kind] for kind in ("opened", "refused", "damaged", "forged")) >= 5


def test_mutated_images_become_pixels_or_are_refused():
    found = fuzz_images.fuzz(1500, seed=1)
    assert found.bad == []
    assert found.counts["cases"] == 1500
    assert min(found.counts[kind] for kind in ("read", "refused")) >= 200
