"""Image files of a stranger, by the ten thousand: each becomes pixels, or is refused in one sentence.

    python tests/support/fuzz_images.py --cases 100000 --seconds 600 --seed 0

Small images of the six formats that are decoded, in many of their kinds, and of formats that are not, under a known
name, are flipped, cut, spliced and given other sizes (PNG with the right check sums again). Then they are read as a
single image and as a folder, while an audit hook watches that nothing is started, and the peak of memory is measured.
"""

import argparse
import io
import json
import random
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from PIL import Image, ImageDraw
from support.watch import watched

from protocols.data.images import load_folder, load_images

LONGEST_S = 10  # that one image may take
MOST_BYTES = 1 << 30  # that the memory may grow by
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(owned) print\nshowpage\n%%EOF\n"
_NUMBERS = (0, 1, 2, 0x7F, 0xFF, 0x100, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_CHANGES = ("flip", "flip", "byte", "number", "number", "cut", "remove", "insert", "splice", "size")
_SIDES = (0, 1, 7, 255, 4096, 5000, 5001, 65_535, 100_000, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass
class Found:
    """What came of all cases."""

    counts: Counter = field(default_factory=Counter)
    bad: list = field(default_factory=list)
    slowest_s: float = 0.0
    grown_bytes: int = 0

    def blame(self, kind, case, detail):
        """Note something that must not happen."""
        self.counts[kind] += 1
        self.bad.append({"kind": kind, "case": case, "detail": detail})


def originals():
    """Whole images as (ending, bytes), of every kind that is read and of some that are not."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    ImageDraw.Draw(colour).rectangle((3, 3, 20, 12), fill=(200, 30, 30))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "a camera", "2020:01:01 00:00:00"
    kinds = [
        *[("png", "PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
        ("png", "PNG", "RGB", {"exif": exif}),
        *[("jpg", "JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")],
        ("jpg", "JPEG", "RGB", {"progressive": True, "exif": exif}),
        ("jpg", "JPEG", "RGB", {"optimize": True, "comment": b"words"}),
        *[("webp", "WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (False, True)],
        ("webp", "WEBP", "RGB", {"exif": exif, "save_all": True, "append_images": [colour.rotate(90)]}),
        *[("bmp", "BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")],
        *[("gif", "GIF", mode, {}) for mode in ("L", "P", "RGB")],
        ("gif", "GIF", "P", {"save_all": True, "append_images": [colour.convert("P"), colour.rotate(9).convert("P")]}),
        *[("tif", "TIFF", mode, {}) for mode in ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F")],
        *[
            ("tif", "TIFF", "RGB", {"compression": how})
            for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ],
        ("tif", "TIFF", "1", {"compression": "group4"}),
        ("tif", "TIFF", "RGB", {"exif": exif, "save_all": True, "append_images": [colour]}),
        *[("png", other, "RGB", {}) for other in ("PPM", "TGA", "ICO", "SGI", "PCX", "JPEG2000", "DDS")],
    ]
    made = [("png", _EPS), ("jpg", b"P6\n2 2\n255\n" + bytes(12)), ("gif", b"BM"), ("tif", b"II*\x00")]
    for ending, kind, mode, options in kinds:
        out = io.BytesIO()
        image = colour.convert("I").convert("I;16") if mode == "I;16" else colour.convert(mode)
        image.save(out, kind, **options)
        made.append((ending, out.getvalue()))
    return made


def mutate(rng, data, others):
    """Change an image's bytes somewhere, or in several ways."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        what = rng.choice(_CHANGES)
        at = rng.randrange(max(1, min(len(data), rng.choice([64, 256, 10**6]))))
        if what == "flip" and data:
            data[at] ^= 1 << rng.randrange(8)
        elif what == "byte" and data:
            data[at] = rng.randrange(256)
        elif what == "number":
            form = rng.choice(["<H", ">H", "<I", ">I"])
            number = struct.pack(form, rng.choice(_NUMBERS) % (1 << 8 * struct.calcsize(form)))
            data[at : at + len(number)] = number
        elif what == "cut":
            del data[max(8, at) :]
        elif what == "remove":
            del data[at : at + rng.randint(1, 16)]
        elif what == "insert":
            data[at:at] = rng.randbytes(rng.randint(1, 16))
        elif what == "splice":
            other = rng.choice(others)[1]
            start = rng.randrange(len(other))
            data[at : at + rng.choice([0, 40])] = other[start : start + rng.randint(1, 400)]
        elif what == "size" and data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 33:
            data[16:24] = struct.pack(">II", rng.choice(_SIDES), rng.choice(_SIDES))
    return resealed(bytes(data)) if rng.random() < 0.7 else bytes(data)


def resealed(data):
    """Give the chunks of a PNG their check sums again; anything else stays as it is."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if at + 12 + length > len(data):
            break
        chunk = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        at += 12 + length
    return bytes(out) + data[at:]


def peak_bytes():
    """The most memory that this process ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def read(file, rng):
    """Read a file in one of the ways that there are; an array, or an error of the package."""
    how = rng.choice(["alone", "resized", "cut", "folder"])
    if how == "folder":
        found = load_folder(file.parent)
        images, more = found.train[0], found.test[0]
        return np.concatenate([images, more])
    size = None if how == "alone" else (16, 16)
    return load_images(file, image_size=size, crop=0.875 if how == "cut" else None)


def fuzz(cases, *, seed=0, seconds=float("inf"), first=0):
    """Try so many mutants, or for so long."""
    sources, found, started = originals(), Found(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + cases):
            if time.monotonic() - started > seconds:
                break
            rng = random.Random(f"{seed}-{number}")
            ending, data = sources[number % len(sources)]
            file = Path(folder) / f"cat.{rng.choice([ending, ending, 'png', 'jpg', 'tiff', 'webp'])}"
            file.write_bytes(mutate(rng, data, sources))
            one_case(number, file, rng, found)
            file.unlink()
            if number == first:  # imports are over
                before = peak_bytes()
    found.grown_bytes = peak_bytes() - before
    if found.grown_bytes > MOST_BYTES:
        found.blame("memory", -1, f"{found.grown_bytes} bytes")
    return found


def one_case(number, file, rng, found):
    """Read and judge one mutant."""
    began = time.monotonic()
    with warnings.catch_warnings(), watched() as seen:
        warnings.simplefilter("ignore")
        try:
            images = read(file, rng)
            assert images.dtype == np.uint8, "dtype"
            assert images.ndim == 4, "shape"
            assert images.shape[3] in (1, 3), "channels"
            found.counts["read"] += 1
        except Exception as error:  # noqa: BLE001  # what we are looking for
            if getattr(error, "exit_code", 1) != 3 or "\n" in str(error) or len(str(error)) > 1000:
                found.blame("raw_exception", number, traceback.format_exc()[-1500:])
            found.counts["refused"] += 1
    took = time.monotonic() - began
    found.slowest_s = max(found.slowest_s, took)
    if took > LONGEST_S:
        found.blame("too_slow", number, f"{took:.1f} s")
    if seen.started:
        found.blame("started", number, str(seen.started[:3]))
    found.counts["cases"] += 1


def main():
    """Fuzz, print what came of it, and fail where something must not happen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5)
    arguments = parser.parse_args()
    found = fuzz(arguments.cases, seed=arguments.seed, seconds=arguments.seconds, first=arguments.first)
    for bad in found.bad[: arguments.show]:
        sys.stderr.write(json.dumps(bad, indent=1).replace("\\n", "\n") + "\n")
    figures = {"slowest_s": round(found.slowest_s, 2), "grown_mib": found.grown_bytes >> 20}
    sys.stdout.write(json.dumps({**found.counts, **figures}) + "\n")
    sys.exit(bool(found.bad))


if __name__ == "__main__":
    main()
