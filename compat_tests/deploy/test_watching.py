"""The rules, the alerts and the dashboard, against a real Prometheus that scrapes a gateway under load."""

import json
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import yaml
from openai import OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.curl import Curl
from compat_tests.deploy.part import DEPLOY, part, told
from compat_tests.deploy.prometheus import RULES, Prometheus, watching
from compat_tests.process import Gateway
from compat_tests.texts import MODEL, prose
from compat_tests.waiting import until

PROMETHEUS, GRAFANA = DEPLOY / "prometheus", DEPLOY / "grafana"
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
TESTS = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((GRAFANA / "gateway.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
GRAFANAS = {"$cluster": ".*", "$namespace": ".*", "$job": ".*", "$model": ".*", "$__rate_interval": "20s"}
# Metrics that a healthy gateway with one model of its own and one on another server need not show, and why.
MAY_BE_ABSENT = {
    "gateway_cluster_up": "no model is on a Ray cluster",
    "gateway_cluster_replicas": "no model is on a Ray cluster",
    "gateway_cluster_calls_total": "no model is on a Ray cluster",
    "gateway_cluster_outstanding_calls": "no model is on a Ray cluster",
    "gateway_group_fallbacks_total": "no model is a group",
    "gateway_key_expires_timestamp_seconds": "no key expires",
    "gateway:dead:replicas_before": "none is dead",
    "gateway_connections_cut_total": "none was cut",
    "gateway_process_restarts_total": "it is one process",
    "ALERTS": "nothing is wrong",
}
# Alerts that the load of this test sets off, since it is more than the gateway may take.
EXPECTED = {"GatewayErrorBudgetBurnsFast", "GatewayErrorBudgetBurnsSlowly", "GatewayNoCapacity"}

BEHIND = "on-another-server"


def names_in(expression: str) -> set[str]:
    """The metrics an expression asks for."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\b(by|on|group_left|unless on)\b \([^)]*\)', "", expression)
    return set(re.findall(r"\b(?:gateway[:_][a-z0-9_:]+|process_[a-z_]+|ALERTS|up)\b", bare))


def filled_in(expression: str) -> str:
    for name, value in GRAFANAS.items():
        expression = expression.replace(name, value)
    return expression


def test_rules_are_valid() -> None:
    assert told(part("promtool", package="prometheus"), "check", "rules", *RULES).count("SUCCESS") == len(RULES)
    assert "SUCCESS" in told(part("promtool", package="prometheus"), "check", "config", PROMETHEUS / "prometheus.yml")


def test_every_alert_fires_when_it_must_and_only_then() -> None:
    assert "SUCCESS" in told(part("promtool", package="prometheus"), "test", "rules", PROMETHEUS / "alerts_test.yml")
    fires, silent = Counter[str](), Counter[str]()
    for each in TESTS:
        for case in each.get("promql_expr_test", []):
            if named := re.search(r'alertname="(\w+)"', case["expr"]):
                fires[named[1]] += 1
        for case in each.get("alert_rule_test", []):
            silent[case["alertname"]] += not case["exp_alerts"]
    names = {rule["alert"] for rule in ALERTS}
    assert set(fires) == names
    assert {name for name, count in silent.items() if count} == names


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_every_alert_says_what_to_do(rule: dict) -> None:
    file, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^### (Gateway\w+)$", (DEPLOY.parent / file).read_text(), flags=re.MULTILINE)
    assert anchor == rule["alert"].lower()
    assert rule["alert"] in headings
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert len(headings) == len(ALERTS)


def test_the_dashboard_is_what_its_source_writes() -> None:
    assert told(sys.executable, GRAFANA / "dashboard.py") == (GRAFANA / "gateway.json").read_text()


def test_rules_and_panels_tell_namespaces_apart() -> None:
    """Whatever is summed or counted keeps the namespace, and each panel can be held to one."""
    rules = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    asked = [rule["expr"] for rule in rules] + QUERIES
    grouped = [labels for query in asked for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", query)]
    assert len(grouped) > 60
    assert [labels for labels in grouped if not labels.startswith("cluster, namespace")] == []
    assert [query for query in asked if re.search(r"\b(sum|count|min|max|group)\(|\bwithout\b", query)] == []
    assert [query for query in QUERIES if 'namespace=~"$namespace"' not in query] == []
    names = [each["name"] for each in DASHBOARD["templating"]["list"]]
    assert names == ["source", "cluster", "namespace", "job", "model"]


def test_the_dashboard_is_whole() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] == "row" or panel["description"].endswith(".")


def test_provisioning_finds_the_dashboard_and_prometheus() -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/gateway.yml").read_text())["providers"]
    mounts = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert source["url"] == "http://prometheus:9090"
    assert any(mount.endswith(f"gateway.json:{provider['options']['path']}/gateway.json:ro") for mount in mounts)


class Load:
    """Requests of every kind: good ones, one too many, wrong keys, wrong paths, a key with a limit, a model on another server."""

    def __init__(self, gateway: Gateway, limited_key: str) -> None:
        self.gateway, self.limited_key = gateway, limited_key
        self.outcomes = Counter[int]()
        self.number = 0

    def one(self, client: OpenAI, model: str = MODEL) -> int:
        self.number += 1
        try:
            client.embeddings.create(model=model, input=[prose(30, self.number % 40)] * 2 + [prose(40, self.number)])
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    def more(self) -> None:
        with (
            OpenAI(base_url=self.gateway.base_url, api_key=ENVIRONMENT_KEY, max_retries=0) as client,
            ThreadPoolExecutor(4) as pool,
        ):
            self.outcomes.update(pool.map(lambda _: self.one(client), range(20)))
            self.one(client.with_options(api_key=self.limited_key), BEHIND)
        Curl(self.gateway.origin, "a-key-that-is-not-known-here").get("/v1/models")
        Curl(self.gateway.origin, ENVIRONMENT_KEY).get("/v1/nothing")


@pytest.mark.timeout(170)
def test_every_query_has_data_under_load_or_a_reason_for_none(own_gateway, gateway: Gateway, tmp_path: Path) -> None:
    key = {"env": "GATEWAY_API_KEYS"}
    behind = {"name": BEHIND, "backend": "openai", "url": gateway.base_url, "model": MODEL, "key": key}
    watched = own_gateway(
        GATEWAY__SERVER__MAX_CONCURRENT_REQUESTS="2",
        GATEWAY__MODELS=json.dumps([{"name": MODEL, "source": f"sentence-transformers/{MODEL}"}, behind]),
    )
    _, limited_key = watched.create_key("limited", "--rpm", "1", "--budget", "1000000/day")
    with running(watched):
        with watching(tmp_path, watched.origin.removeprefix("http://")) as prometheus:
            load = Load(watched, limited_key)
            asked = {query: filled_in(query) for query in QUERIES}
            asked |= {name: name for rule in ALERTS for name in names_in(rule["expr"])}
            assert len(asked) > 40

            def is_told() -> bool:
                load.more()
                return not without_data(prometheus, asked)

            try:
                until(is_told, seconds=100, what="data for every query")
            except TimeoutError:
                assert without_data(prometheus, asked) == []
            assert load.outcomes[200] > 20
            assert load.outcomes[503] > 0
            assert_rules_are_well(prometheus)
        watched.stop()


def without_data(prometheus: Prometheus, asked: dict[str, str]) -> list[str]:
    """The queries that say nothing, save those whose every metric may be absent."""
    return [
        query
        for query, expression in asked.items()
        if not names_in(query) <= set(MAY_BE_ABSENT) and not prometheus.query(expression)
    ]


def assert_rules_are_well(prometheus: Prometheus) -> None:
    """Each was evaluated without an error, and none fires that this load does not explain."""
    groups = prometheus.get("/api/v1/rules")
    assert isinstance(groups, dict)
    rules = [rule for group in groups["groups"] for rule in group["rules"]]
    assert len(rules) > len(ALERTS)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    assert {rule["name"] for rule in rules if rule["type"] == "alerting" and rule["state"] == "firing"} <= EXPECTED
