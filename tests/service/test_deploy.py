"""What ships the service: files that parse as what they are, and say what the service understands."""

import ctypes.util
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import kubernetes_validate
import pytest
import yaml
from support import confined
from support.served_process import served
from support.service import rows
from typer.main import get_command

from protocols.commands.app import app
from protocols.service.gate.first_key import VARIABLE
from protocols.service.web.notify import notify

pytestmark = pytest.mark.slow

DEPLOY = Path(__file__).parents[2] / "deploy"
if not DEPLOY.exists():
    pytest.skip("needs the checkout", allow_module_level=True)

SERVE = get_command(app).commands["serve"]


def understood(words):
    """The words after `slots` parse as a command of ours."""
    assert words[0] == "serve"
    SERVE.make_context("serve", list(words[1:]), resilient_parsing=False)


def documents(name):
    return [it for it in yaml.safe_load_all((DEPLOY / name).read_text()) if it]


def test_the_images_command_is_one_of_ours():
    text = (DEPLOY / "Dockerfile").read_text()
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    understood(yaml.safe_load(command))
    assert re.search(r"^USER slots$", text, re.MULTILINE)
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((DEPLOY.parent / file).exists() for file in copied.split())


def test_compose_files_are_as_their_schema_says():
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_compose_services_start_what_there_is():
    (found,) = documents("compose.yaml")
    profiles = {name: it.get("profiles", []) for name, it in found["services"].items()}
    assert profiles["slots"] == []
    assert {name for name, it in profiles.items() if it} == {"slots-postgres", "postgres", "prometheus", "labelstudio"}
    for name in ("slots", "slots-postgres"):
        understood(found["services"][name]["command"])
        assert found["services"][name]["read_only"]


def test_kubernetes_manifests_are_as_their_schema_says():
    for found in documents("kubernetes/slots.yaml"):
        kubernetes_validate.validate(found, "1.29", strict=True)


def test_the_pod_is_asked_at_routes_that_are_there():
    (stateful,) = [it for it in documents("kubernetes/slots.yaml") if it["kind"] == "StatefulSet"]
    spec = stateful["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    understood(container["args"])
    assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {"/v2/health/live"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert stateful["spec"]["replicas"] == 1  # there is one writer
    assert spec["terminationGracePeriodSeconds"] > 30


def test_who_deploys_gives_the_first_key():
    """Each of them is reached by others, and would not start without one."""
    (stateful,) = [it for it in documents("kubernetes/slots.yaml") if it["kind"] == "StatefulSet"]
    spec = stateful["spec"]["template"]["spec"]
    arguments = spec["containers"][0]["args"]
    file = Path(arguments[arguments.index("--admin-key-file") + 1])
    (mount,) = [it for it in spec["containers"][0]["volumeMounts"] if it["mountPath"] == str(file.parent)]
    (volume,) = [it for it in spec["volumes"] if it["name"] == mount["name"]]
    assert mount["readOnly"]
    assert volume["secret"]["defaultMode"] == 0o440
    assert f"--from-literal={file.name}=" in (DEPLOY / "kubernetes/slots.yaml").read_text()
    (compose,) = documents("compose.yaml")
    for name in ("slots", "slots-postgres"):
        assert VARIABLE in compose["services"][name]["environment"]
    assert VARIABLE in (DEPLOY / "Dockerfile").read_text()


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    unit = (DEPLOY / "slots.service").read_text()
    (command,) = re.findall(r"^ExecStart=\S+ (.+)$", unit, re.MULTILINE)
    understood(shlex.split(command))
    if shutil.which("systemd-analyze") is None:
        return
    here = tmp_path / "slots.service"
    here.write_text(
        unit.replace("/opt/slots/bin/slots", "/bin/true").replace("Documentation=man:systemd.service(5)\n", "")
    )
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "slots.service" in line]) == (0, [])


def test_the_unit_is_confined():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=15", DEPLOY / "slots.service"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_service_works_under_the_units_filter_of_system_calls(small, tmp_path):
    if shutil.which("systemd-analyze") is None or ctypes.util.find_library("seccomp") is None:
        pytest.skip("needs systemd-analyze and libseccomp")
    program = (confined.__file__, str(DEPLOY / "slots.service"))
    x, _ = rows(40, 3, classes=4)
    with (
        served(small, "--data", tmp_path, program=program) as it,
        httpx.Client(base_url=f"{it.address}/api/v1/models/small", timeout=60) as client,
    ):
        status = Path(f"/proc/{it.pid}/status").read_text()
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
        assert client.post("/items", json={"inputs": x.tolist(), "store": "all"}).status_code == 200
        location = client.post("/review").headers["Location"]
        until = time.monotonic() + 120
        while (job := client.get(f"{it.address}{location}").json())["state"] in ("queued", "running"):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert job["state"] == "done", job
        assert it.stop()[0] == 0


def test_the_manager_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert manager.recv(64) == b"READY=1"
    notify("STOPPING=1")  # nobody listens any more
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
