"""The compose file, the dashboards and the alert rules, held to the code they speak of."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.schemas.loading import load_config
from driftline.streams.metrics import METRICS
from driftline.streams.wiring import PROCESSORS, worker_port

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "dashboards" / "grafana" / "driftline.json"


def _yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(_yaml("docker-compose.yml")["services"])


def _samples() -> dict[str, tuple[str, ...]]:
    """Every name a query may use, with its labels."""
    names: dict[str, tuple[str, ...]] = {}
    for metric in METRICS:
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{end}": metric.labels for end in ("bucket", "sum", "count")}
        else:
            names[metric.name] = metric.labels
    return names


def _queries() -> Iterator[tuple[str, str]]:
    for group in _yaml("dashboards/prometheus/rules.yml")["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable["name"], variable["query"]["query"]


def test_every_metric_in_a_rule_or_panel_exists() -> None:
    known = set(_samples())
    unknown = {(where, name) for where, query in _queries() for name in re.findall(r"driftline_\w+", query) if name not in known}
    assert not unknown


def test_every_label_matched_in_a_rule_or_panel_belongs_to_its_metric() -> None:
    samples = _samples()
    wrong = [
        (where, name, label)
        for where, query in _queries()
        for name, matchers in re.findall(r"(driftline_\w+)\{([^}]*)\}", query)
        for label in re.findall(r"(\w+)\s*=", matchers)
        if label not in samples[name]
    ]
    assert not wrong


def test_every_recorded_series_that_is_read_is_recorded() -> None:
    groups = _yaml("dashboards/prometheus/rules.yml")["groups"]
    recorded = {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
    read = {name for _, query in _queries() for name in re.findall(r"driftline:[\w:]+", query)}
    assert read <= recorded


def test_every_metric_of_ours_but_the_build_is_shown_or_alerted_on() -> None:
    text = " ".join(query for _, query in _queries())
    assert [m.name for m in METRICS if m.name not in text] == []


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    for group in _yaml("dashboards/prometheus/rules.yml")["groups"]:
        for rule in (r for r in group["rules"] if "alert" in r):
            assert rule["labels"]["severity"] in {"info", "warning", "critical"}
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["description"].endswith(".")


def test_the_dashboard_is_what_its_generator_writes() -> None:
    generated = runpy.run_path(str(ROOT / "dashboards" / "grafana" / "generate.py"))["dashboard"]()
    assert json.loads(DASHBOARD.read_text()) == generated, "run: make docs"


def test_every_panel_states_its_question_and_lies_within_the_page() -> None:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or "?" in panel["description"] or panel["description"].endswith(".")


def test_panels_and_provisioning_name_one_data_source() -> None:
    [source] = _yaml("dashboards/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    used = set(re.findall(r'"uid": "(driftline-[^"]+)"', DASHBOARD.read_text()))
    assert used == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"


def test_compose_has_every_part(services: dict[str, Any]) -> None:
    assert set(services) == {"kafka", "redis", "topics-init", *PROCESSORS, "prometheus", "grafana"}


def test_every_published_port_is_on_loopback_and_published_once(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len(set(published)) == len(published)


def test_every_image_is_pinned_to_a_version(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values()]
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert all(re.search(r":v?\d+\.\d+\.\d+", image) for image in images), images


def test_every_server_has_a_health_check_and_comes_back(services: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "HEALTHCHECK" in dockerfile
    assert "/livez" in dockerfile
    for name, service in services.items():
        if name == "topics-init":
            continue
        assert service["restart"] == "unless-stopped", name
        assert "build" in service or "test" in service["healthcheck"], name


def test_the_image_does_not_run_as_root_and_takes_only_what_it_needs() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER driftline"]
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", "\n".join(lines), re.MULTILINE)
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name.removeprefix("./") for names in copied for name in names.split()} == kept


def test_data_survives_in_named_volumes(services: dict[str, Any]) -> None:
    declared = set(_yaml("docker-compose.yml")["volumes"])
    mounts = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert {mount for mount in mounts if not mount.startswith((".", "$"))} == declared
    for mount in mounts:
        if mount.startswith("./"):
            assert (ROOT / mount).exists(), mount


def test_redis_never_evicts(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_ports_agree_between_code_compose_and_scrape_configuration(services: dict[str, Any]) -> None:
    config = load_config(ROOT / "monitors" / "compose.yml")
    expected = {name: worker_port(config.http.port, name) for name in PROCESSORS}
    assert {name: services[name]["environment"]["DRIFTLINE_HTTP_PORT"] for name in PROCESSORS} == expected
    assert {name: services[name]["ports"] for name in PROCESSORS} == {n: [f"127.0.0.1:{p}:{p}"] for n, p in expected.items()}

    [job] = _yaml("dashboards/prometheus/prometheus.yml")["scrape_configs"]
    targets = {entry["labels"]["processor"]: entry["targets"] for entry in job["static_configs"]}
    assert targets == {name: [f"{name}:{port}"] for name, port in expected.items()}


def test_the_compose_configuration_names_the_compose_services(services: dict[str, Any]) -> None:
    config = load_config(ROOT / "monitors" / "compose.yml")
    listeners = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INTERNAL://{config.kafka.bootstrap}," in listeners
    assert config.redis.url == "redis://redis:6379/0"


def test_a_worker_without_http_has_no_port() -> None:
    assert [worker_port(0, name) for name in PROCESSORS] == [0, 0, 0, 0]
    assert worker_port(9464, "alert") == 9467
    assert [worker_port(9464, "join", age) for age in range(3)] == [9465, 9468, 9469]
