"""Images of strangers: known formats alone, sizes known before decoding, and one sentence for all that is wrong."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.watch import watched

from protocols.data import load_data
from protocols.data.decoding import ImageLimits, read_header
from protocols.data.images import load_images
from slots.errors import DataError, UsageError

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(owned) print
showpage
%%EOF
"""


def peak():
    return 1024 * int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1]
    )


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def blank_png(path, width, height, *, colour=True, depth=8):
    """A PNG of black pixels, a thousandth of their size, made without having them in memory."""

    packed, row = zlib.compressobj(9), bytes(1 + width * (3 if colour else 1) * depth // 8)
    body = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, 2 if colour else 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(data)
    return path


def refused(paths, match, **options):
    with watched() as seen, pytest.raises(DataError, match=match) as caught:
        load_images(paths, **options)
    assert "\n" not in str(caught.value)
    assert seen.started == []


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
def test_postscript_starts_no_program(tmp_path, ending):
    (tmp_path / f"cat{ending}").write_bytes(EPS)
    refused(tmp_path / f"cat{ending}", "must be a whole image")
    (tmp_path / "folder" / "cat").mkdir(parents=True)
    (tmp_path / "folder" / "cat" / f"1{ending}").write_bytes(EPS)
    with watched() as seen, pytest.raises(DataError, match="must be a whole image"):
        load_data(tmp_path / "folder")
    assert seen.started == []


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "SGI", "PCX", "JPEG2000", "DDS", "XBM", "EPS"])
def test_other_formats_are_not_decoded_under_a_known_name(tmp_path, kind):
    image = Image.fromarray(np.zeros((8, 8), np.uint8)).convert("1" if kind == "XBM" else "RGB")
    image.save(tmp_path / "a.bin", kind)
    (tmp_path / "a.bin").rename(tmp_path / "a.png")
    refused(tmp_path / "a.png", "must be a whole image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_six_formats_are_read_whatever_they_are_called(tmp_path, kind):
    pixels = np.full((8, 6), 200, np.uint8)
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "a.bin", kind)
    (tmp_path / "a.bin").rename(tmp_path / "a.png")
    assert np.abs(load_images(tmp_path / "a.png").astype(int) - 200).max() <= 3


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert load_images(tmp_path / "a.gif").max() == 10


@pytest.mark.parametrize("size", [(5001, 5000), (25_000_001, 1), (10_000, 10_000)])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, size):
    data = bytearray(blank_png(tmp_path / "a.png", 1, 1).read_bytes())
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "a.png").write_bytes(data)
    before = peak()
    refused(tmp_path / "a.png", rf"has {size[1]} x {size[0]} pixels, more than 25000000 \(SLOTS_MAX_PIXELS")
    refused(tmp_path / "a.png", "pixels, more than", image_size=(8, 8))
    assert peak() - before < 50 << 20


def test_the_limit_is_an_option(tmp_path, monkeypatch):
    blank_png(tmp_path / "a.png", 30, 20)
    assert load_images(tmp_path, limits=ImageLimits(max_pixels=600)).shape == (1, 20, 30, 3)
    refused(tmp_path, "20 x 30 pixels, more than 599", limits=ImageLimits(max_pixels=599))
    monkeypatch.setenv("SLOTS_MAX_PIXELS", "599")
    refused(tmp_path, "20 x 30 pixels, more than 599")
    for wrong in ("many", "-1", "0", "1e9"):
        monkeypatch.setenv("SLOTS_MAX_PIXELS", wrong)
        with pytest.raises(UsageError, match="must be"):
            load_images(tmp_path)


def test_a_folder_of_small_files_does_not_take_gigabytes(tmp_path):
    first = blank_png(tmp_path / "00.png", 5000, 5000)
    for i in range(1, 15):
        (tmp_path / f"{i:02}.png").hardlink_to(first)
    assert 15 * first.stat().st_size < 2_250_000
    before = peak()
    refused(tmp_path, r"images of at most 1073741824 bytes in all, got 15 of 75000000 bytes.*SLOTS_MAX_IMAGE_BYTES")
    assert peak() - before < 250 << 20  # none is decoded
    assert load_images(tmp_path, image_size=(8, 8)).shape == (15, 8, 8, 3)  # one at a time
    assert peak() - before < 500 << 20


def test_large_files_may_be_large_images(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (2, 100, 100, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    assert np.array_equal(load_images(tmp_path, limits=ImageLimits(max_bytes=1)), noise)
    blank_png(tmp_path / "0.png", 100, 100)
    blank_png(tmp_path / "1.png", 100, 100)
    refused(tmp_path, "at most 59999 bytes in all, got 2 of 30000", limits=ImageLimits(max_bytes=59_999))
    monkeypatch.setenv("SLOTS_MAX_IMAGE_BYTES", "60000")
    assert load_images(tmp_path).shape == (2, 100, 100, 3)


def test_a_thread_of_pixels_is_not_blown_up(tmp_path):
    blank_png(tmp_path / "a.png", 1, 1_000_000, colour=False)
    before = peak()
    refused(tmp_path / "a.png", "but it is too long and thin, 1000000 x 1", image_size=(224, 224), crop=0.875)
    assert peak() - before < 100 << 20
    blank_png(tmp_path / "b.png", 20, 200)
    assert load_images(tmp_path / "b.png", image_size=(224, 224), crop=0.875).shape == (1, 224, 224, 3)


# Notes of a camera


def with_orientation(path, entry):
    """A PNG whose EXIF has one entry for the orientation: its kind, count and value as bytes."""
    exif = b"MM\x00*\x00\x00\x00\x08\x00\x01" + struct.pack(">H", 0x0112) + entry + bytes(4)
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    Image.fromarray(pixels).save(path, exif=exif)
    return pixels


@pytest.mark.parametrize(
    "entry",
    [
        struct.pack(">HI4s", 2, 2, b"6\x00\x00\x00"),  # the text "6"
        struct.pack(">HI4s", 7, 4, b"\x00\x06ab"),  # bytes
        struct.pack(">HIHH", 3, 1, 99, 0),  # no such orientation
        struct.pack(">HII", 5, 1, 0xFFFFFF),  # a fraction that lies beyond the end
        struct.pack(">HII", 12, 0xFFFFFFF, 0),  # more numbers than there are
        b"\xff" * 10,
    ],
)
def test_an_orientation_that_is_none_is_passed_over(tmp_path, entry):
    pixels = with_orientation(tmp_path / "a.png", entry)
    assert np.array_equal(load_images(tmp_path)[0, ..., 0], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_photographs_are_upright_in_every_format(tmp_path, orientation, ending):
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(pixels).convert("RGB").save(tmp_path / f"a.{ending}", exif=exif, **lossless)
    turn = [
        pixels,
        np.fliplr(pixels),
        np.rot90(pixels, 2),
        np.flipud(pixels),
        pixels.T,
        np.rot90(pixels, -1),
        np.rot90(pixels, 2).T,
        np.rot90(pixels),
    ]
    assert np.array_equal(load_images(tmp_path)[0, ..., 0], turn[orientation - 1])


@pytest.mark.parametrize("kind", ["eXIf", "zTXt"])
@pytest.mark.parametrize("late", [False, True])
def test_an_orientation_behind_the_pixels_of_a_png_is_found(tmp_path, kind, late):
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[0x0112] = 6
    notes = exif.tobytes()
    if kind == "zTXt":
        written = f"\nexif\n{len(notes):8}\n{notes.hex()}\n".encode()
        note = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(written))
    else:
        note = chunk(b"eXIf", notes.removeprefix(b"Exif\0\0"))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IEND" if late else b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(data[:at] + note + data[at:])
    assert read_header(tmp_path / "a.png", ImageLimits()).size == (6, 4)
    assert np.array_equal(load_images(tmp_path)[0, ..., 0], np.rot90(pixels, -1))
    (tmp_path / "a.png").write_bytes(data[:at] + note[:-5])  # cut off
    refused(tmp_path, "must be a whole image")


def test_the_header_of_a_png_is_read_without_its_pixels(tmp_path):
    blank_png(tmp_path / "a.png", 300, 200)
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"IDAT")
    (tmp_path / "a.png").write_bytes(data[: at + 8] + bytes(20) + data[at + 28 :])
    assert read_header(tmp_path / "a.png", ImageLimits()).size == (200, 300)
    refused(tmp_path, "must be a whole image")


# Sixteen bits


def deep_tiff(path, n_channels):
    """A TIFF of 2 x 2 pixels with 16 bits a channel."""
    pixels = struct.pack(f"<{4 * n_channels}H", *[300] * (4 * n_channels))
    tags = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, n_channels, 16 if n_channels == 1 else 134 + len(pixels)),
        (259, 3, 1, 1),
        (262, 3, 1, 2 if n_channels == 3 else 1),
        (273, 4, 1, 134),
        (277, 3, 1, n_channels),
        (278, 3, 1, 2),
        (279, 4, 1, len(pixels)),
    ]
    head = b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(tags))
    head += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    path.write_bytes(head.ljust(134, b"\x00") + pixels + struct.pack("<3H", 16, 16, 16))


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_sixteen_bits_are_refused_in_grey_as_in_colour(tmp_path, kind, colour):
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        blank_png(path, 4, 4, colour=colour, depth=16)
    else:
        deep_tiff(path, 3 if colour else 1)
        with Image.open(path) as image:
            assert image.mode == ("RGB" if colour else "I;16")
    refused(path, rf"must have 8 bits a channel, got mode {'RGB' if colour else 'I;16'}, 16 bits each\. Convert it")
