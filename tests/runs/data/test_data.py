"""Every way to name data gives the same kind of object, and what is wrong with data is said by file and key."""

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
import torchvision.datasets
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from protocols.data.images import list_images, load_images
from protocols.data.loading import default_data_dir, load_data
from slots.errors import DataError, StorageError, UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
GOOD = {"x_train": IMAGES, "y_train": np.arange(6) % 3, "x_test": IMAGES[:2], "y_test": np.array([2, 0])}


def archive(folder, **changes):
    path = folder / "some.npz"
    np.savez(path, **{key: value for key, value in (GOOD | changes).items() if value is not None})
    return path


# digits


def test_digits_is_the_documented_split():
    data = load_data("digits")
    assert data.x_train.shape == (1437, 8, 8, 1)
    assert data.x_test.shape == (360, 8, 8, 1)
    assert data.x_train.dtype == np.uint8
    assert (data.x_train.min(), data.x_train.max()) == (0, 255)
    assert np.bincount(data.y_train).min() >= 139
    assert set(np.bincount(data.y_test)) <= {35, 36, 37}
    assert data.class_names == tuple("0123456789")
    assert (data.kind, data.shape, data.has_labels) == ("images", (8, 8, 1), True)
    assert load_data("digits").digest == data.digest


def test_digits_splits_the_bundled_set_without_loss():
    data = load_data("digits")
    ours = np.concatenate([data.x_train, data.x_test]).reshape(-1, 64)
    theirs = np.array([[round(value * 255 / 16) for value in row] for row in load_digits().data])
    rows = np.column_stack([ours, np.concatenate([data.y_train, data.y_test])])
    wanted = np.column_stack([theirs, load_digits().target])
    parts = train_test_split(np.arange(1797), test_size=360, stratify=load_digits().target, random_state=0)
    assert np.array_equal(rows, wanted[np.concatenate([np.sort(part) for part in parts])])


# Archives


def test_an_archive(tmp_path):
    data = load_data(archive(tmp_path))
    assert data.name == "some"
    assert data.x_train.shape == (6, 5, 4, 1)
    assert np.array_equal(data.x_train[..., 0], IMAGES)
    assert data.y_train.dtype == np.int64
    assert data.y_test.tolist() == [2, 0]
    assert data.class_names == ("0", "1", "2")
    assert load_data(str(tmp_path / "some.npz")).digest == data.digest


def test_colour_images_and_class_names(tmp_path):
    x = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    names = np.array(["ant", "bee", "cow", "dog"])
    data = load_data(archive(tmp_path, x_train=x, x_test=x[:2], class_names=names))
    assert data.shape == (5, 4, 3)
    assert data.class_names == ("ant", "bee", "cow", "dog")
    assert load_data(archive(tmp_path, x_train=x, x_test=x[:2], class_names=names.astype("S"))).class_names[0] == "ant"


def test_columns_of_labels_are_rows(tmp_path):
    data = load_data(archive(tmp_path, y_train=np.arange(6, dtype=np.uint8)[:, None]))
    assert data.y_train.tolist() == [0, 1, 2, 3, 4, 5]


def test_features(tmp_path):
    x = RNG.normal(size=(6, 7))
    data = load_data(archive(tmp_path, x_train=x, x_test=x[:2]))
    assert (data.kind, data.shape) == ("features", (7,))
    assert data.x_train.dtype == np.float32
    assert np.array_equal(data.x_train, x.astype(np.float32))


@pytest.mark.parametrize(("kept", "missing"), [("test", "train"), ("train", "test")])
def test_one_part_is_enough(tmp_path, kept, missing):
    data = load_data(archive(tmp_path, **{f"x_{missing}": None, f"y_{missing}": None}))
    assert getattr(data, f"x_{missing}").shape == (0, 5, 4, 1)
    assert getattr(data, f"y_{missing}").shape == (0,)
    assert len(getattr(data, f"x_{kept}")) == len(getattr(data, f"y_{kept}")) > 0


def test_labels_are_optional(tmp_path):
    data = load_data(archive(tmp_path, y_train=None, y_test=None))
    assert data.y_train.tolist() == [-1] * 6
    assert data.class_names == ()
    assert not data.has_labels
    assert load_data(archive(tmp_path, y_train=None)).has_labels


def test_the_digest_tells_any_change(tmp_path):
    changed = IMAGES.copy()
    changed[3, 2, 1] ^= 1
    variants = [
        {},
        {"x_train": changed},
        {"y_test": np.array([0, 2])},
        {"y_train": None},
        {"class_names": np.array(["a", "b", "c"])},
        {"x_train": IMAGES.reshape(6, 4, 5), "x_test": IMAGES[:2].reshape(2, 4, 5)},
        {"x_train": IMAGES[:5], "y_train": np.arange(5) % 3},
    ]
    assert len({load_data(archive(tmp_path, **change)).digest for change in variants}) == len(variants)


BAD = [
    ({"x_train": None, "x_test": None}, "some.npz` must hold x_train or x_test, or x, got y_train, y_test"),
    ({"x_test": IMAGES[:2, 1:]}, r"examples of one shape, got \(4, 4, 1\) and \(5, 4, 1\)"),
    (
        {"x_train": IMAGES[:0], "y_train": None, "x_test": None, "y_test": None},
        "must hold at least one example, got none",
    ),
    ({"x_train": IMAGES / 255}, r"x_train` must be uint8 images, 0 to 255, got float64\. Scale and convert them"),
    ({"x_train": IMAGES[0, 0]}, r"x_train` must be images .* or features .*, got shape \(4,\)"),
    ({"x_train": np.array(["a"] * 6)}, r"x_train` must be images .* or features"),
    ({"x_train": np.zeros((6, 3, 5, 4), np.uint8)}, r"1 or 3 channels, last, got shape \(6, 3, 5, 4\)"),
    ({"x_train": np.zeros((6, 0, 4), np.uint8)}, r"1 or 3 channels, last, got shape \(6, 0, 4\)"),
    ({"x_train": np.zeros((6, 0)), "x_test": None}, r"at least one feature, got shape \(6, 0\)"),
    ({"x_train": np.array([[0.0], [np.nan]])}, "x_train` must be finite numbers, got nan in row 1"),
    ({"x_train": np.array([[1e300], [0.0]])}, "x_train` must be finite numbers, got inf in row 0"),
    (
        {"x_train": np.array([[object()]])},
        "must be an .npz archive of plain arrays, got: Object arrays cannot be loaded",
    ),
    ({"y_train": np.arange(5)}, "y_train` must have one label an example, got 5 for 6"),
    ({"y_test": np.array([0.5, 1.0])}, r"y_test` must be a row of whole numbers, got float64 of shape \(2,\)"),
    ({"y_test": np.eye(2, dtype=int)}, r"y_test` must be a row of whole numbers, got int64 of shape \(2, 2\)"),
    ({"y_test": np.array([-2, 0])}, r"y_test` must lie between -1 \(unknown\) and 999999, got -2 to 0"),
    ({"y_test": np.array([1, 2**63], dtype=np.uint64)}, r"y_test` must lie between -1 .* to 9223372036854775808"),
    ({"class_names": np.array(["a", "b"])}, "class_names` must name all 3 classes, got 2"),
    ({"class_names": np.arange(3)}, "class_names` must be a row of strings, got int64"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_archive_is_told_by_file_and_key(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        load_data(archive(tmp_path, **change))


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "some.npz"
    for content in (b"", b"PK\x03\x04 and nothing more", b"plain text", pickle.dumps({"x_train": 1})):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"some\.npz` must be an \.npz archive"):
            load_data(path)
    np.save(tmp_path / "one.npy", IMAGES)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(DataError, match=r"must be an \.npz archive, got a single array"):
        load_data(tmp_path / "one.npz")


def test_an_archive_with_flipped_bits_is_refused_or_read_right(tmp_path):
    path = archive(tmp_path)
    whole, wanted = path.read_bytes(), load_data(path)
    refused = 0
    for position in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 255
        path.write_bytes(damaged)
        try:
            data = load_data(path)
        except DataError:
            refused += 1
            continue
        # A flip in an array's name loses that array; a flip in its content never gives other content.
        assert not len(data.x_train) or np.array_equal(data.x_train, wanted.x_train)
        assert not len(data.y_test) or data.y_test.tolist() in ([2, 0], [-1, -1])
    assert refused > len(whole) / 5 / 2


@given(
    x=hnp.arrays(
        st.sampled_from([np.uint8, np.float32, np.float64, np.int64]), hnp.array_shapes(min_dims=1, max_dims=4)
    ),
    y=hnp.arrays(st.sampled_from([np.int64, np.uint8, np.float32]), hnp.array_shapes(max_dims=2)),
)
def test_any_archive_loads_or_says_why(tmp_path_factory, x, y):
    path = tmp_path_factory.mktemp("any") / "any.npz"
    np.savez(path, x_train=x, y_train=y)
    try:
        data = load_data(path)
    except DataError as error:
        message = str(error)
    else:
        message = str(path)
        assert data.x_train.ndim in (2, 4)
        assert len(data.x_train) == len(data.y_train) == len(x)
        assert data.y_train.max() < len(data.class_names)
    assert str(path) in message


# Names and where they lie


def test_a_name_is_looked_up_in_the_data_folder(tmp_path, monkeypatch):
    archive(tmp_path).rename(tmp_path / "mnist.npz")
    data = load_data("mnist", data_dir=tmp_path)
    assert (data.name, data.x_train.shape) == ("mnist", (6, 5, 4, 1))
    monkeypatch.setenv("SLOTS_DATA_DIR", str(tmp_path))
    assert load_data("mnist").digest == data.digest


def test_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("SLOTS_DATA_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / ".cache" / "slots"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_data_dir() == tmp_path / "cache" / "slots"
    monkeypatch.setenv("SLOTS_DATA_DIR", str(tmp_path / "data"))
    assert default_data_dir() == tmp_path / "data"


def test_neither_a_name_nor_a_path():
    with pytest.raises(
        DataError, match="must be one of digits, mnist, fashion_mnist, cifar10, or a path that exists, got 'x'"
    ):
        load_data("x")


def test_image_size_is_for_folders(tmp_path):
    for source in ("digits", archive(tmp_path)):
        with pytest.raises(
            UsageError, match=r"`image_size` must be left out for '.*', got \(9, 9\)\. It is for folders"
        ):
            load_data(source, image_size=(9, 9))


# Downloads: torchvision's own code, from a server on this machine


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{served.server_port}/"
        served.shutdown()
        thread.join()


def idx(array):
    return gzip.compress(
        struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


def serve_mnist(monkeypatch, server, theirs):
    folder, url = server
    images, labels = RNG.integers(0, 256, (9, 28, 28), dtype=np.uint8), np.arange(9, dtype=np.uint8)
    resources = []
    for part, n in (("train", 9), ("t10k", 4)):
        for kind, array in (("images-idx3", images[:n]), ("labels-idx1", labels[:n])):
            file = folder / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(idx(array))
            resources.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    monkeypatch.setattr(theirs, "mirrors", [url])
    monkeypatch.setattr(theirs, "resources", resources)
    return images, labels


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_mnist_is_downloaded_once_and_converted(tmp_path, monkeypatch, server, name):
    theirs = {"mnist": torchvision.datasets.MNIST, "fashion_mnist": torchvision.datasets.FashionMNIST}[name]
    images, labels = serve_mnist(monkeypatch, server, theirs)
    data = load_data(name, data_dir=tmp_path / "new" / "data")
    assert data.name == name
    assert np.array_equal(data.x_train[..., 0], images)
    assert np.array_equal(data.y_test, labels[:4])
    assert data.class_names[8] == {"mnist": "8 - eight", "fashion_mnist": "Bag"}[name]
    assert [path.name for path in (tmp_path / "new" / "data").iterdir()] == [f"{name}.npz"]
    monkeypatch.setattr(theirs, "mirrors", [])
    assert load_data(name, data_dir=tmp_path / "new" / "data").digest == data.digest


def test_cifar10_is_downloaded_and_converted(tmp_path, monkeypatch, server):
    folder, url = server
    images = RNG.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    batch = {"data": images.transpose(0, 3, 1, 2).reshape(4, -1), "labels": [3, 0, 9, 1]}
    contents = {
        "train": pickle.dumps(batch),
        "test": pickle.dumps(batch),
        "meta": pickle.dumps({"label_names": list("abcdefghij")}),
    }
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "url", url + "cifar.tar.gz")
    monkeypatch.setattr(theirs, "filename", "cifar.tar.gz")
    monkeypatch.setattr(theirs, "tgz_md5", hashlib.md5((folder / "cifar.tar.gz").read_bytes()).hexdigest())
    monkeypatch.setattr(theirs, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(theirs, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(theirs, "meta", {"filename": "meta", "key": "label_names", "md5": md5["meta"]})
    data = load_data("cifar10", data_dir=tmp_path)
    assert np.array_equal(data.x_train, images)
    assert data.y_test.tolist() == [3, 0, 9, 1]
    assert data.class_names == tuple("abcdefghij")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_no_file_and_no_network(tmp_path, monkeypatch, capsys, name):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    message = rf"{name}\.npz` must exist, and downloading it failed: .*no network.* Put an archive .* --data-dir"
    with pytest.raises(DataError, match=message) as caught:
        load_data(name, data_dir=tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "data").exists()


# Folders of images


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode or ("L" if pixels.ndim == 2 else "RGB")).save(path)
    return path


def test_class_folders_with_a_test_part(tmp_path):
    for part, n in (("train", 3), ("test", 2)):
        for label, name in enumerate(("zebra", "ant")):
            for i in range(n):
                save(tmp_path / part / name / f"{i}.png", np.full((4, 6), 40 * label + i, np.uint8))
    save(tmp_path / "test" / "bee" / "deep" / "0.PNG", np.full((4, 6), 200, np.uint8))
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    save(tmp_path / "train" / "ant" / ".hidden.png", np.zeros((9, 9), np.uint8))
    data = load_data(tmp_path)
    assert data.name == tmp_path.name
    assert data.class_names == ("ant", "bee", "zebra")
    assert data.shape == (4, 6, 1)
    assert data.y_train.tolist() == [0, 0, 0, 2, 2, 2]
    assert data.x_train[:, 0, 0, 0].tolist() == [40, 41, 42, 0, 1, 2]
    assert data.y_test.tolist() == [0, 0, 1, 2, 2]
    assert data.x_test[:, 0, 0, 0].tolist() == [40, 41, 200, 0, 1]


def test_class_folders_are_split_by_every_fifth(tmp_path):
    for name, n in (("a", 11), ("b", 4)):
        for i in range(n):
            save(tmp_path / name / f"{i:02}.png", np.full((2, 2), i, np.uint8))
    data = load_data(tmp_path)
    assert data.x_test[:, 0, 0, 0].tolist() == [4, 9]
    assert data.y_test.tolist() == [0, 0]
    assert data.y_train.tolist() == [0] * 9 + [1] * 4


def test_a_flat_folder_is_unlabelled_test_data(tmp_path):
    for i in (2, 0, 1):
        save(tmp_path / f"{i}.png", np.full((3, 3, 3), i, np.uint8))
    data = load_data(tmp_path)
    assert data.x_train.shape == (0, 3, 3, 3)
    assert data.x_test[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert data.y_test.tolist() == [-1, -1, -1]
    assert not data.has_labels
    assert [path.name for path in list_images(tmp_path)] == ["0.png", "1.png", "2.png"]


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DataError, match=r"must hold images \(\.png, .*\), got none\. Name a folder of class folders"):
        load_data(tmp_path)


def test_one_image_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="must be a folder of images, got one image"):
        load_data(save(tmp_path / "a.png", IMAGES[0]))


def test_sizes_must_agree_or_be_resized(tmp_path):
    save(tmp_path / "a.png", np.full((4, 6), 7, np.uint8))
    save(tmp_path / "b.png", np.full((5, 6), 9, np.uint8))
    with pytest.raises(DataError, match=r"b\.png` must be 4 x 6 .* got 5 x 6\. Pass image_size=\(4, 6\) to resize"):
        load_data(tmp_path)
    data = load_data(tmp_path, image_size=(3, 2))
    assert data.x_test.shape == (2, 3, 2, 1)
    assert (data.x_test[0] == 7).all()
    assert (data.x_test[1] == 9).all()


def test_images_in_the_order_given_and_in_the_shape_asked_for(tmp_path):
    grey = save(tmp_path / "grey.png", np.full((4, 6), 7, np.uint8))
    colour = save(tmp_path / "colour.png", np.stack([np.full((4, 6), v, np.uint8) for v in (10, 20, 30)], -1))
    both = load_images([grey, str(colour)])
    assert both[:, 0, 0].tolist() == [[7, 7, 7], [10, 20, 30]]
    assert load_images(tmp_path)[:, 0, 0].tolist() == [[10, 20, 30], [7, 7, 7]]
    assert load_images(grey).shape == (1, 4, 6, 1)
    assert load_images([colour], shape=(4, 6, 1))[0, 0, 0, 0] == round(0.299 * 10 + 0.587 * 20 + 0.114 * 30)
    assert load_images([grey], shape=(4, 6, 3))[0, 0, 0].tolist() == [7, 7, 7]
    assert load_images([grey], shape=(8, 8, 3), image_size=(8, 8)).shape == (1, 8, 8, 3)
    with pytest.raises(DataError, match=r"grey\.png` must be 8 x 8 .*, got 4 x 6"):
        load_images([grey], shape=(8, 8, 3))
    with pytest.raises(DataError, match=r"`image_size` must be positive and fit `shape`, got \(9, 9\) for \(8, 8, 3\)"):
        load_images([grey], shape=(8, 8, 3), image_size=(9, 9))
    with pytest.raises(DataError, match=r"`image_size` must be positive and fit `shape`, got \(0, 3\)"):
        load_images([grey], image_size=(0, 3))
    with pytest.raises(DataError, match=r"`shape` must end in 1 or 3 channels, got \(4, 6, 2\)"):
        load_images([grey], shape=(4, 6, 2))


def test_photographs_are_upright(tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to look at it
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load_images(tmp_path)[0, ..., 0], np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_colour_modes(tmp_path, mode):
    save(tmp_path / "a.png", np.full((2, 2, 3), 255, np.uint8), mode)
    images = load_images(tmp_path)
    assert images.shape[3] == (1 if mode in {"1", "L", "LA"} else 3)
    assert (images == 255).all()


def test_the_first_bad_image_is_named(tmp_path):
    good = save(tmp_path / "a.png", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    for content in (b"", b"not an image", good.read_bytes()[:20], good.read_bytes()[:400]):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(DataError, match=r"b\.png` must be a whole image, got: "):
            load_images(tmp_path)
    Image.fromarray(np.full((40, 40), 300, np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b\.png` must have 8 bits a channel, got mode I;16"):
        load_images(tmp_path)
    with pytest.raises(DataError, match=r"c\.png` must be an image file, and does not exist"):
        load_images([good, tmp_path / "c.png"])
    with pytest.raises(DataError, match="`paths` must name at least one image"):
        load_images([])


def test_a_data_folder_that_cannot_be_made(tmp_path, monkeypatch, server):
    serve_mnist(monkeypatch, server, torchvision.datasets.MNIST)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="must be writable, got: "):
        load_data("mnist", data_dir=tmp_path / "file" / "data")
