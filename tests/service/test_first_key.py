"""The first administrator's key comes from a secret of whoever deploys the service, and is shown nowhere."""

import httpx
import pytest
from support.key_cutter import bearer, revoke
from support.served_process import served
from support.service import running

from protocols.service.gate.first_key import NAME, VARIABLE, given_key
from protocols.service.gate.keys import keys
from protocols.service.inbox.database import Database
from protocols.service.inbox.events import events
from protocols.service.settings import Settings
from slots.errors import UsageError

SECRET = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


def rows(data, work):
    opened = Database.in_folder(data)
    try:
        return opened.read_now(work)
    finally:
        opened.close()


def test_the_secret_opens_the_service_and_another_one_takes_its_place(small, tmp_path):
    for _ in range(2):  # a restart makes no second key
        with running(small, tmp_path, host="0.0.0.0", admin_key=SECRET) as client:
            assert client.get("/api/v1/models").status_code == 401
            assert client.get("/api/v1/keys", headers=bearer(SECRET)).json()[0]["name"] == NAME
    with running(small, tmp_path, admin_key=OTHER) as client:
        assert client.get("/api/v1/keys", headers=bearer(SECRET)).status_code == 401
        assert client.get("/api/v1/keys", headers=bearer(OTHER)).status_code == 200
    with running(small, tmp_path) as client:  # it is a key like others
        assert client.get("/api/v1/keys", headers=bearer(OTHER)).status_code == 200
    assert [(it.name, it.role.name, it.revoked is None) for it in rows(tmp_path, keys)] == [
        (NAME, "ADMIN", False),
        (NAME, "ADMIN", True),
    ]
    written = rows(tmp_path, lambda it: [(e.by, e.action) for e in events(it)])
    assert written == [("service", "key.add"), ("service", "key.revoke"), ("service", "key.add")]
    assert SECRET.encode() not in b"".join(it.read_bytes() for it in tmp_path.iterdir() if it.is_file())


def test_what_an_administrator_revoked_stays_revoked(small, tmp_path):
    with running(small, tmp_path, admin_key=SECRET) as client:
        assert client.get("/api/v1/keys", headers=bearer(SECRET)).status_code == 200
    revoke(tmp_path, NAME)
    with running(small, tmp_path, admin_key=SECRET) as client:
        assert client.get("/api/v1/keys", headers=bearer(SECRET)).status_code == 401


def test_the_file_comes_before_the_environment_which_forgets_the_key(tmp_path, monkeypatch):
    file = tmp_path / "key"
    file.write_text(f"  {SECRET}\n")
    monkeypatch.setenv(VARIABLE, OTHER)
    assert given_key(file) == SECRET
    assert given_key(None) == ""  # processes of jobs do not inherit it
    monkeypatch.setenv(VARIABLE, OTHER)
    assert given_key(None) == OTHER
    monkeypatch.setenv(VARIABLE, "")
    assert given_key(None) == ""


@pytest.mark.parametrize("held", ["", "short", "x" * 31, "x" * 513, "with a space " * 3, "\x00" * 40, "ü" * 40])
def test_what_is_no_key_is_refused_and_not_repeated(tmp_path, held):
    file = tmp_path / "key"
    file.write_text(held, encoding="utf-8")
    with pytest.raises(UsageError, match=r"must hold a key of 32 to 512 .* openssl rand -hex 32") as refused:
        given_key(file)
    assert not held or held not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"`--admin-key-file` must be a file that can be read, got .*none"):
        given_key(tmp_path / "none")


def test_settings_do_not_show_it(tmp_path):
    assert SECRET not in repr(Settings({"small": tmp_path}, tmp_path, admin_key=SECRET))


def test_a_process_that_others_reach_starts_with_it_and_prints_nothing_of_it(small, tmp_path):
    options = ("--data", tmp_path, "--host", "0.0.0.0")
    with served(f"small={small}", *options, environment={VARIABLE: SECRET}, program=None) as it:
        with httpx.Client(base_url=it.address, timeout=30) as client:
            assert client.get("/api/v1/keys").status_code == 401
            assert client.get("/api/v1/keys", headers=bearer(SECRET)).status_code == 200
            assert client.get("/api/v1/models/none", headers=bearer(SECRET)).status_code == 404
        code, _ = it.stop()
    assert code == 0
    assert SECRET not in "".join(it.lines)
