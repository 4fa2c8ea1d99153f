import pytest
import torch

from slots.cover.fused import available, has_fused_kernels


@pytest.fixture
def card(monkeypatch):
    """A machine that has everything the kernels need."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(available, "find_spec", lambda _name: object())
    monkeypatch.setattr(available.shutil, "which", lambda _name: "/usr/bin/gcc")
    monkeypatch.delenv("SLOTS_FUSED", raising=False)
    monkeypatch.delenv("CC", raising=False)
    return torch.device("cuda", 0)


def test_with_all_that_it_takes(card):
    assert has_fused_kernels(card)
    assert not has_fused_kernels(torch.device("cpu"))


@pytest.mark.parametrize(
    ("holder", "name", "value"),
    [
        (torch.version, "cuda", None),
        (torch.cuda, "is_available", lambda: False),
        (torch.cuda, "get_device_capability", lambda _device: (7, 5)),
        (available, "find_spec", lambda _name: None),
        (available.shutil, "which", lambda _name: None),
    ],
)
def test_without_one_of_them(card, monkeypatch, holder, name, value):
    monkeypatch.setattr(holder, name, value)
    assert not has_fused_kernels(card)


def test_a_compiler_of_ones_own(card, monkeypatch):
    monkeypatch.setattr(available.shutil, "which", lambda _name: None)
    monkeypatch.setenv("CC", "/opt/cc")
    assert has_fused_kernels(card)


def test_the_environment_says_no(card, monkeypatch):
    monkeypatch.setenv("SLOTS_FUSED", "0")
    assert not has_fused_kernels(card)
