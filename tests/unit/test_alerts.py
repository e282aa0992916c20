"""Alerts without Prometheus: each says how bad it is, when it fires and where to read on, and asks
for metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "config" / "alerts.yml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
PAGE = (ROOT / "minilog/docs/alerts.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_has_its_severity_its_threshold_and_its_section(rule: dict[str, Any]) -> None:
    name, severity = rule["alert"], rule["labels"]["severity"]
    assert severity in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "threshold", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"minilog/docs/alerts.md#{name.lower()}"
    section = SECTIONS[name]
    assert section.strip().startswith(f"{severity}, "), "the section says the severity of the rule"
    assert [step for step in ("**Means.**", "**Look.**", "**Do.**") if step not in section] == []


def test_every_section_is_of_an_alert() -> None:
    assert sorted(SECTIONS) == sorted(rule["alert"] for rule in RULES)


def test_alerts_ask_for_metrics_that_there_are() -> None:
    known = set(re.findall(r"^\| `(minilog_\w+)`", (ROOT / "minilog/docs/metrics.md").read_text(), re.MULTILINE))
    asked = {name for rule in RULES for name in re.findall(r"\bminilog_\w+", rule["expr"])}
    assert {name.removesuffix("_bucket") for name in asked} - known == set()


def test_every_alert_fires_in_an_incident_that_is_played() -> None:
    played = (ROOT / "config" / "alerts_test.yml").read_text(encoding="utf-8")
    fired = set(re.findall(r'labels: \'\{alertname="(\w+)"\}', played))
    assert {rule["alert"] for rule in RULES} - fired == set()
