"""Every query of the dashboard, the alerts and the autoscaler asks for metrics and labels that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from exposition import OF_A_SCRAPE, Exposition, busy_server, scrape
from pydantic import BaseModel, ConfigDict, Field

from server.api.problems import INTERNAL, KINDS
from server.hosting.catalogue import ModelState
from server.jobs.job import JobState
from server.scheduling.scheduler import Drop

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "rules" / "alerts.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "ddo-serve.json").read_text())
PROBLEMS = {kind.slug for kind in (*KINDS.values(), INTERNAL)}
VALUES = {
    "outcome": PROBLEMS | {"ok", "refused"},
    "reason": PROBLEMS | set(Drop),
    "ddo_model_state": set(ModelState),
    "state": set(JobState),
    "job": {"ddo-serve"},
}


class Alert(BaseModel):
    model_config = ConfigDict(extra="forbid")

    alert: str = Field(pattern=r"^DdoServe[A-Z][A-Za-z]+$")
    expr: str
    wait: str = Field(alias="for", default="0m", pattern=r"^\d+[smh]$")
    labels: dict[Literal["severity"], Literal["critical", "warning"]]
    annotations: dict[Literal["summary"], str]


class AlertGroup(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    rules: list[Alert]


class AlertFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    groups: list[AlertGroup]


def alerts() -> list[Alert]:
    return [rule for group in AlertFile(**yaml.safe_load(ALERTS.read_text())).groups for rule in group.rules]


def targets() -> list[tuple[str, dict[str, Any]]]:
    return [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def queries() -> Iterator[Any]:
    for rule in alerts():
        yield pytest.param(rule.expr, rule.annotations["summary"], id=rule.alert)
    for title, target in targets():
        expr = target["expr"].replace("$__rate_interval", "5m")
        yield pytest.param(expr, target["legendFormat"], id=f"{title} {target['refId']}")
    adapter = yaml.safe_load((DEPLOY / "kubernetes" / "prometheus-adapter.yaml").read_text())
    for rule in adapter["rules"]["custom"]:
        expr = rule["metricsQuery"].replace("<<.GroupBy>>", "namespace, pod")
        yield pytest.param(expr.replace("<<.LabelMatchers>>", 'pod="a"'), "", id=rule["name"]["as"])
        yield pytest.param(rule["seriesQuery"], "", id=f"{rule['name']['as']} series")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Exposition:
    with busy_server(tmp_path_factory.mktemp("server")) as client:
        shown = scrape(client)
    return Exposition(shown.types, {**shown.labels, "up": frozenset()})


@pytest.mark.parametrize(("expr", "text"), list(queries()))
def test_query_asks_for_what_metrics_show(expr: str, text: str, exposed: Exposition) -> None:
    promql = pytest.importorskip("promql_parser")
    selectors, named = [], set(re.findall(r"{{ ?(?:\$labels\.)?(\w+) ?}}", text))

    def look(node: Any) -> None:
        if isinstance(node, promql.VectorSelector):
            selectors.append(node)
        elif isinstance(node, promql.AggregateExpr) and node.modifier:
            named.update(node.modifier.labels)
        elif isinstance(node, promql.BinaryExpr) and node.modifier and node.modifier.matching:
            named.update(node.modifier.matching.labels)

    promql.walk(promql.parse(expr), look)
    assert selectors
    shown: set[str] = set(OF_A_SCRAPE)
    for selector in selectors:
        assert selector.name in exposed.labels, f"no metric {selector.name}"
        labels = exposed.labels[selector.name] | OF_A_SCRAPE
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
            if matcher.name in VALUES:
                assert set(matcher.value.split("|")) <= VALUES[matcher.name], matcher.value
        shown |= labels
    assert named <= shown, f"{sorted(named - shown)} are no labels of {expr}"


def test_dashboard_shows_what_it_is_for() -> None:
    asked = {name for _, target in targets() for name in re.findall(r"ddo_\w+", target["expr"])}
    assert {
        "ddo_request_seconds_count",
        "ddo_request_seconds_bucket",
        "ddo_queue_wait_seconds_bucket",
        "ddo_first_preview_seconds_bucket",
        "ddo_engine_call_seconds_count",
        "ddo_batch_rows_sum",
        "ddo_padding_rows_total",
        "ddo_pending_compute_seconds",
        "ddo_rejections_total",
        "ddo_model_state",
        "ddo_swap_seconds_count",
        "ddo_model_memory_bytes",
        "ddo_jobs",
    } <= asked
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    uids = {target["datasource"]["uid"] for _, target in targets()}
    assert uids == {source["datasources"][0]["uid"]}


def test_variables_of_the_dashboard_are_labels(exposed: Exposition) -> None:
    variables = {entry["name"]: entry["definition"] for entry in DASHBOARD["templating"]["list"]}
    assert variables
    for name, definition in variables.items():
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", definition).groups()  # type: ignore[union-attr]
        assert label == name
        assert label in exposed.labels[metric] | OF_A_SCRAPE
    used = {name for _, target in targets() for name in re.findall(r"\$(\w+)", target["expr"])}
    assert used - {"__rate_interval"} == set(variables)


def test_every_alert_is_explained() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text()
    names = [rule.alert for rule in alerts()]
    assert names == re.findall(r"^\*\*(DdoServe\w+)\*\*", guide, re.MULTILINE)


def test_promtool_accepts_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True)
    config = DEPLOY / "prometheus" / "prometheus.yml"
    subprocess.run([promtool, "check", "config", "--syntax-only", str(config)], check=True)


def test_metrics_are_documented(exposed: Exposition) -> None:
    rows = re.findall(
        r"^\| `(ddo_\w+)` \| (\w+) \| ([\w, ]*) ?\|",
        (ROOT / "docs" / "operations.md").read_text(),
        re.MULTILINE,
    )
    told = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    suffix = {"histogram": "_count"}
    assert told == {
        name: (kind, set(exposed.labels[name + suffix.get(kind, "")]))
        for name, kind in exposed.types.items()
        if name.startswith("ddo_")
    }
