"""`slots run` as a user meets it: the files, what is printed, going on after a stop, and what is refused."""

import json

import pytest
from support.pages import asked_for, parse

from protocols.commands import main
from protocols.runs.catalogue import PROTOCOLS, find_protocol


def run(capsys, *arguments, status=0):
    """Run a command in this process; returns what it printed."""
    with pytest.raises(SystemExit) as end:
        main(["run", *map(str, arguments)])
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    return printed


@pytest.mark.usefixtures("brief_training")  # what is written and read again is the same for any network
def test_files_and_tables(tmp_path, capsys):
    out = tmp_path / "r"
    printed = run(capsys, "ood", "--data", "digits", "--peers", "mahalanobis", "--seeds", 1, "--out", out)
    protocol = find_protocol("ood")
    assert "* slots" in printed.out
    assert str(out / "report.html") in printed.out
    document = json.loads((out / "result.json").read_text())
    assert document["protocol"] == "ood"
    assert document["data"] == "digits"
    assert document["backbone"] == protocol.backbone
    assert document["command"].startswith("slots")
    assert document["options"] == {**protocol.defaults}
    assert set(asked_for(parse((out / "report.html").read_text()))) <= {"data:,", "#main"}
    assert protocol.title in (out / "result.md").read_text()

    (seed,) = (out / "seeds").iterdir()
    written = seed.stat().st_mtime_ns
    printed = run(capsys, "ood", "--data", "digits", "--peers", "mahalanobis", "--seeds", 1, "--out", out, "--json")
    again = json.loads(printed.out)
    assert again["seeds"] == document["seeds"]
    assert seed.stat().st_mtime_ns == written


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_what_it_is(name):
    protocol = find_protocol(name)
    assert protocol.name == name
    assert protocol.headline in [column.key for column in protocol.columns]
    assert len({column.key for column in protocol.columns}) == len(protocol.columns)
    assert len(protocol.about) > 100
    assert len(set(protocol.peers)) == len(protocol.peers) > 1
    json.dumps(dict(protocol.defaults))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["od", "--data", "digits"], "`protocol` must be one of slot-update, continual,"),
        (["ood", "--data", "digits", "--peers", "xyz"], "`peers` of ood must be all, none or some of"),
        (["ood", "--data", "digits", "--option", "x=1"], "`option` of ood must be one of"),
        (["ood", "--data", "digits", "--model", "m", "--backbone", "cnn"], "`model` must come without backbone"),
        (["ood", "--data", "digits", "--backbone", "resnet"], "`name` must be one of pixels, cnn"),
        (["ood", "--data", "digits", "--seeds", "0"], "Invalid value for '--seeds'"),
    ],
)
def test_misuse_is_one_line(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    printed = run(capsys, *arguments, status=2)
    assert sentence in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
