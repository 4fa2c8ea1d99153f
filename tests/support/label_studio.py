"""Label Studio, started from an environment of its own, and what its pages do by its API."""

import os
import socket
import subprocess
import time
from contextlib import contextmanager

import httpx

NOT_AT_HOME = {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"}
"""Without these Label Studio refuses a backend at an address of a private network."""

QUIET = {"COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": ""}
"""It asks nothing of other hosts."""


@contextmanager
def label_studio(command, data):
    """Label Studio on a free port of the loopback address; a client of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data.mkdir()
    token = "0123456789abcdef" * 2 + "01234567"
    words = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--data-dir", str(data)]
    words += ["--username", "a@b.example", "--password", token, "--user-token", token, "--enable-legacy-api-token"]
    environment = {**os.environ, **NOT_AT_HOME, **QUIET, "LABEL_STUDIO_BASE_DATA_DIR": str(data)}
    with (data / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [str(command), *words], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            with client(f"http://127.0.0.1:{port}", f"Token {token}") as theirs:

                def up():
                    must(process.poll() is None, (data / "output.txt").read_text()[-2000:])
                    try:
                        return theirs.get("/api/current-user/whoami").status_code == 200
                    except httpx.TransportError:
                        return False

                until(up, "Label Studio", 600)
                yield theirs
        finally:
            process.kill()
            process.wait()


def client(address, authorization):
    """A client that shows a key."""
    return httpx.Client(base_url=address, headers={"Authorization": authorization}, timeout=120)


def listed(theirs, project):
    """Data of all tasks of a project, by their numbers."""
    found = check(theirs.get("/api/tasks/", params={"project": project, "page_size": 1000})).json()
    return {it["id"]: it["data"] for it in found["tasks"]}


def retrieve(theirs, project):
    """Ask the backend for predictions of all tasks."""
    every = {"selectedItems": {"all": True, "excluded": []}}
    check(theirs.post("/api/dm/actions/", params={"id": "retrieve_tasks_predictions", "project": project}, json=every))


def predictions(theirs, project, version):
    """Predictions of one version, by their tasks."""
    found = check(theirs.get("/api/predictions/", params={"project": project})).json()
    return {it["task"]: it for it in found if it["model_version"] == version}


def chosen(prediction):
    """What a prediction says."""
    (choice,) = prediction["result"]
    (name,) = choice["value"]["choices"]
    return name


def annotate(theirs, task, word):
    """Say what a task is, as somebody at Label Studio does."""
    choice = {"from_name": "label", "to_name": "item", "type": "choices", "value": {"choices": [word]}}
    check(theirs.post(f"/api/tasks/{task}/annotations/", json={"result": [choice]}))


def let_webhooks_in(theirs, project, key):
    """Label Studio shows the backend's key to the backend, but not to the webhook that it makes for it."""
    (hook,) = check(theirs.get("/api/webhooks/", params={"project": project})).json()
    headers = {"Authorization": f"Bearer {key}"}
    check(theirs.patch(f"/api/webhooks/{hook['id']}/", json={"url": hook["url"], "headers": headers}))


def until(holds, what, seconds):
    """Wait for something."""
    end = time.monotonic() + seconds
    while not holds():
        must(time.monotonic() < end, f"{what}: not within {seconds} s")
        time.sleep(0.2)


def check(answer):
    """An answer that must be a good one."""
    must(answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:1000]}")
    return answer


def must(holds, said):
    """End where something does not hold."""
    if not holds:
        raise SystemExit(f"Not as it should be: {said}")
