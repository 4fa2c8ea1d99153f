"""Where a figure comes from."""

import subprocess
from pathlib import Path

import pytest

import protocols.provenance as it


def test_versions_name_what_is_there_and_what_is_not():
    found = it.versions("scipy", "no-such-thing")
    assert found["scipy"][0].isdigit()
    assert found["no-such-thing"] == "not installed"
    assert {"python", "neural-slots", "torch", "numpy"} <= found.keys()


def test_the_machine():
    found = it.hardware()
    assert found["cores"] >= 1
    assert found["threads"] >= 1
    assert found["gpu"] is None
    assert it.processor()


def test_the_commit_is_the_checkout_s_or_none():
    here = Path(it.__file__).parent
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    listed = ["git", "ls-files", "--error-unmatch", "provenance.py"]
    tracked = subprocess.run(listed, cwd=here, capture_output=True, check=False)
    if asked.returncode or tracked.returncode:
        assert it.commit() is None
    else:
        assert it.commit().rstrip("+") == asked.stdout.strip()


def test_no_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert it.commit() is None


def test_the_code_s_digest_follows_the_code(monkeypatch, tmp_path):
    digest = it.code_digest.__wrapped__
    first = digest()
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "a.py").write_text("1")
    monkeypatch.setattr("slots.__file__", str(tmp_path / "slots" / "__init__.py"))
    second = digest()
    assert second == digest()
    (tmp_path / "slots" / "a.py").write_text("2")
    assert len({first, second, digest()}) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not __import__("torch").cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_named():
    assert it.hardware("cuda")["gpu"]
