"""A model as one file: whole, the same each time, and a model folder when it is unpacked."""

import base64
import hashlib
import io
import tarfile

import numpy as np
import pytest
from support.service import rows

from protocols.recipes.building import load_model
from protocols.service.jobs.archives.packing import pack
from slots.errors import ModelError
from slots.storage.generations import log

AT = "/api/v1/models/small/archive"


def test_an_archive_unpacked_is_the_model(client, small, tmp_path):
    found = client.get(AT)
    assert (found.status_code, found.headers["content-type"]) == (200, "application/x-tar")
    digest = base64.b64encode(hashlib.sha256(found.content).digest()).decode()
    assert found.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert client.get(AT).content == found.content
    with tarfile.open(fileobj=io.BytesIO(found.content)) as tar:
        assert all(it.isfile() and it.mtime == it.uid == it.gid == 0 for it in tar)
        tar.extractall(tmp_path / "copy", filter="data")
    x, _ = rows(50, 1, classes=4)
    one, other = load_model(small), load_model(tmp_path / "copy")
    assert np.array_equal(one.predict(x).margins, other.predict(x).margins)
    assert [it.number for it in log(tmp_path / "copy")] == [0]
    (event,) = [it for it in client.get("/api/v1/events").json() if it["action"] == "model.archive"][-1:]
    assert event["detail"] == {"sha256": hashlib.sha256(found.content).hexdigest(), "bytes": len(found.content)}


def test_only_the_current_generation_is_packed(own):
    model = load_model(own)
    model.update(rows(200, 18, classes=4)[0])
    model.save(own, keep_history=True)
    made = pack(own)
    with made.file, tarfile.open(fileobj=made.file) as tar:
        assert len({it.name.split("/")[1] for it in tar if it.name.startswith("states/")}) == 1


def test_a_damaged_model_is_not_handed_out(own):
    (file,) = own.glob("states/*/head.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match="does not match its sha256"):
        pack(own)
