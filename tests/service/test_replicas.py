"""What one service publishes others answer with, and go on answering with when they cannot reach it any more."""

import shutil
import time

import pytest
from support.service import rows, running

from protocols.service.replicas.places import Place
from protocols.service.service import Service
from protocols.service.settings import Settings
from slots.errors import MissingExtraError, ModelError, StorageError, UsageError
from slots.model import SlotModel
from slots.model.editing import relabel
from slots.storage.states import POINTER, read_pointer

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"


def answers(client, x):
    found = client.post(f"{MODEL}/predict", json={"inputs": x.tolist()})
    assert found.status_code == 200, found.text
    return found.json()


def until(wanted, seconds=60):
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def following(place, data, **changes):
    return running("", data, models={}, follow={"small": str(place)}, follow_seconds=0.05, **changes)


@pytest.fixture
def bucket(own, tmp_path):
    """A place that holds the model."""
    with running(own, tmp_path / "leader", publish=str(tmp_path / "bucket")):
        until((tmp_path / "bucket/small" / POINTER).exists)
    return tmp_path / "bucket" / "small"


def renamed(folder, name):
    """A new generation of a model folder."""
    model = SlotModel.load(folder)
    relabel(model, [0], name)
    model.save(folder)


def test_a_follower_answers_as_the_leader_and_goes_with_it(own, tmp_path):
    x, _ = rows(50, 5, classes=4)
    place = tmp_path / "bucket"
    with running(own, tmp_path / "leader", publish=str(place)) as leader:
        until((place / "small" / POINTER).exists)
        with following(place / "small", tmp_path / "follower") as follower:
            assert answers(follower, x) == answers(leader, x)
            for name in ("scarlet", "crimson", "ruby"):
                renamed(own, name)
                until(lambda: follower.get(MODEL).json()["generation"] == SlotModel.load(own).generation)
                assert answers(follower, x) == answers(leader, x)
                assert name in follower.get(MODEL).json()["labels"]
    assert len(list((place / "small" / "states").iterdir())) == 2  # the one before stays for late readers
    assert read_pointer(place / "small").current == read_pointer(own).current


def test_a_follower_only_answers(bucket, tmp_path):
    with following(bucket, tmp_path / "follower") as follower:
        facts = follower.get(MODEL).json()
        assert (facts["follows"], facts["problem"]) == (True, "")
        for path, body in [
            ("items", {"inputs": [[3.0, 0, 0, 0, 0, 0]]}),
            ("updates", {}),
            ("review", {}),
            ("undo", {}),
            ("edits", {"what": "delete", "slots": [0]}),
        ]:
            found = follower.post(f"{MODEL}/{path}", json=body)
            assert found.status_code == 409, (path, found.text)
            assert "follows another service" in found.json()["detail"]


def test_a_copy_answers_when_the_place_is_gone(bucket, tmp_path):
    x, _ = rows(20, 6)
    with following(bucket, tmp_path / "follower") as follower:
        before = answers(follower, x)
        shutil.rmtree(bucket)
        until(lambda: "it is not there" in follower.get(MODEL).json()["problem"])
        assert 'slots_replica_problem{model="small"} 1.0' in follower.get("/metrics").text
        assert answers(follower, x) == before
    with following(bucket, tmp_path / "follower") as follower:
        assert answers(follower, x) == before
        assert "it is not there" in follower.get(MODEL).json()["problem"]


def test_a_damaged_state_is_not_taken_over(bucket, own, tmp_path):
    x, _ = rows(20, 7)
    with following(bucket, tmp_path / "follower") as follower:
        before = answers(follower, x)
        renamed(own, "scarlet")
        state = read_pointer(own).current
        shutil.copytree(own / "states" / state, bucket / "states" / state)
        head = next((bucket / "states" / state).glob("head*"))
        content = head.read_bytes()
        head.unlink()  # it may be a second name of the file in the state before
        head.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        (bucket / POINTER).write_bytes((own / POINTER).read_bytes())
        until(lambda: "damaged" in follower.get(MODEL).json()["problem"])
        assert answers(follower, x) == before


def test_a_place_that_refuses_is_named_and_tried_again(own, tmp_path):
    (tmp_path / "bucket").write_text("a file where a folder should be")
    with running(own, tmp_path / "leader", publish=str(tmp_path / "bucket")) as leader:
        until(lambda: "bucket" in leader.get(MODEL).json()["problem"])
        assert answers(leader, rows(3, 1)[0])
        (tmp_path / "bucket").unlink()
        until(lambda: leader.get(MODEL).json()["problem"] == "")
        assert read_pointer(tmp_path / "bucket" / "small").current == read_pointer(own).current


def test_a_model_folder_is_not_published_over(own, small, tmp_path):
    """Not one with a history, nor one that was only fitted: each is as it was."""
    for name in ("fitted", "longer"):
        shutil.copytree(small, tmp_path / name / "small")
        SlotModel.load(tmp_path / name / "small").save(tmp_path / name / "small")  # so that its lock lies there
    renamed(tmp_path / "longer" / "small", "violet")
    for name in ("fitted", "longer"):
        before = [(p, p.stat().st_mtime_ns) for p in sorted((tmp_path / name).rglob("*"))]
        with running(own, tmp_path / f"data of {name}", publish=str(tmp_path / name)) as leader:
            until(lambda: "must be a place for published models alone" in leader.get(MODEL).json()["problem"])
        assert [(p, p.stat().st_mtime_ns) for p in sorted((tmp_path / name).rglob("*"))] == before


def test_an_alarm_of_a_follower_is_its_own(bucket, tmp_path):
    with following(bucket, tmp_path / "follower") as follower:
        found = follower.post(f"{MODEL}/drift/acknowledge", json={})
        assert (found.status_code, "no alarm" in found.json()["detail"]) == (409, True)
        assert follower.get(f"{MODEL}/archive").status_code == 200


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        ("{}/nothing", StorageError, "it is not there"),
        ("nonsense://somewhere/small", UsageError, "nonsense"),
        ("abfs://somewhere/small", MissingExtraError, "abfs"),
    ],
)
def test_a_place_without_a_model_is_said_at_the_start(place, error, says, tmp_path):
    with pytest.raises(error, match=says):
        Service.open(Settings({}, tmp_path / "data", follow={"small": place.format(tmp_path)}))


def test_a_published_stranger_is_refused(bucket, tmp_path):
    (bucket / POINTER).write_text('{"format": "something else"}')
    with pytest.raises(ModelError, match="belongs to something else"):
        Service.open(Settings({}, tmp_path / "data", follow={"small": str(bucket)}))


@pytest.fixture(scope="module")
def store():
    """A local server that speaks S3, with a bucket."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        Place("s3://models")._files.mkdir("models")
        yield "s3://models"
    server.stop()


def test_followers_of_an_object_store(store, own, tmp_path):
    x, _ = rows(30, 8, classes=4)
    with running(own, tmp_path / "leader", publish=store) as leader:
        until(lambda: "small" in Place(store).folders(""))
        until(lambda: Place(f"{store}/small").has(POINTER, len((own / POINTER).read_bytes())))
        with following(f"{store}/small", tmp_path / "follower") as follower:
            assert answers(follower, x) == answers(leader, x)
            renamed(own, "scarlet")
            until(lambda: follower.get(MODEL).json()["generation"] == SlotModel.load(own).generation)
            assert answers(follower, x) == answers(leader, x)
