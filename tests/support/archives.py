"""Archives that a stranger might send: what is wrong with each, and what must be said of it."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field

import numpy as np
import safetensors.numpy

LARGE = 1 << 40


def members(archive):
    """Names and contents of an archive, in its order."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {it.name: tar.extractfile(it).read() for it in tar}


def tar(files):
    """A tar of these files, a mapping or pairs."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as packed:
        for name, content in files if isinstance(files, list) else files.items():
            packed.addfile(entry(name, content), io.BytesIO(content))
    return made.getvalue()


def entry(name, content=b"", **changes):
    found = tarfile.TarInfo(name)
    found.size = len(content)
    for key, value in changes.items():
        setattr(found, key, value)
    return found


def ended(packed):
    """A tar without the zeros at its end."""
    return packed[: -(-len(packed.rstrip(b"\0")) // 512) * 512]


def with_header(good, header, content=b"", form=tarfile.GNU_FORMAT):
    """The good files, and behind them a header as it is."""
    return ended(tar(good)) + header.tobuf(form) + content + b"\0" * (-len(content) % 512) + b"\0" * 1024


def sealed(good, change):
    """The model with another header or other tensors, and with the right digests: forged, not damaged."""
    state = next(iter(good)).split("/")[1]
    document = json.loads(good[f"states/{state}/model.json"])
    files = {name.rsplit("/", 1)[1]: data for name, data in good.items() if name.endswith(".safetensors")}
    change(document, files)
    document["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    header = json.dumps(document, indent=1, sort_keys=True).encode()
    name = f"{state.split('-')[0]}-{hashlib.sha256(header).hexdigest()[:8]}"
    made = {f"states/{name}/model.json": header} | {f"states/{name}/{it}": data for it, data in files.items()}
    pointer = {"format": "neural-slots", "schema": 1, "current": name, "generations": [name]}
    return tar(made | {"slots.json": json.dumps(pointer).encode()})


def tensors(change):
    """A change of the head's tensors."""

    def done(_document, files):
        found = dict(safetensors.numpy.load(files["head.safetensors"]))
        change(found)
        files["head.safetensors"] = safetensors.numpy.save(found)

    return done


def header(change):
    return lambda document, _files: change(document["header"])


@dataclass(frozen=True)
class Hostile:
    """One archive, and words of the sentence that refuses it."""

    name: str
    body: bytes = field(repr=False)
    says: str = ""


def structures(good):
    """Tars that are none of ours."""
    first, *_ = good
    state = first.split("/")[1]
    packed = tar(good)
    dots = good | {"../evil": b"x"}
    named = [
        ("nothing", b"", "it is empty"),
        ("no tar", b"PK\3\4" + b"x" * 5000, "it is no tar"),
        ("no files", tar({}), "it lacks slots.json"),
        ("absolute path", tar({"/etc/passwd": b"x"} | good), "'/etc/passwd'"),
        ("dots", tar(dots), "'../evil'"),
        ("dots inside", tar({f"states/{state}/../../../evil.safetensors": b"x"} | good), "evil.safetensors'"),
        ("dots for a state", tar({"states/../head.safetensors": b"x"} | good), "a file 'states/../"),
        ("dot before", tar({"./slots.json": b"{}"} | good), "'./slots.json'"),
        ("backslash", tar({f"states\\{state}\\model.json": b"x"} | good), "Only the files"),
        ("line break", tar({f"states/{state}/a\nb.safetensors": b"x"} | good), "a\\nb"),
        ("other letters", tar({f"states/{state}/häd.safetensors": b"x"} | good), "Only the files"),
        ("unknown file", tar({"evil.py": b"x"} | good), "'evil.py'"),
        ("unknown ending", tar({f"states/{state}/head.pkl": b"x"} | good), "head.pkl"),
        ("two states", tar(good | {"states/000009-12345678/model.json": b"{}"}), "000009"),
        ("file nobody lists", tar({f"states/{state}/more.safetensors": b"x"} | good), "other files than its model"),
        ("file that is missing", tar({n: c for n, c in good.items() if "head" not in n}), "other files than its model"),
        ("twice", tar([*good.items(), (first, good[first])]), "twice"),
        ("too many", tar({f"states/{state}/f{n}.safetensors": b"" for n in range(65)}), "more than 64"),
        ("truncated", packed[: len(packed) // 2 // 512 * 512], "it ends within"),
        ("truncated in a header", tar(good)[:700], "it ends within"),
        ("no end", ended(packed), "it ends too early"),
        ("something after the end", packed + b"x" * 512, "goes on after its end"),
        ("another tar after the end", packed + packed, "goes on after its end"),
        ("no number as a size", packed[:124] + b"zzzzzzzzzzz\0" + packed[136:], "it is no tar"),
    ]
    headers = [
        ("symbolic link", entry("states/x", type=tarfile.SYMTYPE, linkname="/etc"), "a symbolic link"),
        ("hard link", entry("slots.json2", type=tarfile.LNKTYPE, linkname="slots.json"), "a hard link"),
        ("device", entry("dev", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "a device"),
        ("block device", entry("dev", type=tarfile.BLKTYPE), "a device"),
        ("pipe", entry("pipe", type=tarfile.FIFOTYPE), "a pipe"),
        ("folder", entry("states", type=tarfile.DIRTYPE), "a folder"),
        ("sparse", entry("slots.json", type=tarfile.GNUTYPE_SPARSE), "an extension"),
        ("long name", entry("x" * 5000), "an extension"),
        ("size of a terabyte", entry(f"states/{state}/more.safetensors", size=LARGE), "it ends within"),
        ("size below nothing", entry(f"states/{state}/more.safetensors", size=-1), "-1 bytes"),
        ("size of a large header", entry(f"states/{state}/model.json2", size=LARGE), "Only the files"),
    ]
    named += [(name, with_header(good, it), says) for name, it, says in headers]
    pax = tarfile.TarInfo("slots.json")
    pax.pax_headers = {"path": "/etc/passwd"}
    named.append(("extended header", with_header(good, pax, form=tarfile.PAX_FORMAT), "an extension"))
    lying = bytearray(packed)
    lying[124:136] = b"%011o\0" % (len(good[first]) + 512)  # the next header becomes a part of this file
    lying[148:156] = b"%06o\0 " % (sum(lying[:148]) + 8 * 32 + sum(lying[156:512]))
    named.append(("size that is wrong", bytes(lying), ""))
    return [Hostile(*it) for it in named]


def models(good):
    """Archives in order whose models are none."""

    def half(found):
        found["weights"][0, 0] = np.nan

    def long(found):
        found["weights"] = found["weights"] * 2

    def late(found):
        found["generations"][:] = 9

    def schema(document, _files):
        document["schema"] = 2

    def spec(name, **options):
        return header(lambda it: it.update(backbone={"name": name, "options": options}))

    def pickled(_document, files):
        files["head.safetensors"] = b"\x80\x04cos\nsystem\n."

    def shape(it):
        it["preprocessing"]["shape"] = [7]

    def endless(it):
        it["history"] = [{"number": 1 << 40, "what": "fit", "n_slots": 6, "figures": {}}]

    damaged = {name: data[:-1] + b"x" if name.endswith(".safetensors") else data for name, data in good.items()}
    pointer = b'{"format": "neural-slots", "schema": 2, "current": "", "generations": []}'
    named = [
        ("damaged", tar(damaged), "does not match its sha256"),
        ("pointer of a newer version", tar(good | {"slots.json": pointer}), "a newer version wrote it"),
        ("another schema", sealed(good, schema), "a newer version wrote it"),
        ("NaN weights", sealed(good, tensors(half)), "weights"),
        ("weights too long", sealed(good, tensors(long)), "weights"),
        ("later slots", sealed(good, tensors(late)), "generations"),
        ("pickle", sealed(good, pickled), "as it was written"),
        ("another backbone", sealed(good, spec("evil.module:run")), "evil"),
        ("weights elsewhere", sealed(good, spec("pretrained", network="x", weights="http://x/y")), "in its own folder"),
        ("a huge backbone", sealed(good, spec("positive", widths=[1 << 20])), "at most 65536"),
        ("other inputs", sealed(good, header(shape)), ""),
        ("a history that is none", sealed(good, header(lambda it: it.update(history="x"))), "cannot be rebuilt"),
        ("generations without end", sealed(good, header(endless)), "1,000,000"),
        ("no header", sealed(good, lambda document, _files: document.update(header=[])), "list its files"),
    ]
    return [Hostile(*it) for it in named]
