"""Who may come in: keys in all their forms, sessions of browsers, and pages of other sites."""

import base64
import hashlib
import json
import socket
import sqlite3
import stat
import time
from dataclasses import replace

import httpx
import pytest
from support.key_cutter import bearer, cut, revoke
from support.service import running

from protocols.commands import main
from protocols.service.callers import Role
from protocols.service.gate.sessions import SECONDS, Sessions
from protocols.service.service import Service
from protocols.service.settings import Limits, Settings
from slots.errors import UsageError

PREDICT = "/api/v1/models/small/predict"
ROW = {"inputs": [[3.0, 0, 0, 0, 0, 0]]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("keyed")


@pytest.fixture(scope="module")
def keys(data):
    made = {it: cut(data, it, it) for it in ("read", "ingest", "label", "admin")}
    return {**made, "other": cut(data, "other", "admin", "other"), "mine": cut(data, "mine", "admin", "small")}


@pytest.fixture(scope="module")
def keyed(small, data, keys):
    with running(small, data) as client:
        yield client


def command(capsys, *arguments, status=0):
    with pytest.raises(SystemExit) as end:
        main([str(it) for it in arguments])
    printed = capsys.readouterr()
    assert end.value.code == status, printed.err
    return printed


def test_nobody_comes_in_without_a_key(keyed):
    for path in ("/api/v1/models", "/api/v1/keys", "/api/v1/openapi.json", "/metrics", "/nowhere"):
        found = keyed.get(path)
        assert found.status_code == 401, path
        assert found.headers["www-authenticate"] == "Bearer"
        assert found.headers["content-type"] == "application/problem+json"
        assert "slots keys add" in found.json()["detail"]
    assert keyed.post(PREDICT, json=ROW).status_code == 401
    assert keyed.get("/v2/models/small").json()["error"].startswith("This needs a key")
    assert keyed.get("/api/v1/live").json() == {"live": True}
    assert keyed.get("/api/v1/ready").json() == {"ready": True}


def test_a_key_is_taken_in_each_of_its_forms(keyed, keys):
    basic = base64.b64encode(f"anybody:{keys['read']}".encode()).decode()
    for headers in (bearer(keys["read"]), {"X-API-Key": keys["read"]}, {"Authorization": f"basic {basic}"}):
        assert keyed.post(PREDICT, json=ROW, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer slots_"},
        {"Authorization": "Basic !!"},
        {"Authorization": "Digest KEY"},
        {"Authorization": "Bearer KEYx"},
        {"X-API-Key": "HALF"},
        {"X-API-Key": "x" * 4000},
        {"X-API-Key": "\xff"},
        {"Authorization": "Bearer wrong", "X-API-Key": "KEY"},
    ],
)
def test_what_is_nearly_a_key_is_none(keyed, keys, headers):
    known = {"KEY": keys["admin"], "HALF": keys["admin"][:-1]}
    sent = {
        name: known.get(value, value.replace("KEY", keys["admin"])).encode("latin-1") for name, value in headers.items()
    }
    assert keyed.get("/api/v1/models", headers=sent).status_code == 401


def test_a_digest_is_no_key(keyed, keys):
    """Whoever reads the database cannot come in with what is there."""
    assert (
        keyed.get("/api/v1/models", headers=bearer(hashlib.sha256(keys["admin"].encode()).hexdigest())).status_code
        == 401
    )


def test_the_database_holds_digests_alone(data, keyed, keys):
    whole = b"".join(it.read_bytes() for it in sorted(data.iterdir()))
    for key in keys.values():
        assert key.encode() not in whole
        assert key.removeprefix("slots_").encode() not in whole
        assert hashlib.sha256(key.encode()).hexdigest().encode() in whole
        assert len(base64.urlsafe_b64decode(key.removeprefix("slots_") + "=")) == 32


def test_roles_and_models_bound_what_a_key_may_do(keyed, keys):
    for role in ("read", "ingest", "label"):
        found = keyed.post("/api/v1/keys", json={"name": "x", "role": "admin"}, headers=bearer(keys[role]))
        assert found.status_code == 403
        assert f"has the role {role}; this needs admin" in found.json()["detail"]
        assert keyed.post(PREDICT, json=ROW, headers=bearer(keys[role])).status_code == 200
    found = keyed.get("/api/v1/keys", headers=bearer(keys["mine"]))
    assert found.status_code == 403
    assert "for the model 'small' alone" in found.json()["detail"]
    assert keyed.get("/api/v1/events", headers=bearer(keys["mine"])).status_code == 403
    assert keyed.post(PREDICT, json=ROW, headers=bearer(keys["mine"])).status_code == 200
    assert keyed.post(PREDICT, json=ROW, headers=bearer(keys["other"])).status_code == 403
    assert keyed.get("/api/v1/models", headers=bearer(keys["other"])).json() == []


def test_keys_are_made_listed_and_revoked_by_administrators(keyed, keys):
    admin = bearer(keys["admin"])
    made = keyed.post("/api/v1/keys", json={"name": "  bob ", "role": "read", "model": "small"}, headers=admin)
    assert made.status_code == 201
    key = made.json()
    assert (key["name"], key["role"], key["model"]) == ("bob", "read", "small")
    assert keyed.post(PREDICT, json=ROW, headers=bearer(key["key"])).status_code == 200
    again = keyed.post("/api/v1/keys", json={"name": "bob", "role": "read"}, headers=admin)
    assert (again.status_code, "Revoke that one first" in again.json()["detail"]) == (400, True)
    for wrong in ({"name": "12", "role": "read"}, {"name": "a\nb", "role": "read"}, {"name": " ", "role": "read"}):
        assert keyed.post("/api/v1/keys", json=wrong, headers=admin).status_code == 400
    for wrong in ({"name": "c", "role": "nobody"}, {"name": "c" * 129, "role": "read"}, {"name": "c"}):
        assert keyed.post("/api/v1/keys", json=wrong, headers=admin).status_code == 422
    assert (
        keyed.post("/api/v1/keys", json={"name": "c", "role": "read", "model": "no"}, headers=admin).status_code == 404
    )
    listed = keyed.get("/api/v1/keys", headers=admin)
    assert key["key"] not in listed.text
    assert "digest" not in listed.text
    assert keyed.delete(f"/api/v1/keys/{key['number']}", headers=admin).json()["revoked"] > 0
    assert keyed.post(PREDICT, json=ROW, headers=bearer(key["key"])).status_code == 401
    assert keyed.delete(f"/api/v1/keys/{key['number']}", headers=admin).status_code == 404
    log = keyed.get("/api/v1/events", headers=admin).json()
    (added,) = [it for it in log if it["action"] == "key.add" and it["detail"]["name"] == "bob"]
    (revoked,) = [it for it in log if it["action"] == "key.revoke" and it["detail"]["name"] == "bob"]
    assert (added["by"], revoked["by"], added["model"]) == ("admin", "admin", "small")
    assert keyed.get("/api/v1/events", params={"after": added["number"]}, headers=admin).json()[0] == revoked


def test_the_last_use_is_written_once_a_minute(keyed, keys, data):
    def used():
        return keyed.get("/api/v1/keys", headers=bearer(keys["admin"])).json()[1]["last_used"]

    for _ in range(5):
        keyed.post(PREDICT, json=ROW, headers=bearer(keys["ingest"]))
    until = time.monotonic() + 10
    while (first := used()) is None and time.monotonic() < until:
        time.sleep(0.05)
    assert abs(first - time.time()) < 60
    keyed.post(PREDICT, json=ROW, headers=bearer(keys["ingest"]))
    time.sleep(0.2)
    assert used() == first


def test_the_command_line_changes_the_keys_of_a_running_service(own, tmp_path, capsys):
    """Keyless it answers this machine; from the first key on nobody without, even when all were revoked."""
    with running(own, own / "service") as client:
        assert client.get("/api/v1/keys").json() == []
        made = command(capsys, "keys", "add", "anna", "--role", "label", "--data", own)
        key = made.out.strip()
        assert "shown now and never again" in made.err
        until = time.monotonic() + 10
        while client.get("/api/v1/models").status_code == 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert client.get("/api/v1/models").status_code == 401
        assert client.get("/api/v1/models", headers=bearer(key)).status_code == 200
        listed = json.loads(command(capsys, "keys", "list", "--data", own, "--json").out)["keys"]
        assert [(it["name"], it["role"], it["revoked"]) for it in listed] == [("anna", "label", None)]
        assert "anna" in command(capsys, "keys", "list", "--data", own / "service").out
        command(capsys, "keys", "revoke", "anna", "--data", own)
        until = time.monotonic() + 10
        while client.get("/api/v1/models", headers=bearer(key)).status_code == 200 and time.monotonic() < until:
            time.sleep(0.02)
        assert client.get("/api/v1/models", headers=bearer(key)).status_code == 401
        assert client.get("/api/v1/models").status_code == 401
    whole = command(capsys, "audit", "verify", "--data", own)
    assert whole.out.startswith("The log is whole: 2 events.")
    with sqlite3.connect(own / "service" / "inbox.db") as raw:
        raw.execute("UPDATE event SET by = 'mallory' WHERE number = 1")
    raw.close()
    broken = command(capsys, "audit", "verify", "--data", own, status=5)
    assert "Event 1 was changed or moved" in broken.err
    assert len(broken.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("keys", "add", "--data", "DIR"), "slots keys add NAME"),
        (("keys", "grow", "anna", "--data", "DIR"), "slots keys add NAME"),
        (("keys", "add", "anna"), "`--data` must name"),
        (("keys", "add", "anna", "--data", "NONE"), "must be a folder that is there"),
        (("keys", "add", "anna", "--role", "god", "--data", "DIR"), "must be one of read, ingest, label, admin"),
        (("keys", "revoke", "bob", "--data", "DIR"), "must be a key in use, got bob"),
        (("audit", "mend", "--data", "DIR"), "slots audit verify"),
    ],
)
def test_wrong_commands_are_one_line(tmp_path, capsys, arguments, says):
    given = [{"DIR": tmp_path, "NONE": tmp_path / "none"}.get(it, it) for it in arguments]
    failed = command(capsys, *given, status=2)
    assert says in failed.err
    assert len(failed.err.splitlines()) == 1


def test_other_machines_are_served_only_with_a_key(own, tmp_path):
    settings = Settings({"small": own}, tmp_path, host="0.0.0.0", port=0)
    with pytest.raises(UsageError, match="Make a key first: slots keys add"):
        Service.open(settings)
    cut(tmp_path, "anna")
    with running(own, tmp_path, host="0.0.0.0") as client:
        assert client.get("/api/v1/models").status_code == 401
    revoke(tmp_path, "anna")
    with pytest.raises(UsageError, match="while no key is in use"):
        Service.open(settings)


# -- pages of other sites -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.org"}, 403),
        ({"Host": "127.0.0.1.evil.org"}, 403),
        ({"Host": "localhost.evil.org:80"}, 403),
        ({"Host": "[::1].evil.org"}, 403),
        ({"Origin": "http://evil.org"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
    ],
)
def test_a_page_of_another_site_commands_no_keyless_service(client, headers, status):
    assert client.post(PREDICT, json=ROW, headers=headers).status_code == status


def test_what_a_page_of_another_site_may_get(client):
    own_origin = str(client.base_url).rstrip("/")
    assert client.post(PREDICT, json=ROW, headers={"Origin": own_origin}).status_code == 200
    there = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/api/v1/models", headers={**there, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get("/api/v1/models", headers={**there, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    answer = client.get("/api/v1/models", headers={"Origin": "http://evil.org"})
    assert not [it for it in answer.headers if it.startswith("access-control")]
    assert client.options(PREDICT, headers={"Origin": "http://evil.org"}).status_code == 403


def test_a_host_is_needed_once(client):
    address = (client.base_url.host, client.base_url.port)
    for head in (
        b"GET /api/v1/models HTTP/1.0\r\n\r\n",
        b"GET /api/v1/models HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
    ):
        with socket.create_connection(address, timeout=10) as raw:
            raw.sendall(head)
            assert raw.recv(100).split(b" ")[1] in (b"400", b"403")


# -- sessions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def browser(keyed, keys):
    with httpx.Client(base_url=keyed.base_url, timeout=30) as opened:
        found = opened.post("/login", data={"key": keys["admin"], "next": "/history?x=1"})
        assert (found.status_code, found.headers["location"]) == (303, "/history?x=1")
        crumbs = found.headers["set-cookie"].lower()
        assert "httponly" in crumbs
        assert "samesite=strict" in crumbs
        assert keys["admin"].lower() not in crumbs
        yield opened


def test_a_session_stands_for_its_key(browser, keyed, keys):
    ours = {"Origin": str(keyed.base_url).rstrip("/")}
    assert browser.get("/api/v1/keys").status_code == 200
    assert browser.post(PREDICT, json=ROW, headers=ours).status_code == 200
    for foreign in ({}, {"Origin": "http://evil.org"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
        assert browser.post(PREDICT, json=ROW, headers=foreign).status_code == 403
    assert browser.post("/logout", headers=ours).headers["location"] == "/login"
    assert browser.get("/api/v1/keys").status_code == 401


def test_a_session_ends_with_its_key(keyed, keys):
    made = keyed.post("/api/v1/keys", json={"name": "carl", "role": "read"}, headers=bearer(keys["admin"])).json()
    with httpx.Client(base_url=keyed.base_url) as browser:
        browser.post("/login", data={"key": made["key"]})
        assert browser.get("/api/v1/models").status_code == 200
        keyed.delete(f"/api/v1/keys/{made['number']}", headers=bearer(keys["admin"]))
        assert browser.get("/api/v1/models").status_code == 401


def test_a_cookie_cannot_be_made_or_changed(browser, keyed):
    ((name, value),) = browser.cookies.items()
    number, until, signature = value.split(".")
    forged = [
        f"{int(number) - 1}.{until}.{signature}", f"{number}.{int(until) + 1}.{signature}", f"{number}.{until}.",
        f"{number}.{until}", f"{number}.{until}.{signature[::-1]}", "", "...", "9" * 5000,
        f"{number}.{until}.{signature}.",
    ]  # fmt: skip
    for it in forged:
        if it != value:
            assert keyed.get("/api/v1/models", headers={"Cookie": f"{name}={it}"}).status_code == 401, it
    assert keyed.get("/api/v1/models", headers={"Cookie": f"{name}={value}"}).status_code == 200
    assert keyed.get("/api/v1/models", headers={"Cookie": f"{name}={value}; {name}={value}"}).status_code == 401


def test_a_session_runs_out(tmp_path, monkeypatch):
    sessions = Sessions(tmp_path)
    value = sessions.sign(3, "a" * 64)
    assert sessions.read(value) == 3
    assert sessions.holds(value, "a" * 64)
    assert not sessions.holds(value, "b" * 64)
    assert Sessions(tmp_path).holds(value, "a" * 64)
    later = time.time() + SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert sessions.read(value) is None


def test_the_secret_is_for_its_owner_alone(tmp_path):
    one, other = Sessions(tmp_path / "a"), Sessions(tmp_path / "b")
    file = tmp_path / "a" / "session.secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [it.name for it in file.parent.iterdir()] == ["session.secret"]
    assert one.cookie != other.cookie
    assert not other.holds(one.sign(1, "a"), "a")


ELSEWHERE = ["//evil.org", "/\\evil.org", "https://evil.org", "javascript:1", "", "/a\r\nX: 1", "/ä"]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_a_login_leads_nowhere_else(keyed, keys, place):
    found = keyed.post("/login", data={"key": keys["read"], "next": place})
    keyed.cookies.clear()
    assert found.headers["location"] == "/"


def test_a_wrong_key_begins_no_session(keyed):
    found = keyed.post("/login", data={"key": "slots_wrong"})
    assert (found.status_code, "set-cookie" in found.headers) == (401, False)
    shown = keyed.post("/login", data={"key": "slots_wrong"}, headers={"Accept": "text/html"})
    assert (shown.headers["location"], "set-cookie" in shown.headers) == ("/login?refused=1", False)
    assert keyed.post("/login", data={"key": "x"}, headers={"Origin": "http://evil.org"}).status_code == 403


def test_a_browser_without_a_session_is_led_to_the_login(keyed):
    found = keyed.get("/slots?a=1", headers={"Accept": "text/html,*/*"})
    assert (found.status_code, found.headers["location"]) == (303, "/login?next=/slots")
    assert keyed.get("/api/v1/models", headers={"Accept": "text/html"}).status_code == 401


# -- how much -------------------------------------------------------------------------------------------------------


def test_a_key_has_a_rate_of_its_own(own, tmp_path):
    one, other = cut(tmp_path, "one", "read"), cut(tmp_path, "other", "read")
    with running(own, tmp_path, limits=replace(Limits(), requests_per_second=2.0)) as client:
        found = [client.get("/api/v1/models", headers=bearer(one)) for _ in range(30)]
        refused = [it for it in found if it.status_code == 429]
        assert {it.status_code for it in found} == {200, 429}
        assert len(refused) >= 10
        assert int(refused[0].headers["retry-after"]) >= 1
        assert "2 requests a second" in refused[0].json()["detail"]
        assert client.get("/api/v1/models", headers=bearer(other)).status_code == 200
        assert client.get("/api/v1/live").status_code == 200
        time.sleep(1.1)
        assert client.get("/api/v1/models", headers=bearer(one)).status_code == 200


def test_every_role_has_a_word():
    assert [it.name.lower() for it in sorted(Role)] == ["nobody", "read", "ingest", "label", "admin"]
