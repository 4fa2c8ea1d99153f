"""Archives and tables that unpack to far more than they are: refused in one line, before the memory is taken."""

import json
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from protocols.data.loading import load_data
from slots.errors import DataError, UsageError

REFUSED = (
    r"must take at most 1073741824 bytes of memory, got \d+ or more from a file of \d+\. Set SLOTS_MAX_ARRAY_BYTES"
)


def refused(path, message=REFUSED):
    """The peak of Python's and numpy's memory while the file is refused, in MiB."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            load_data(str(path))
        return tracemalloc.get_traced_memory()[1] >> 20
    finally:
        tracemalloc.stop()


class Deflated:
    """Deflates a block that comes again only once: after a full flush, its bytes stand for it wherever they are."""

    def __init__(self):
        self._really, self._known = zlib.compressobj(1, zlib.DEFLATED, -15), {}

    def compress(self, block):
        if block not in self._known:
            self._known[block] = self._really.compress(block) + self._really.flush(zlib.Z_FULL_FLUSH)
        return self._known[block]

    def flush(self):
        return self._really.flush()


def bomb(path, gib):
    """An archive whose only array is so many GiB of zeros, in a thousandth of them."""
    head = {"descr": "|u1", "fortran_order": False, "shape": (gib << 10, 1 << 20)}
    archive, zeros = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED), bytes(1 << 24)
    with archive, archive.open("x.npy", "w", force_zip64=True) as member:
        member._compressor = Deflated()
        np.lib.format.write_array_header_1_0(member, head)
        for _ in range(gib << 6):
            member.write(zeros)
    return path


def test_an_archive_that_unpacks_to_gigabytes(tmp_path):
    path = bomb(tmp_path / "x.npz", 2)
    assert path.stat().st_size < 20_000_000
    assert refused(path) < 64


def test_arrays_of_other_names_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("SLOTS_MAX_ARRAY_BYTES", "5000000")
    np.savez_compressed(tmp_path / "x.npz", x=np.eye(4), other=np.zeros(20_000_000, dtype=np.uint8))
    assert len(load_data(str(tmp_path / "x.npz")).x_test) == 4


def test_records_that_each_name_another_column(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps({f"c{i}": 1}) for i in range(20_000)))
    assert refused(path) < 64


def test_a_parquet_file_of_one_long_text(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("SLOTS_MAX_ARRAY_BYTES", str(50 << 20))
    path = tmp_path / "x.parquet"
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, dtype=np.int32)), pa.array(["x" * 100_000]))
    parquet.write_table(pa.table({"text": words}), path, store_schema=False)  # 2 GB of text
    assert path.stat().st_size < 100_000
    refused(path, "must take at most 52428800 bytes of memory, got ")
    assert pa.default_memory_pool().max_memory() < 400 << 20


def test_the_limit_is_an_option(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((1000, 2000), dtype=np.float32), y=np.arange(1000) % 2)
    assert load_data(str(tmp_path / "x.npz")).x_train.shape[1] == 2000
    monkeypatch.setenv("SLOTS_MAX_ARRAY_BYTES", "5000000")
    refused(tmp_path / "x.npz", "must take at most 5000000 bytes of memory, got 80")
    monkeypatch.setenv("SLOTS_MAX_ARRAY_BYTES", "9000000")
    assert load_data(str(tmp_path / "x.npz")).x_train.shape[1] == 2000
    monkeypatch.setenv("SLOTS_MAX_ARRAY_BYTES", "much")
    with pytest.raises(UsageError, match="`SLOTS_MAX_ARRAY_BYTES` must be a whole number >= 1, got 'much'"):
        load_data(str(tmp_path / "x.npz"))
