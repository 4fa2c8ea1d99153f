"""What is made while `lasting` is open is out of the garbage collector's reach; what comes after is not."""

import gc
import weakref

import pytest

from slots.importing import lasting


class Ring:
    """Garbage that only a collector finds."""

    def __init__(self):
        self.own = self


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()
    gc.freeze()  # as the collection of tests left it


def test_no_pass_of_the_collector_meanwhile():
    passes = []
    gc.callbacks.append(lambda phase, _facts: passes.append(phase))
    try:
        with lasting():
            assert len([[] for _ in range(100_000)]) == 100_000
        assert not passes
    finally:
        gc.callbacks.pop()


def test_what_was_made_inside_stays_and_what_is_made_later_goes():
    with lasting():
        inside = weakref.ref(Ring())
    later = weakref.ref(Ring())
    gc.collect()
    assert inside() is not None
    assert later() is None


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_left_as_it_was_found(collecting):
    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(ImportError), lasting():
            import slots.no_such_module  # noqa: F401
        assert gc.isenabled() is collecting
    finally:
        gc.enable()
