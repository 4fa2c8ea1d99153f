"""What watches a service from outside: rules and a dashboard that name figures that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as families

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
if not MONITORING.exists():
    pytest.skip("needs the checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def names(client):
    """Names that a query may use; histograms have their parts from the first observation on."""
    found = set()
    for family in families(client.get("/metrics").text):
        parts = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        found |= {family.name + part for part in parts}
    return found


def rules():
    found = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def queries():
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return asked + [it["query"] for it in dashboard["templating"]["list"]]


def unknown(expressions, names):
    return sorted({it for query in expressions for it in re.findall(r"\bslots_\w+", query)} - names)


def test_rules_and_dashboard_name_figures_that_there_are(names):
    assert unknown([rule["expr"] for rule in rules()], names) == []
    assert unknown(queries(), names) == []
    assert unknown(["rate(slots_nothing_total[5m])"], names) == ["slots_nothing_total"]


def test_labels_in_queries_are_those_that_figures_have(client):
    text = client.get("/metrics").text
    known = set(re.findall(r'(\w+)="', text)) | {"job", "kind", "state", "le"}
    for query in [*queries(), *(rule["expr"] for rule in rules())]:
        assert set(re.findall(r"[{,]\s*(\w+)=~?\"", query)) <= known, query


def test_every_rule_says_what_to_do():
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 0
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"].keys() == {"summary", "runbook"}


def test_panels_do_not_lie_on_each_other():
    taken = set()
    for panel in json.loads((MONITORING / "grafana.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken
        taken |= cells


def test_compose_mounts_the_files_that_prometheus_reads():
    compose = yaml.safe_load((MONITORING.parent / "compose.yaml").read_text())
    mounted = [it.split(":")[0] for it in compose["services"]["prometheus"]["volumes"]]
    for name in ("prometheus.yaml", "alerts.yaml"):
        assert f"./monitoring/{name}" in mounted
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    assert config["rule_files"] == ["alerts.yaml"]
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["slots:8080"]}]
    assert "slots" in compose["services"]


@pytest.mark.parametrize("kind", ["rules", "config"])
def test_promtool_finds_nothing_to_say(kind, tmp_path):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    folder = shutil.copytree(MONITORING, tmp_path / "monitoring")
    key = folder / "key"
    key.write_text("a key")
    config = folder / "prometheus.yaml"
    config.write_text(config.read_text().replace("/etc/prometheus/key", str(key)))
    name = {"rules": "alerts.yaml", "config": "prometheus.yaml"}[kind]
    done = subprocess.run(
        ["promtool", "check", kind, folder / name], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
