"""Requests that a stranger might send to a service to make it fall over: small on the wire, large or endless inside."""

import base64
import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
from PIL import Image

import backbones
from protocols.data import load_data
from slots.training import TrainConfig, fit

SMALL, PICTURES = "/api/v1/models/small", "/api/v1/models/pictures"
BODY = 8 << 20
"""What the service takes, in bytes."""


def picture_model(folder):
    """Digits of 8 x 8 pixels, fitted and saved."""
    data = load_data("digits")
    backbone = backbones.build("pixels", input_shape=(1, 8, 8))
    config = TrainConfig(epochs=2, slots_per_class=2, held_out=0.2)
    model, _ = fit(data.x_train[:600], data.y_train[:600], backbone=backbone, config=config)
    model.save(folder)


@dataclass(frozen=True)
class Bomb:
    """One request and the statuses that are a refusal of it; a body that takes seconds is made when it is sent."""

    name: str
    path: str
    made_of: bytes | Callable[[], bytes] = field(repr=False)
    statuses: tuple = (400, 413, 422)
    headers: dict = field(default_factory=lambda: {"Content-Type": "application/json"})
    method: str = "POST"

    @property
    def body(self):
        return self.made_of() if callable(self.made_of) else self.made_of


def filled(n_bytes, start, part, end):
    """A document of about so many bytes: a start, one part again and again, an end."""
    return start + part * ((n_bytes - len(start) - len(end)) // len(part)) + end


def png(width, height):
    """A black PNG of any size, of a few kilobytes: no decoder is needed to make it."""
    row = b"\x00" * (1 + width)
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _plain(it):
    return json.dumps(it).encode()


@cache
def _zipped(times=1):
    """200 MiB of zeros, or what is left of them."""
    return gzip.compress(_zipped(times - 1) if times > 1 else b"0" * (200 << 20))


def _deflated():
    return zlib.compress(b"0" * (200 << 20))


def compressed():
    """Bodies that are small on the wire and large when they are inflated, or no archive at all."""
    coded = {"Content-Type": "application/json"}
    packed = {**coded, "Content-Encoding": "gzip"}
    zipped, twice = _zipped, partial(_zipped, 2)
    return [
        Bomb("gzip", f"{SMALL}/predict", zipped, (413,), packed),
        Bomb("deflate", f"{SMALL}/predict", _deflated, (413,), {**coded, "Content-Encoding": "deflate"}),
        Bomb("gzip in gzip", f"{SMALL}/predict", twice, (400, 413, 422), packed),
        Bomb("two encodings", f"{SMALL}/predict", twice, (415,), {**coded, "Content-Encoding": "gzip, gzip"}),
        Bomb("gzip of v2", "/v2/models/small/infer", zipped, (413,), packed),
        Bomb("gzip at login", "/login", zipped, (413,), packed),
        Bomb("gzip of a stream", f"{SMALL}/items/stream", zipped, (415,), packed),
        Bomb("no gzip", f"{SMALL}/predict", b"hello", (400,), packed),
        Bomb("half a gzip", f"{SMALL}/predict", gzip.compress(b"{}")[:-4], (400,), packed),
        Bomb("more than a gzip", f"{SMALL}/predict", gzip.compress(b"{}") * 2, (400,), packed),
    ]  # fmt: skip


@cache
def _picture(width, height):
    return png(width, height)


def _several():
    return _plain({"inputs": [base64.b64encode(_picture(4_999, 5_000)).decode()] * 64})


def _tiff():
    made = io.BytesIO()
    Image.fromarray(np.zeros((6000, 5000), np.uint8)).save(made, "TIFF", compression="tiff_deflate")
    return made.getvalue()


def _archive():
    return b"PK\x03\x04" + gzip.compress(b"0" * (50 << 20))


def pictures():
    """Images of more pixels than are decoded, of another size than the model's, many at once, and no images."""
    huge, large = partial(_picture, 10_000, 10_000), partial(_picture, 4_999, 5_000)
    plain = {"Content-Type": "application/octet-stream"}
    return [
        Bomb("100 MP", f"{PICTURES}/predict/image", huge, (422,), plain),
        Bomb("30 MP TIFF", f"{PICTURES}/predict/image", _tiff, (422,), plain),
        Bomb("25 MP", f"{PICTURES}/predict/image", large, (422,), plain),
        Bomb("100 MP to keep", f"{PICTURES}/items/image", huge, (422,), plain),
        Bomb("64 of 25 MP", f"{PICTURES}/predict", _several, (422,)),
        Bomb("65 images", f"{PICTURES}/predict", _plain({"inputs": ["AAAA"] * 65}), (422,)),
        Bomb("100,000 images", f"{PICTURES}/predict", _plain({"inputs": ["AAAA"] * 100_000}), (413, 422)),
        Bomb("zip", f"{PICTURES}/predict/image", _archive, (422,), plain),
        Bomb("no image", f"{PICTURES}/predict/image", b"\x00" * BODY, (422,), plain),
    ]


def _keys():
    return b"{" + b",".join(b'"%d":0' % i for i in range(800_000)) + b"}"


def documents():
    """JSON that is deep, wide, doubled, not finite, not UTF-8 or of another form than is expected."""
    predict, items, v2 = f"{SMALL}/predict", f"{SMALL}/items", "/v2/models/small/infer"
    deep = b"[" * 100_000 + b"]" * 100_000
    objects = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    tensor = b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,6],"data":%s}]}'
    found = [
        Bomb("NaN", predict, b'{"inputs":[[NaN,0,0,0,0,0]]}'),
        Bomb("infinity", predict, b'{"inputs":[[Infinity,0,0,0,0,0]]}'),
        Bomb("1e999", predict, b'{"inputs":[[1e999,0,0,0,0,0]]}'),
        Bomb("1e39", predict, b'{"inputs":[[1e39,0,0,0,0,0]]}'),
        Bomb("NaN of v2", v2, tensor % b"[NaN,0,0,0,0,0]"),
        Bomb("1e999 of v2", v2, tensor % b"[1e999,0,0,0,0,0]"),
        Bomb("NaN budget", f"{SMALL}/updates", b'{"budget":NaN}'),
        Bomb("an integer of 4,000 digits", predict, b'{"inputs":[[' + b"9" * 4000 + b",0,0,0,0,0]]}"),
        Bomb("an integer of 8 million digits", predict, b'{"inputs":[[' + b"9" * (BODY - 100) + b",0,0,0,0,0]]}"),
        Bomb("a fraction of 8 million digits", predict, b'{"inputs":[[0.' + b"9" * (BODY - 100) + b',0,0,0,0,"x"]]}'),
        Bomb("deep lists", predict, deep),
        Bomb("deep objects", predict, objects),
        Bomb("deep in a field", predict, b'{"inputs":' + deep + b"}"),
        Bomb("deep in v2", v2, b'{"inputs":' + deep + b"}"),
        Bomb("50 deep", predict, b'{"inputs":' + b"[" * 50 + b"]" * 50 + b"}"),
        Bomb("a key twice", predict, b'{"inputs":[[0,0,0,0,0,0]],"inputs":[[3,0,0,0,0,0]]}'),
        Bomb("a key twice in v2", v2, (tensor % b"[0,0,0,0,0,0]").replace(b'"name"', b'"name":"x","name"')),
        Bomb("not UTF-8", predict, b'{"inputs":["\xff\xfe"]}'),
        Bomb("not UTF-8 in v2", v2, b'{"id":"\xff","inputs":[]}'),
        Bomb("UTF-16", predict, '{"inputs":[[0,0,0,0,0,0]]}'.encode("utf-16")),
        Bomb("half a character as an id", items, b'{"inputs":[[0,0,0,0,0,0]],"ids":["\\ud800"]}'),
        Bomb("half a character as a label", f"{SMALL}/labels", b'{"labels":[{"item":"x","label":"\\ud800"}]}'),
        Bomb("no JSON", predict, b"\x00" * BODY),
        Bomb("nothing", predict, b""),
        Bomb("4,097 rows", predict, _plain({"inputs": [[0.0] * 6] * 4097})),
        Bomb("a body too large", predict, b" " * (BODY + 1), (413,)),
        Bomb("a header of 100 kB", predict, b"{}", (431,), {"X-Long": "x" * 100_000}),
        Bomb("v2 rows that are not there", v2, (tensor % b"[]").replace(b"[1,6]", b"[2147483648,2147483648]")),
    ]
    wide = {
        "empty lists": b"[],",
        "empty objects": b"{},",
        "zeros": b"0,",
        "fractions": b"0.5,",
        "texts": b'"",',
        "nulls": b"null,",
        "rows": b"[0],",
    }
    for name, part in wide.items():
        found.append(Bomb(f"8 MiB of {name}", predict, filled(BODY, b'{"inputs":[', part, b"0]}")))
        most = 990_000 // (part.count(b",") + 4 * sum(part.count(it) for it in b"[{"))  # as many as are read
        found.append(Bomb(f"{most} {name}", predict, b'{"inputs":[' + part * most + b"0]}"))
        found.append(Bomb(f"{most} {name} in a row", predict, b'{"inputs":[[' + part * most + b"0]]}"))
        found.append(Bomb(f"{most} {name} in v2", v2, tensor % (b"[" + part * most + b"0]")))
    for place, (name, start, end) in {
        "ids": ("ids", b'{"inputs":[[0,0,0,0,0,0]],"ids":[', b"0]}"),
        "labels": ("labels", b'{"labels":[', b"0]}"),
        "edits": ("slots", b'{"what":"delete","slots":[', b'"x"]}'),
    }.items():
        part = b"{}," if name != "slots" else b'"x",'
        found.append(
            Bomb(
                f"8 MiB of wrong {name}",
                f"{SMALL}/{'items' if place == 'ids' else place}",
                filled(BODY, start, part, end),
            )
        )
    found.append(Bomb("8 MiB of keys", predict, _keys))
    found.append(Bomb("8 MiB in v2", v2, filled(BODY, b'{"inputs":[', b"{},", b"0]}")))
    found.append(Bomb("8 MiB in v2 data", v2, tensor % filled(BODY - 200, b"[", b"[],", b"0]")))
    found.append(Bomb("8 MiB of tasks", "/ls/small/predict", filled(BODY, b'{"tasks":[', b"[],", b"0]}")))
    return found


def forms():
    """Forms that hold more fields than anybody fills in."""
    coded = {"Content-Type": "application/x-www-form-urlencoded"}
    parts = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 100_000 + b"--x--\r\n"
    split = {"Content-Type": "multipart/form-data; boundary=x"}
    return [
        Bomb("8 MiB of fields", "/login", b"a&" * (BODY // 2), (400, 401, 413, 422), coded),
        Bomb("8 MiB of parts", "/login", parts[:BODY], (400, 401, 413, 422), split),
        Bomb("fields of explain", "/models/small/explain", b"a=1&" * (BODY // 4), (400, 413, 422), coded),
    ]


def all_of_them():
    return [*compressed(), *pictures(), *documents(), *forms()]
